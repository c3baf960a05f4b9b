// SPDX-License-Identifier: Apache-2.0
// What the page shows and asks for. Nothing is decided here that the console does not decide again.

import { curves, drawCurves, drawTimeLine } from "./charts.js";
import { Connection, takeToken } from "./connection.js";
import { Driving, isTyping } from "./driving.js";
import { Scene } from "./scene.js";

const $ = (id) => document.getElementById(id);
const put = (id, text) => { if ($(id).textContent !== String(text)) $(id).textContent = text; };
const percent = (value) => (value == null ? "–" : `${Math.round(value * 100)} %`);
const number = (value) => (value == null ? "–" : Number(value).toLocaleString("en"));
const OLD = 0.5; // s of a picture
const CHECK = 3000; // ms between two checks
const FORGET = 1500; // ms without a state until what is shown counts as old

let connection, page, lease, state, stateAt = -Infinity, reason = "", limits = { max_age: 0.3 }, history = [], values = [], command = 0, checkAgain;
const scene = new Scene($("scene"));

// ---- connection

function open() {
  connection?.close();
  connection = new Connection(token, new URLSearchParams(location.search).get("robot") || "");
  connection.addEventListener("welcome", ({ detail }) => {
    page = detail.page;
    limits = detail;
    history = values = [];
    take(detail.history);
    driving.sequence = 0;
    $("robot-choice").hidden = detail.robots.length < 2;
    $("robot").replaceChildren(...detail.robots.map((name) => new Option(name, name, false, name === detail.robot)));
    look();
  });
  connection.addEventListener("beat", ({ detail }) => {
    driving.seen = detail.number;
    reason = detail.reason;
    driving.turn();
    showDrive();
  });
  connection.addEventListener("state", ({ detail }) => show(detail));
  connection.addEventListener("history", ({ detail }) => take(detail.entries));
  connection.addEventListener("answer", ({ detail }) => {
    answer(`${detail.name}: ${detail.text}`, detail.ok);
    // Again, until there is nothing to mend or somebody arms: the list turns green item by item.
    clearTimeout(detail.name === "check" ? checkAgain : undefined);
    if (detail.name === "check" && detail.text.endsWith("to mend")) checkAgain = setTimeout(() => operates() && !document.hidden && state.control?.state === "DISARMED" && ask("check"), CHECK);
  });
  connection.addEventListener("refused", ({ detail }) => answer(detail.text, false));
  connection.addEventListener("picture", ({ detail }) => showPicture(detail));
  connection.addEventListener("lost", ({ detail }) => {
    page = lease = undefined;
    driving.release();
    if (detail.code === 4401) $("login").showModal();
    freshness();
  });
}

// Of what has happened and of the critic, as much as the console keeps.
function take(entries) {
  history = [...history, ...entries.filter((e) => e.kind !== "value")].slice(-2000);
  values = [...values, ...entries.filter((e) => e.kind === "value")].slice(-3000);
}

const operates = () => page !== undefined && lease?.holder?.page === page;

function whyNot() {
  if (!connection?.open) return "No connection.";
  if (!operates()) return "Take the controls to drive.";
  if (!(connection.roundTrip <= limits.max_age * 1000)) return `The connection is too slow to drive: ${milliseconds()}.`;
  return "";
}

const milliseconds = () => (Number.isFinite(connection.roundTrip) ? `${Math.round(connection.roundTrip)} ms` : "no answer");

const driving = new Driving({
  send: (frame) => operates() && connection.send(frame),
  command: ask,
  limit: whyNot,
  changed: showDrive,
});
window.driving = driving; // for a look from the browser's own tools

// ---- commands

function ask(name, value) {
  if (name === "stop") driving.release();
  const sent = connection.send({ type: "command", id: ++command, name, seen: driving.seen, ...(value === undefined ? {} : { value }) });
  if (!sent) answer(`${name}: NOT SENT, no connection. Use the robot's own emergency stop.`, false);
}

let fading;
function answer(text, ok) {
  put("answer", text);
  $("answer").className = ok ? "shown" : "shown no";
  clearTimeout(fading);
  fading = setTimeout(() => $("answer").classList.remove("shown"), ok ? 2500 : 6000);
}

for (const button of document.querySelectorAll("[data-command]")) button.addEventListener("click", () => ask(button.dataset.command));
$("stop").addEventListener("pointerdown", (event) => { event.preventDefault(); ask("stop"); });
$("stop").addEventListener("click", (event) => event.detail === 0 && ask("stop")); // by keyboard or a screen reader
addEventListener("keydown", (event) => {
  if (event.code !== "Space" || isTyping(event.target) || $("login").open) return;
  event.preventDefault(); // not the button that has the focus
  if (!event.repeat) ask("stop");
}, true);
addEventListener("keyup", (event) => event.code === "Space" && !isTyping(event.target) && event.preventDefault(), true);
function askLease(action, to) {
  const ends = operates() && action !== "take";
  if (ends) driving.release();
  connection.send({ type: "lease", action, to });
  if (ends) lease.holder = null; // input after this would be refused
}
$("lease").addEventListener("click", () => {
  const waiting = lease?.asking.some((other) => other.page === page);
  askLease(operates() || waiting ? "give_up" : "take");
});
$("speed").addEventListener("change", () => ask("speed", $("speed").value / 100));
$("speed").addEventListener("input", () => put("speed-out", `${$("speed").value} %`));
$("checkpoint").addEventListener("change", () => ask("checkpoint", $("checkpoint").value));
$("evaluation").addEventListener("change", () => ask("evaluation", $("evaluation").checked));
$("note-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("note").value.trim()) ask("note", $("note").value.trim());
  $("note").value = "";
  $("note").blur();
});
$("gain").addEventListener("input", () => { driving.gain = $("gain").value / 100; put("gain-out", `${$("gain").value} %`); });
for (const [id, way] of [["open", 1], ["close", -1]]) {
  $(id).addEventListener("pointerdown", () => { driving.gripper = way; driving.turn(true); });
  for (const name of ["pointerup", "pointercancel", "pointerleave"]) $(id).addEventListener(name, () => { driving.gripper = 0; driving.turn(true); });
}
$("robot").addEventListener("change", () => { location.search = `?robot=${encodeURIComponent($("robot").value)}`; });
$("raw").addEventListener("change", look);
$("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.body).backgroundColor !== "rgb(244, 245, 247)";
  localStorage.theme = document.documentElement.dataset.theme = dark ? "light" : "dark";
});
if (localStorage.theme) document.documentElement.dataset.theme = localStorage.theme;
driving.addPad($("pad-xy"), (x, y) => [y, -x, 0, 0, 0, 0]);
driving.addPad($("pad-z"), (_, y) => [0, 0, y, 0, 0, 0]);
driving.addPad($("pad-yaw"), (_, y) => [0, 0, 0, 0, 0, y]);

// ---- what is shown

function showDrive() {
  const why = whyNot();
  const wants = driving.keys.size || driving.pointers.size;
  const text = why || (driving.blocked ? "Let go and take over again." : reason && wants ? `Released: ${reason}. Let go and take over again.` : driving.held ? "You drive." : "Hold a key, a stick or RB to drive.");
  put("drive", text);
}

function show(message) {
  state = message;
  stateAt = performance.now();
  lease = state.lease;
  document.body.dataset.state = state.control?.state ?? "NONE";
  put("state", state.control?.state ?? "no arbiter");
  put("reason", state.control?.reason || (state.control ? "" : "Nothing has been received from the arbiter yet."));
  put("guide", state.guide);
  $("guide").hidden = !state.guide;
  showLease();
  showEpisode();
  showLearner();
  showSettings();
  showProblems();
  showCameras();
  scene.update(state);
  const at = state.poses.ee_pose;
  put("where", at ? `end effector ${at.map((v) => v.toFixed(3)).join(", ")} m` : "");
  freshness();
}

function showLease() {
  const others = lease.holder ? `${lease.holder.name} (page ${lease.holder.page}) operates${lease.present ? "" : ", but does not see the page"}.` : "Nobody operates from a page.";
  document.body.toggleAttribute("data-operates", operates());
  $("arm").hidden = !["DISARMED", "FAULT"].includes(state.control?.state);
  const mine = operates(), waiting = lease.asking.some((other) => other.page === page);
  put("operator", `${mine ? "You operate." : others} ${lease.watching - 1 ? `${lease.watching} pages are open.` : ""}`);
  put("lease", mine ? "Give up the controls" : waiting ? "Do not ask any more" : lease.holder ? "Ask for the controls" : "Take the controls");
  $("lease").classList.toggle("primary", !mine && limits.role === "operator" && !lease.holder);
  $("lease").disabled = limits.role !== "operator";
  const only = ["arm", "start", "success", "failure", "discard", "save", "check"];
  for (const button of document.querySelectorAll("[data-command]")) if (only.includes(button.dataset.command)) button.disabled = !mine;
  for (const id of ["speed", "evaluation", "checkpoint"]) $(id).disabled = !mine;
  list("asking", mine ? lease.asking.map((other) => [other.page, () => {
    const item = document.createElement("li"), button = document.createElement("button");
    button.textContent = `Hand over to ${other.name} (page ${other.page})`;
    button.addEventListener("click", () => askLease("hand_over", other.page));
    item.append(button);
    return item;
  }]) : []);
  showDrive();
}

// Entries [key, make]: elements are made anew only when the keys have changed.
function list(id, entries) {
  const keys = JSON.stringify(entries.map(([key]) => key));
  if ($(id).dataset.keys === keys) return;
  $(id).dataset.keys = keys;
  $(id).replaceChildren(...entries.map(([, make]) => make()));
}

function item(text, mark = "") {
  const made = document.createElement("li");
  if (mark) {
    const span = document.createElement("span");
    span.className = `mark ${mark}`;
    span.textContent = mark;
    made.append(span, " ");
  }
  made.append(text);
  return made;
}

function showEpisode() {
  const e = state.episode;
  put("episode-id", e?.id || "–");
  put("episode-phase", e ? `${e.phase}${e.evaluation ? ", evaluation" : ""}${e.phase === "ended" ? `: ${e.outcome}` : ""}` : "");
  const running = e?.phase === "running";
  const steps = running && state.decision ? state.decision.step + 1 : (e?.steps ?? 0);
  $("steps").max = e?.max_steps || Math.max(steps, 1);
  $("steps").value = steps;
  put("episode-text", e ? `${steps}${e.max_steps ? ` of ${e.max_steps}` : ""} steps. ${e.phase === "ended" ? e.reason : ""}` : "No episode yet.");
  showDetector();
  put("success", percent(state.success));
  put("interventions", state.interventions == null ? "–" : state.interventions.toFixed(3));
  for (const [id, [rate, count]] of [["policy", state.evaluated.policy], ["person", state.evaluated.operator]]) put(id, count ? `${percent(rate)} of ${count}` : "–");
  const { success, failure, truncated } = state.outcomes;
  put("outcomes", `${success} ✓ ${failure} ✗ ${truncated} …`);
}

function showDetector() {
  const d = state.detector;
  $("detector").hidden = !d;
  if (!d) return;
  const fresh = state.ages.detector < 2; // s
  $("confidence").value = fresh ? d.confidence : 0;
  put("detector-text", !fresh ? "Success detector: no data" : `Success detector: ${d.confidence.toFixed(3)}, threshold ${d.threshold.toFixed(3)}${d.off ? "; disabled during take-overs" : ""}`);
}

function showLearner() {
  const l = state.learner;
  put("updates", number(l?.updates));
  put("ratio", l ? l.updates_per_step.toFixed(2) : "–");
  put("speed-learner", l ? number(Math.round(l.critic_steps_per_s)) : "–");
  put("lag", l ? (l.caught_up ? "caught up" : `${number(l.backlog)} due`) : "none");
  for (const name of Object.keys(l?.metrics ?? {})) if (![...$("metric").options].some((o) => o.value === name)) $("metric").add(new Option(name, name));
  const s = state.settings;
  for (const name of s.checkpoints ?? []) if (![...$("checkpoint").options].some((o) => o.value === name)) $("checkpoint").add(new Option(`checkpoint ${name}`, name));
  const parts = [l?.message, l?.lost_steps ? `${l.lost_steps} steps lost` : "", s.bag_directory ? `Bag: ${s.bag_directory}${s.free_gb == null ? "" : `, ${s.free_gb} GB free`}.` : "No bag is written.",
    s.run_directory ? `Checkpoints: ${s.run_directory}/checkpoints.` : "No checkpoints are kept."];
  put("files", parts.filter(Boolean).join(" "));
}

function showSettings() {
  const s = state.settings;
  if (s.speed_scale != null && document.activeElement !== $("speed")) {
    $("speed").value = Math.round(s.speed_scale * 100);
    put("speed-out", `${$("speed").value} %`);
  }
  if (document.activeElement !== $("evaluation")) $("evaluation").checked = Boolean(s.evaluation);
  $("pad-yaw").hidden = !(s.axes ?? []).includes("yaw");
  $("gripper").hidden = !(s.axes ?? []).includes("gripper");
  put("pad-name", driving.gamepad ? `Gamepad: hold RB. ${driving.gamepad.slice(0, 40)}` : "A gamepad: hold RB.");
  list("checks", (state.checks ?? []).map((c) => [[c.check, c.verdict, c.found], () => item(`${c.check}: ${c.found}${c.advice ? ` – ${c.advice}` : ""}`, c.verdict)]));
}

function labels(step) {
  if (step === null) return "nothing before it to label";
  const scheme = state.settings.label_scheme;
  return !scheme || scheme === "onset" ? `label −1 on step ${step}` : `labelled by ${scheme}, from step ${step}`;
}

function showProblems() {
  const found = state.problems.map((p) => [[p.name, p.message], () => item(`${p.name}: ${p.message}. ${p.advice}`, p.level > 1 ? "FAIL" : "warn")]);
  list("problems", found.length ? found : [["", () => item("none")]]);
  const recent = history.filter((e) => e.kind === "take_over").slice(-5).reverse();
  list("take-overs", recent.map((e) => [[e.id, e.time], () => item(`Take-over ${e.id} with ${e.device} at step ${e.step}: ${labels(e.label)}`)]));
  const newest = values.at(-1);
  $("value").hidden = !newest;
  $("line").classList.toggle("valued", Boolean(newest));
  if (newest) put("value", `The critic's value of the present action: ${state.time - newest.time < 2 ? newest.value.toFixed(2) : "–"}. 0: it expects no take-over; −1: one at once.`);
}

// ---- pictures

const sources = () => (!state ? [] : $("raw").checked || !state.settings.images ? state.streams : state.cameras.map((name) => `observation/${name}`));

function look() {
  connection.look(sources());
}

function showCameras() {
  const wanted = sources();
  if ($("cameras").dataset.sources !== wanted.join()) {
    $("cameras").dataset.sources = wanted.join();
    $("cameras").replaceChildren(...wanted.map((name) => {
      const figure = document.createElement("figure");
      figure.dataset.name = name;
      figure.append(document.createElement("canvas"), document.createElement("figcaption"));
      figure.firstChild.setAttribute("role", "img");
      figure.firstChild.setAttribute("aria-label", `camera ${name}`);
      figure.lastChild.textContent = name;
      return figure;
    }));
    look();
  }
  for (const figure of $("cameras").children) {
    const age = figure.shownAt ? (performance.now() - figure.shownAt) / 1000 + figure.age : Infinity;
    figure.classList.toggle("old", age > OLD);
    figure.lastChild.textContent = `${figure.dataset.name.split("/")[1]}  ${Number.isFinite(age) ? `${age.toFixed(1)} s` : "no picture"}`;
  }
}

function showPicture({ name, age, image }) {
  const figure = [...$("cameras").children].find((found) => found.dataset.name === name);
  if (!figure) return;
  const canvas = figure.firstChild;
  if (canvas.width !== image.width || canvas.height !== image.height) [canvas.width, canvas.height] = [image.width, image.height];
  canvas.style.aspectRatio = `${image.width} / ${image.height}`;
  canvas.getContext("2d").drawImage(image, 0, 0);
  image.close();
  figure.shownAt = performance.now();
  figure.age = age;
}

// ---- what is old

function freshness() {
  const old = performance.now() - stateAt > FORGET;
  const slow = connection.open && !(connection.roundTrip <= limits.max_age * 1000);
  put("link", connection.open ? milliseconds() : "no connection");
  $("link").classList.toggle("bad", !connection.open || slow || old);
  const unheard = state && operates() && state.settings.console === false;
  const text = !connection.open || old
    ? "No connection to the console: what is shown is old, and STOP does not reach the robot. Use the robot's own emergency stop."
    : unheard ? "This arbiter does not listen to the console (start it with console:=true): watch, arm and disarm only." : "";
  put("banner", text);
  $("banner").hidden = !text;
  if (old) document.body.dataset.state = "NONE";
}

setInterval(() => {
  freshness();
  if (!state || document.hidden) return;
  drawTimeLine($("line"), history, values, state.time + (performance.now() - stateAt) / 1000);
  drawCurves($("curve"), curves(history, $("metric").value), !$("metric").value);
}, 500);

let token = takeToken();
$("login").addEventListener("close", () => {
  token = $("token").value.trim();
  sessionStorage.setItem("token", token);
  open();
});
open();
