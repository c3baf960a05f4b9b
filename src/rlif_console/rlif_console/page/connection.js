// SPDX-License-Identifier: Apache-2.0
// The two WebSockets of the page: messages, and pictures that are acknowledged one by one.

const address = (path) => `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
const RETRY = 1000; // ms
const PING = 500; // ms
const WRONG_TOKEN = 4401;

export function takeToken() {
  const given = location.hash.slice(1);
  if (given) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem("token") || "";
}

export class Connection extends EventTarget {
  constructor(token, robot) {
    super();
    Object.assign(this, { token, robot, last: Infinity, pending: 0, looks: [], open: false, closed: false });
    this.connect();
    this.connectPictures();
    this.pinger = setInterval(() => this.ping(), PING);
  }

  hello() {
    return JSON.stringify({ type: "hello", token: this.token, robot: this.robot, name: navigator.platform || "" });
  }

  connect() {
    const socket = (this.socket = new WebSocket(address("/ws")));
    socket.onopen = () => socket.send(this.hello());
    socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.type === "welcome") this.open = true;
      if (message.type === "pong") {
        this.last = performance.now() - message.t;
        if (message.t >= this.pending) this.pending = 0;
      }
      this.dispatchEvent(new CustomEvent(message.type, { detail: message }));
    };
    socket.onclose = (event) => {
      this.open = false;
      this.last = Infinity;
      this.pending = 0;
      if (this.closed) return;
      this.dispatchEvent(new CustomEvent("lost", { detail: event }));
      if (event.code !== WRONG_TOKEN) setTimeout(() => this.closed || this.connect(), RETRY);
    };
  }

  send(message) {
    if (!this.open || this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  ping() {
    const t = performance.now();
    if (this.send({ type: "ping", t })) this.pending ||= t;
  }

  // In ms; grows while an answer is missing.
  get roundTrip() {
    return this.pending ? Math.max(this.last, performance.now() - this.pending) : this.last;
  }

  // ---- pictures

  connectPictures() {
    const socket = (this.picturesSocket = new WebSocket(address("/pictures")));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      socket.send(this.hello());
      this.look(this.looks);
    };
    socket.onmessage = async (event) => {
      try {
        await this.show(event.data);
      } finally {
        if (socket.readyState === WebSocket.OPEN) socket.send('{"type":"ack"}');
      }
    };
    socket.onclose = (event) => {
      if (!this.closed && event.code !== WRONG_TOKEN) setTimeout(() => this.closed || this.connectPictures(), RETRY);
    };
  }

  async show(buffer) {
    const view = new DataView(buffer);
    const length = view.getUint16(0, true), age = view.getFloat32(2, true);
    const name = new TextDecoder().decode(new Uint8Array(buffer, 10, length));
    const blob = new Blob([new Uint8Array(buffer, 10 + length)], { type: "image/jpeg" });
    const image = await createImageBitmap(blob);
    this.dispatchEvent(new CustomEvent("picture", { detail: { name, age, image } }));
  }

  look(names) {
    this.looks = names;
    if (this.picturesSocket.readyState === WebSocket.OPEN) this.picturesSocket.send(JSON.stringify({ type: "look", names }));
  }

  close() {
    this.closed = true;
    clearInterval(this.pinger);
    this.socket.close();
    this.picturesSocket.close();
  }
}
