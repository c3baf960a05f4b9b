// SPDX-License-Identifier: Apache-2.0
// A simple 3D view seen from behind the robot's base: workspace box, end effector with its trail, object.

import { fit } from "./charts.js";

const TRAIL = 60;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Scene {
  constructor(canvas) {
    Object.assign(this, { canvas, turn: 0.35, tilt: 0.6, trail: [], zoom: 0 });
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      if (!canvas.hasPointerCapture(event.pointerId)) return;
      this.turn += event.movementX * 0.01;
      this.tilt = Math.max(0.05, Math.min(1.5, this.tilt + event.movementY * 0.01));
      this.draw();
    });
  }

  update(state) {
    const at = state.poses.ee_pose;
    if (at) {
      const last = this.trail.at(-1);
      if (!last || Math.hypot(...at.map((v, i) => v - last[i])) > 0.002) this.trail.push(at);
      if (last && Math.hypot(...at.map((v, i) => v - last[i])) > 0.1) this.trail = [at]; // a reset
      this.trail = this.trail.slice(-TRAIL);
    }
    this.state = state;
    this.draw();
  }

  // Pixels of a point in m, base frame: x away from the viewer, y to the left, z up.
  place(point) {
    const [x, y, z] = point.map((value, axis) => value - this.center[axis]);
    const c = Math.cos(this.turn), s = Math.sin(this.turn);
    const right = -y * c + x * s, away = x * c + y * s;
    const up = z * Math.cos(this.tilt) + away * Math.sin(this.tilt);
    const { width, height } = this;
    return [width / 2 + right * this.zoom, height / 2 - up * this.zoom];
  }

  line(points, colour, width = 2, closed = false) {
    const g = this.context;
    g.beginPath();
    points.map((p) => this.place(p)).forEach(([x, y], i) => (i ? g.lineTo(x, y) : g.moveTo(x, y)));
    if (closed) g.closePath();
    g.strokeStyle = colour;
    g.lineWidth = width;
    g.stroke();
  }

  ring(center, radius, colour, fill) {
    const points = Array.from({ length: 33 }, (_, i) => {
      const angle = (i / 32) * 2 * Math.PI;
      return [center[0] + radius * Math.cos(angle), center[1] + radius * Math.sin(angle), center[2]];
    });
    this.line(points, colour, 2.5, true);
    if (fill) {
      this.context.fillStyle = fill;
      this.context.fill();
    }
  }

  draw() {
    const { poses, settings } = this.state ?? { poses: {}, settings: {} };
    const { g, width, height } = fit(this.canvas);
    Object.assign(this, { context: g, width, height });
    g.clearRect(0, 0, width, height);
    const low = settings.workspace_min ?? [], high = settings.workspace_max ?? [], at = poses.ee_pose, object = poses.object_pose;
    const boxed = low.length === 3 && high.length === 3;
    const points = [...(boxed ? [low, high] : []), ...(at ? [at] : []), ...(object ? [object] : [])];
    if (!points.length) {
      g.fillStyle = css("--quiet");
      g.font = "16px system-ui";
      g.textAlign = "center";
      g.fillText("no ee_pose", width / 2, height / 2);
      return;
    }
    this.center = [0, 1, 2].map((axis) => (Math.min(...points.map((p) => p[axis])) + Math.max(...points.map((p) => p[axis]))) / 2);
    const spread = Math.max(0.16, ...[0, 1, 2].map((axis) => Math.max(...points.map((p) => Math.abs(p[axis] - this.center[axis])) ) * 3.4));
    const wanted = Math.min(width, height) / spread;
    this.zoom = this.zoom ? this.zoom + 0.2 * (wanted - this.zoom) : wanted;
    const quiet = css("--quiet"), hot = css("--operator"), cold = css("--policy");
    if (boxed) this.box(low, high, quiet);
    if (object) {
      this.board(object, quiet);
      this.ring(object, 0.011, cold, "rgb(29 78 216 / .25)");
    }
    if (at) {
      this.line(this.trail, "rgb(10 122 61 / .5)", 3);
      const floor = object ? object[2] : boxed ? low[2] : at[2];
      this.line([at, [at[0], at[1], floor]], quiet, 1);
      this.ring([at[0], at[1], floor], 0.004, hot);
      this.line([at, [at[0], at[1], at[2] + 0.06]], "#ea7a1f", Math.max(6, 0.02 * this.zoom));
      const [x, y] = this.place(at);
      g.beginPath();
      g.arc(x, y, 5, 0, 2 * Math.PI);
      g.fillStyle = hot;
      g.fill();
    }
    this.compass(quiet);
  }

  board([x, y, z], colour) {
    const h = 0.06;
    this.line([[x - h, y - h, z], [x + h, y - h, z], [x + h, y + h, z], [x - h, y + h, z]], colour, 1.5, true);
  }

  box(low, high, colour) {
    const corner = (i) => [0, 1, 2].map((axis) => ((i >> axis) & 1 ? high : low)[axis]);
    for (let i = 0; i < 8; i++)
      for (const bit of [1, 2, 4]) if (!(i & bit)) this.line([corner(i), corner(i | bit)], colour, 1.5);
  }

  compass(colour) {
    const g = this.context, { height } = this, zero = this.place(this.center);
    g.font = "13px system-ui";
    g.textAlign = "center";
    [["x", 0], ["y", 1], ["z", 2]].forEach(([name, axis]) => {
      const tip = [...this.center];
      tip[axis] += 22 / this.zoom;
      const [x, y] = this.place(tip).map((v, i) => v - zero[i]);
      g.strokeStyle = g.fillStyle = colour;
      g.lineWidth = 2;
      g.beginPath();
      g.moveTo(34, height - 30);
      g.lineTo(34 + x, height - 30 + y);
      g.stroke();
      g.fillText(name, 34 + x * 1.4, height - 30 + y * 1.4 + 4);
    });
  }
}
