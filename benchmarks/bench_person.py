# SPDX-License-Identifier: Apache-2.0
"""How long `make demo OPERATOR=me` takes: a scripted person at the console's page.

    python benchmarks/bench_person.py                     # a whole run, about ten minutes
    python benchmarks/bench_person.py --vision            # of `make demo-vision OPERATOR=me`
    python benchmarks/bench_person.py --pictures docs/pictures   # writes console.png and console.webp too

The person is a headless Chromium that looks, presses keys for as long as the way seems to need, and looks
again. It sees what the page gets, a reaction time late, and errs about where the hole is.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from rlif_bringup.operators import GUIDES, TITLES

RESULTS = Path(__file__).with_name("results") / "person.json"
REACTION = 0.3  # s from what the page gets to what the person does
ERROR = 0.0015  # m, standard deviation of where the person takes the hole to be
COARSE, FINE = 0.06, 0.018  # m/s of a key, and with Shift
ALIGNED = 0.0025  # m off the axis at which the person goes down
DOUBT = 1.5  # s without progress of the policy until the person takes over
TAKE_OVERS = 3  # of an episode, after which the person finishes it
KEYS = (("KeyW", "KeyS"), ("KeyA", "KeyD"), ("KeyE", "KeyQ"))  # + and - of x y z
DESKTOP, FILM = {"width": 1280, "height": 960}, (900, 675)
FILMED = {"Demonstrations": (2,), "Corrections": (3, 12), "The policy alone": (2,)}  # episodes
FRAME, SPEED, LONGEST = 0.33, 2.0, 8.0  # s between frames; of the film; s of each episode


class Person:
    """Looks, presses, looks again, until the page says that all is done."""

    def __init__(self, page: Page, seed: int) -> None:
        self._page, self._rng = page, np.random.default_rng(seed)
        self._states: list[tuple[float, dict[str, Any]]] = []
        self._asked = -math.inf
        self._keeps = False  # the controls while it looks
        self._episode = self._taken = 0
        self._error, self._low = np.zeros(2), math.inf
        self._best, self._best_at = math.inf, 0.0
        page.on("websocket", lambda socket: socket.on("framereceived", self._on_frame))

    def _on_frame(self, payload: str | bytes) -> None:
        if isinstance(payload, str) and payload.startswith('{"type": "state"'):
            self._states = [*self._states[-50:], (time.monotonic(), json.loads(payload))]

    def wait(self, seconds: float) -> None:
        self._page.wait_for_timeout(1e3 * seconds)

    @property
    def state(self) -> dict[str, Any]:
        """What the person has noticed by now."""
        limit = time.monotonic() - REACTION
        return next((s for at, s in reversed(self._states) if at <= limit), {})

    def turn(self) -> None:
        """One look, and what follows of it."""
        state = self.state
        control = (state.get("control") or {}).get("state")
        if not state.get("guide") or control in ("DISARMED", "FAULT"):
            self._begin(state)
        elif (state["episode"] or {}).get("phase") == "running" and state["poses"]:
            if state["episode"]["id"] != self._episode:
                self._episode, self._taken, self._low = state["episode"]["id"], 0, math.inf
                self._best, self._best_at = math.inf, time.monotonic()
                self._look_again()
            if GUIDES["always"] in state["guide"]:
                self._drive()
            elif GUIDES["intervene"] in state["guide"] and self._doubts():
                self._taken += 1
                self._correct()
        self.wait(0.05)

    def _begin(self, state: dict[str, Any]) -> None:
        if state and time.monotonic() - self._asked > 3.0:
            self._asked = time.monotonic()
            self._page.click("#arm" if state["lease"]["holder"] else "#lease")

    def _look_again(self) -> None:
        self._error = self._rng.normal(0.0, ERROR, 2)

    def _way(self) -> np.ndarray:
        """[3] from the peg's tip to the hole, as the person sees it."""
        poses = self.state["poses"]
        way = np.subtract(poses["object_pose"], poses["ee_pose"])
        way[:2] += self._error
        return way

    def _doubts(self) -> bool:
        """Whether the policy goes away from the hole, or has made no progress for too long."""
        distance = float(np.linalg.norm(self._way() - [0.0, 0.0, 0.02]))
        if distance < self._best - 0.003:
            self._best, self._best_at = distance, time.monotonic()
        return distance > self._best + 0.01 or time.monotonic() - self._best_at > DOUBT

    def _correct(self) -> None:
        """Drive above the hole, or all the way where the policy cannot, and let go."""
        episode = self._episode
        while (self.state["episode"] or {}).get("id") == episode and self._runs():
            self._keeps = True
            self._drive()
            if self._taken < TAKE_OVERS and np.abs(self._way()[:2]).max() < ALIGNED:
                break
        self._keeps = False
        self._page.keyboard.up("ShiftLeft")
        self._best, self._best_at = math.inf, time.monotonic()

    def _runs(self) -> bool:
        return bool(self.state["episode"]["phase"] == "running")

    def _drive(self) -> None:
        """One press of a key, and a look at what came of it."""
        way = self._way()
        off = np.abs(way[:2])
        axis = int(off.argmax())
        if off[axis] > ALIGNED:
            if way[2] > -0.003:  # beside the hole and not above the board
                self._press(2, 1.0, 0.01, COARSE)
            coarse = off[axis] > 0.012
            self._press(
                axis, way[axis], off[axis] * (0.85 if coarse else 1.0), COARSE if coarse else FINE
            )
        else:
            self._press(2, -1.0, max(0.03, -way[2]), COARSE)
            height = -self._way()[2]
            if abs(height - self._low) < 0.002 and height > -0.01:  # it stands on the board
                self._press(2, 1.0, 0.008, COARSE)
                self._look_again()
            self._low = height

    def _press(self, axis: int, way: float, distance: float, speed: float) -> None:
        key = KEYS[axis][0 if way > 0 else 1]
        seconds = min(1.2, max(0.08, distance / speed * self._rng.normal(1.0, 0.15)))
        if speed == FINE:
            self._page.keyboard.down("ShiftLeft")
        self._page.keyboard.down(key)
        if speed != FINE:
            self._page.keyboard.up("ShiftLeft")
        self.wait(seconds)
        if "Let go" in self._page.inner_text("#drive"):  # released by a stall of the machine
            self._keeps = False
        if self._keeps:
            self._page.keyboard.down("ShiftLeft")  # the arm stands while the person looks
        self._page.keyboard.up(key)
        if not self._keeps:
            self._page.keyboard.up("ShiftLeft")
        self.wait(REACTION + 0.05)


class Film:
    """Frames of the page while chosen episodes run, and a picture of one of them."""

    def __init__(self, page: Page, folder: Path) -> None:
        self._page, self._folder = page, folder
        self._session = page.context.new_cdp_session(page)
        self._session.on("Page.screencastFrame", self._on_frame)
        self._frames: list[Image.Image] = []
        self._runs, self._began, self._last = False, 0.0, 0.0
        self._taken: set[object] = set()

    def _on_frame(self, event: dict[str, Any]) -> None:
        self._session.send("Page.screencastFrameAck", {"sessionId": event["sessionId"]})
        if time.monotonic() - self._last >= FRAME:
            self._last = time.monotonic()
            self._frames.append(Image.open(io.BytesIO(base64.b64decode(event["data"]))))

    def follow(self, phase: str, episode: int, state: dict[str, Any]) -> None:
        """Begin and end to film."""
        wanted = episode in FILMED.get(phase, ()) and state["episode"]["phase"] == "running"
        if self._runs and not (wanted and time.monotonic() - self._began < LONGEST):
            self._session.send("Page.stopScreencast")
            self._runs = False
        elif wanted and not self._runs and (phase, episode) not in self._taken:
            self._taken.add((phase, episode))
            size = {"maxWidth": DESKTOP["width"], "maxHeight": DESKTOP["height"]}
            self._session.send("Page.startScreencast", {"format": "jpeg", "quality": 90, **size})
            self._runs, self._began = True, time.monotonic()
        drives = (state["control"] or {}).get("state") == "OPERATOR"
        if phase == "Corrections" and drives and episode not in self._taken:  # the last one stays
            self._taken.add(episode)
            self._page.screenshot(path=self._folder / "console.png")

    def end(self) -> None:
        """The last frame, with the result, stays for two seconds."""
        self._page.wait_for_timeout(1000)
        self._frames.append(Image.open(io.BytesIO(self._page.screenshot())))

    def write(self) -> None:
        first, *rest = (
            f.convert("RGB").resize(FILM, Image.Resampling.LANCZOS) for f in self._frames
        )
        times = [round(1e3 * FRAME / SPEED)] * len(rest) + [2000]
        first.save(self._folder / "console.webp", save_all=True, append_images=rest, duration=times,
                   loop=0, quality=40, method=2)  # fmt: skip


def play(page: Page, address: str, film: Film | None) -> dict[str, float]:
    """The whole demo; seconds of each phase, and of what comes before the first."""
    person = Person(page, 0)
    page.goto(address)
    took: dict[str, float] = {}
    phase, began = "start", time.monotonic()
    while not person.state.get("guide", "").startswith("Done."):
        person.turn()
        state = person.state
        guide = state.get("guide", "")
        now = next((title for title in TITLES.values() if guide.startswith(title)), phase)
        if now != phase:
            took[phase] = round(time.monotonic() - began, 1)
            phase, began = now, time.monotonic()
        number = re.search(r"Episode (\d+)", guide)
        if film and number and state["episode"]:
            film.follow(phase, int(number[1]), state)
    took[phase] = round(time.monotonic() - began, 1)
    if film:
        film.end()
    return took


def measure(options: list[str], folder: Path | None) -> dict[str, Any]:
    """A run of the demo in a process of its own, and what came of it."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("chromium is not installed: make test-browser")
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        command = ["rlif", "demo", "--operator", "me", "--run-directory", str(run), *options]
        began = time.monotonic()
        demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                env={**os.environ, "BROWSER": "true"})  # fmt: skip
        try:
            assert demo.stdout is not None
            lines = iter(demo.stdout.readline, "")
            address = next(line for line in lines if "you operate: " in line).split()[-1]
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=chromium, args=["--no-sandbox"]
                )
                page = browser.new_page(viewport=DESKTOP)
                film = Film(page, folder) if folder else None
                took = play(page, address, film)
                browser.close()
            minutes = (time.monotonic() - began) / 60.0
        finally:
            demo.send_signal(signal.SIGINT)
            output = demo.communicate(timeout=120)[0]
        print(output[-2500:])
        if film:
            film.write()
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return {
        "minutes": round(minutes, 1),
        "seconds": took,
        "policy_success": summary["policy_success"],
        "person_success": summary["expert_success"],
        "env_steps": summary["env_steps"],
        "interventions": summary["interventions"],
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Let a scripted person do the demo.")
    parser.add_argument("--vision", action="store_true", help="the hole in the pictures alone")
    parser.add_argument("--pictures", type=Path, help="folder for console.png and console.webp")
    parser.add_argument("options", nargs="*", help="of rlif demo, after --")
    arguments = parser.parse_args()
    options = [*(["--images"] if arguments.vision else []), *arguments.options]
    found = measure(options, arguments.pictures)
    print(json.dumps(found, indent=2))
    if not arguments.options:
        results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        results["demo_vision" if arguments.vision else "demo"] = found
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return int(found["minutes"] > 12.0)


if __name__ == "__main__":
    sys.exit(main())
