// SPDX-License-Identifier: Apache-2.0
// The time line of control, take-overs and outcomes, and curves.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const SPAN = 300; // s
const WINDOW = 20; // episodes

// A context whose unit is a CSS pixel, and the canvas's size in it.
export function fit(canvas) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return { g: context, width, height };
}

// Bands from above: outcomes, control states, take-overs, what the critic expects, minutes.
export function drawTimeLine(canvas, history, values, now) {
  const { g, width, height } = fit(canvas);
  const x = (time) => width * (1 - (now - time) / SPAN);
  g.clearRect(0, 0, width, height);
  const states = history.filter((entry) => entry.kind === "control");
  states.forEach((entry, index) => {
    const left = Math.max(0, x(entry.time)), right = x(states[index + 1]?.time ?? now);
    if (right < 0) return;
    g.fillStyle = css(`--${entry.state.toLowerCase()}`);
    g.fillRect(left, 22, right - left, 26);
  });
  const shown = values.filter((entry) => x(entry.time) >= 0), deepest = Math.min(-1, ...shown.map((entry) => entry.value));
  g.fillStyle = css("--hold");
  for (const { time, value } of shown) {
    const tall = (44 * Math.max(0, -value)) / -deepest;
    g.fillRect(x(time), height - 18 - tall, Math.max(1, width / SPAN / 8), tall);
  }
  g.font = "bold 16px system-ui";
  g.textAlign = "center";
  for (const entry of history) {
    const at = x(entry.time);
    if (at < 0) continue;
    if (entry.kind === "episode") {
      const good = entry.outcome === "success";
      g.fillStyle = css(good ? "--operator" : "--fault");
      g.fillText(good ? "✓" : entry.outcome === "truncated" ? "…" : "✗", at, 16);
    } else if (entry.kind === "take_over") {
      g.fillStyle = css("--ink");
      g.fillText("▲", at, 66);
      g.globalAlpha = 0.4; // of many take-overs, the strip stays to be seen
      g.fillRect(at - 0.5, 66, 1, height - 84);
      g.globalAlpha = 1;
      if (entry.label !== null) {
        g.fillStyle = css("--fault");
        g.fillRect(at - 6, 22, 3, 26); // the step before: label -1
      }
    }
  }
  g.fillStyle = css("--quiet");
  g.font = "12px system-ui";
  for (const minute of [1, 2, 3, 4]) g.fillText(`−${minute} min`, x(now - 60 * minute), height - 2);
  g.textAlign = "right";
  g.fillText("now", width - 2, height - 2);
  g.textAlign = "left";
  if (shown.length) g.fillText(`−${(-deepest).toFixed(1)} critic's value`, 2, height - 66);
}

export function curves(history, metric) {
  const episodes = history.filter((e) => e.kind === "episode" && e.outcome !== "discarded" && !e.evaluation);
  const over = (name, colour, of) => ({ name, colour, unit: "episodes", points: episodes.map((_, index) => {
    const recent = episodes.slice(Math.max(0, index + 1 - WINDOW), index + 1);
    return [index + 1, recent.reduce((sum, e) => sum + of(e), 0) / recent.length];
  }) });
  if (metric === "take-overs per step") return [over(metric, "--fault", (e) => e.interventions / Math.max(e.steps, 1))];
  if (metric) {
    const points = history.filter((e) => e.kind === "learner" && metric in e.metrics).map((e) => [e.updates, e.metrics[metric]]);
    return [{ name: metric, colour: "--policy", unit: "updates", points }];
  }
  return [
    over("success", "--operator", (e) => Number(e.outcome === "success")),
    over("operator share", "--hold", (e) => (e.steps ? e.operator_steps / e.steps : 0)),
  ];
}

export function drawCurves(canvas, lines, isShare) {
  const { g, width, height } = fit(canvas);
  g.clearRect(0, 0, width, height);
  const all = lines.flatMap((line) => line.points);
  const ink = css("--quiet");
  g.font = "13px system-ui";
  g.fillStyle = ink;
  if (all.length < 2) {
    g.textAlign = "center";
    g.fillText("nothing yet", width / 2, height / 2);
    return;
  }
  const xs = all.map((p) => p[0]), ys = isShare ? [0, 1] : all.map((p) => p[1]);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const place = ([x, y]) => [48 + ((width - 56) * (x - x0)) / (x1 - x0 || 1), height - 30 - ((height - 60) * (y - y0)) / (y1 - y0 || 1)];
  g.strokeStyle = css("--rule");
  g.strokeRect(48, 30, width - 56, height - 60);
  g.textAlign = "right";
  const short = (v) => (isShare ? `${Math.round(v * 100)} %` : Number(v.toPrecision(3)).toString());
  g.fillText(short(y1), 43, 38);
  g.fillText(short(y0), 43, height - 26);
  g.fillText(`${x1.toLocaleString()} ${lines[0].unit}`, width - 10, height - 10);
  g.textAlign = "left";
  let at = 48;
  for (const line of lines) {
    g.strokeStyle = g.fillStyle = css(line.colour);
    g.lineWidth = 2;
    g.beginPath();
    line.points.map(place).forEach(([x, y], i) => (i ? g.lineTo(x, y) : g.moveTo(x, y)));
    g.stroke();
    g.fillRect(at, 10, 14, 6);
    g.fillStyle = ink;
    g.fillText(line.name, at + 20, 19);
    at += g.measureText(line.name).width + 40;
  }
}
