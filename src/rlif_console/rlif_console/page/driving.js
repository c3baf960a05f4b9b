// SPDX-License-Identifier: Apache-2.0
// Keyboard, touch and gamepad as one operator device. Deadman by hold: whatever keeps the page from
// knowing that a key, a finger or a button is still down counts as letting go.

const HELD_PERIOD = 25, IDLE_PERIOD = 100; // ms between two frames
const FINE = 0.3;
const DEAD_ZONE = 0.1; // of a stick
// Key code: axis of x y z roll pitch yaw, and direction.
const KEYS = {
  KeyW: [0, 1], KeyS: [0, -1], KeyA: [1, 1], KeyD: [1, -1], KeyE: [2, 1], KeyQ: [2, -1], KeyZ: [5, 1], KeyC: [5, -1],
  ArrowUp: [0, 1], ArrowDown: [0, -1], ArrowLeft: [1, 1], ArrowRight: [1, -1], PageUp: [2, 1], PageDown: [2, -1],
};
const SHIFTS = ["ShiftLeft", "ShiftRight"];
// Buttons of a gamepad of the standard layout.
const DEADMAN = 5, TURBO = 4, BUTTONS = { 0: "success", 1: "failure", 8: "stop", 9: "arm" };

export const isTyping = (target) =>
  target instanceof HTMLElement && (target.isContentEditable || target.matches("textarea, input:not([type=range]):not([type=checkbox]), select"));

export class Driving {
  // send(frame): to the console; command(name): of a gamepad's buttons; limit(): why one may not drive, or ""
  constructor({ send, command, limit, changed }) {
    Object.assign(this, { send, command, limit, changed });
    this.keys = new Set();
    this.pointers = new Map(); // pad element: {x, y} in [-1, 1]
    this.gripper = 0;
    this.gain = 0.6;
    this.sequence = 0;
    this.seen = 0;
    this.sentAt = 0;
    this.held = false;
    this.buttons = {};
    this.listen();
    setInterval(() => this.turn(), HELD_PERIOD);
  }

  listen() {
    addEventListener("keydown", (event) => this.onKey(event, true));
    addEventListener("keyup", (event) => this.onKey(event, false));
    addEventListener("blur", () => this.release());
    addEventListener("pagehide", () => this.release());
    addEventListener("freeze", () => this.release(), true); // of the document, and does not bubble
    addEventListener("contextmenu", () => this.release());
    document.addEventListener("visibilitychange", () => this.release());
  }

  onKey(event, down) {
    // No keyup comes of a key that comes up beside Cmd (macOS), or of the first of two Shifts.
    if (event.metaKey || event.key === "Meta") return this.release();
    if (!event.shiftKey && SHIFTS.filter((code) => this.keys.delete(code)).length) this.turn(true);
    const drives = event.code in KEYS || SHIFTS.includes(event.code);
    if (!drives || (down && (isTyping(event.target) || event.ctrlKey || event.altKey || event.metaKey))) return;
    if (event.code in KEYS && !isTyping(event.target)) event.preventDefault(); // arrows scroll
    if (event.repeat || down === this.keys.has(event.code)) return; // a repeat after a release is no new press
    if (down) this.keys.add(event.code);
    else this.keys.delete(event.code);
    this.turn(true);
  }

  addPad(element, place) {
    // place(x, y): the six axes of a deflection right and up
    element.place = place;
    const move = (event) => {
      const box = element.getBoundingClientRect();
      const radius = Math.max(box.width, box.height) / 2 - 20;
      let x = (event.clientX - box.left - box.width / 2) / radius;
      let y = -(event.clientY - box.top - box.height / 2) / radius;
      if (element.classList.contains("tall")) x = 0;
      const length = Math.max(1, Math.hypot(x, y));
      this.pointers.set(element, { x: x / length, y: y / length, id: event.pointerId });
      this.drawPad(element);
      this.turn(true);
    };
    const end = (event) => {
      if (this.pointers.get(element)?.id !== event.pointerId) return;
      this.pointers.delete(element);
      this.drawPad(element);
      this.turn(true);
    };
    element.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      element.setPointerCapture(event.pointerId);
      move(event);
    });
    element.addEventListener("pointermove", (event) => this.pointers.get(element)?.id === event.pointerId && move(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) element.addEventListener(name, end);
  }

  drawPad(element) {
    const at = this.pointers.get(element), knob = element.querySelector(".knob");
    element.classList.toggle("held", Boolean(at));
    const reach = Math.max(element.clientWidth, element.clientHeight) / 2 - 20;
    knob.style.translate = at ? `${at.x * reach}px ${-at.y * reach}px` : "";
  }

  release() {
    this.keys.clear();
    for (const element of [...this.pointers.keys()]) {
      this.pointers.delete(element);
      this.drawPad(element);
    }
    this.gripper = 0;
    // A gamepad's button goes on being pressed: it must come up before it counts again.
    this.padBlocked = true;
    this.turn(true);
  }

  read() {
    const axes = [0, 0, 0, 0, 0, 0];
    let held = false;
    const fine = SHIFTS.some((code) => this.keys.has(code));
    for (const code of this.keys) {
      held = true;
      if (code in KEYS) axes[KEYS[code][0]] += KEYS[code][1] * this.gain * (fine ? FINE : 1);
    }
    for (const [element, { x, y }] of this.pointers) {
      held = true;
      element.place(x, y).forEach((value, axis) => (axes[axis] += value * this.gain));
    }
    const pad = this.readGamepad(axes);
    if (this.gripper) held = true;
    return { held: held || pad, axes: axes.map((value) => Math.max(-1, Math.min(1, value))) };
  }

  readGamepad(axes) {
    const pad = [...(navigator.getGamepads?.() ?? [])].find((found) => found?.connected && found.mapping === "standard");
    this.gamepad = pad?.id ?? "";
    if (!pad) return false;
    for (const [index, name] of Object.entries(BUTTONS)) {
      const down = Boolean(pad.buttons[index]?.pressed);
      const pressed = down && this.buttons[index] === false;
      this.buttons[index] = down; // before the command: a stop releases, which reads the gamepad again
      if (pressed && (name === "stop" || document.hasFocus())) this.command(name);
    }
    const pressed = Boolean(pad.buttons[DEADMAN]?.pressed);
    if (!pressed) this.padBlocked = false;
    if (!pressed || this.padBlocked || !document.hasFocus()) return false;
    const reach = this.gain * (pad.buttons[TURBO]?.pressed ? 1 / this.gain : 1);
    const stick = (index) => (Math.abs(pad.axes[index] ?? 0) > DEAD_ZONE ? -pad.axes[index] * reach : 0);
    axes[0] += stick(1);
    axes[1] += stick(0);
    axes[2] += stick(3);
    axes[5] += stick(2);
    return true;
  }

  // One frame, if it is due or something has changed.
  turn(changed = false) {
    const now = performance.now();
    const { held, axes } = this.read();
    const why = this.limit();
    // What has ended a hold goes, the key is still down: the person has to let go first.
    this.blocked = held && (this.blocked || Boolean(why) || document.hidden);
    const drives = held && !this.blocked;
    if (!changed && drives === this.held && now - this.sentAt < (drives ? HELD_PERIOD - 5 : IDLE_PERIOD)) return;
    this.sentAt = now;
    this.held = drives;
    this.send({
      type: "input", sequence: ++this.sequence, seen: this.seen, present: !document.hidden, held: drives,
      axes: drives ? axes : [0, 0, 0, 0, 0, 0], gripper: drives ? this.gripper : 0,
    });
    this.changed();
  }
}
