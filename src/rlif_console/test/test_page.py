# SPDX-License-Identifier: Apache-2.0
"""The page in a real Chromium: every control, every way of letting go, two people, a phone, accessibility."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from waiting import scaled, wait_until

from rlif_console.access import Access
from rlif_console.console_node import make_certificate
from rlif_console.hub import Hub
from rlif_console.inputs import DeadmanConfig
from rlif_console.pictures import Pictures
from rlif_console.server import Server
from rlif_console.status import RobotStatus

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: make test-browser"
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: make test-browser"),
]
# The machine that tests run on may stall for longer than the 0.15 s of a robot.
GAP, AGE = 1.0, 3.0


class FakePort:
    """A robot that remembers: `driven` (held, axes), `commands` (name, value)."""

    def __init__(self, status: RobotStatus) -> None:
        self.status = status
        self.driven: list[tuple[bool, tuple[float, ...]]] = []
        self.commands: list[tuple[str, Any]] = []
        self.answers = {"save": ["the disk is full"]}

    def drive(self, held, axes, gripper):
        self.driven.append((held, axes))
        self.gripper = gripper

    def command(self, name, value, done):
        self.commands.append((name, value))
        if name == "arm":
            self.status.on_control(1, "no episode is running", "", time.monotonic())
        elif name == "stop":
            self.status.on_control(
                4, "the stop button of console was pressed", "", time.monotonic()
            )
        texts = self.answers.get(name) or [f"{name} is done"]
        done(name != "save", texts.pop(0))

    @property
    def held(self) -> bool:
        return bool(self.driven) and self.driven[-1][0]


class Site:
    """A console without ROS, in a thread with an event loop of its own."""

    def __init__(
        self, token: str = "", watch_token: str = "", certificate: ssl.SSLContext | None = None
    ) -> None:
        self.scheme = "https" if certificate else "http"
        self.loop = asyncio.new_event_loop()
        self.status = RobotStatus(started=time.monotonic())
        self.port, self.pictures = FakePort(self.status), Pictures()
        config = DeadmanConfig(gap=GAP, max_age=AGE, absent=2.0)
        robots = {"/left": (self.port, self.status), "/right": (self.port, RobotStatus())}
        self.hub = Hub(robots, config, self.loop.call_soon_threadsafe)
        access = Access(address="127.0.0.1", token=token, watch_token=watch_token)
        self.server = Server(self.hub, access, {"/left": self.pictures, "/right": Pictures()})
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.run(self.server.start(0, certificate))
        self.status.on_control(0, "not armed yet", "", time.monotonic())
        self.status.settings |= {"axes": ["x", "y", "z"], "speed_scale": 1.0, "images": True}
        self.status.cameras = ("wrist",)

    def run(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(scaled(10.0))

    @property
    def address(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server.port}/"

    def close(self) -> None:
        if self._thread.is_alive():
            with contextlib.suppress(Exception):  # it may be closed already: a test of that
                self.run(self.server.close())
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    with sync_api.sync_playwright() as started:
        yield started


def launch(playwright: Any) -> Any:
    return playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def browser(playwright: Any) -> Iterator[Any]:
    started = launch(playwright)
    yield started
    started.close()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


@pytest.fixture
def visit(browser: Any, site: Site) -> Iterator[Callable[..., Any]]:
    """`visit(address="", **context)`: a page of its own context that is connected; no error is logged in it."""
    contexts, errors = [], []

    def open_page(address: str = "", wait: str = "#link:has-text('ms')", **options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.goto(address or site.address)
        page.wait_for_selector(wait, timeout=scaled(20_000))
        return page

    yield open_page
    for context in contexts:
        context.close()
    # A lost connection is logged by the browser itself; a breach of the policy or of a script is not.
    assert not [e for e in errors if "WebSocket" not in e and "ERR_" not in e]


def until(page: Any, condition: Callable[[], Any], what: str, deadline: float = 10.0) -> None:
    """Wait while the browser goes on."""
    wait_until(condition, what, deadline, lambda: page.wait_for_timeout(20))


def operate(page: Any) -> Any:
    page.click("#lease")
    page.wait_for_selector("#drive:has-text('Hold a key')", timeout=scaled(10_000))
    return page


def hold(page: Any, site: Site, key: str = "KeyW") -> None:
    hold_by(page, site, lambda: page.keyboard.down(key), lambda: page.keyboard.up(key))


def hold_by(page: Any, site: Site, press: Callable[[], None], let_go: Callable[[], None]) -> None:
    """Press, and again where a stall of the machine has released in between, as a person does."""
    pressed = 0.0

    def driven() -> bool:
        nonlocal pressed
        if not site.port.held and time.monotonic() - pressed > 1.0:
            if pressed:
                let_go()
                page.wait_for_timeout(150)
            press()
            pressed = time.monotonic()
        return site.port.held

    until(page, driven, "the arm to be driven")


def is_released(page: Any, site: Site) -> None:
    until(page, lambda: not site.port.held, "a release")
    assert site.port.driven[-1][1] == (0.0,) * 6


# ---- driving


@pytest.mark.parametrize(
    ("key", "axis", "way"),
    [
        ("KeyW", 0, 1),
        ("KeyS", 0, -1),
        ("KeyA", 1, 1),
        ("KeyD", 1, -1),
        ("KeyE", 2, 1),
        ("ArrowUp", 0, 1),
    ],
)
def test_key_drives_its_axis_while_it_is_held(visit, site, key, axis, way):
    page = operate(visit())
    hold(page, site, key)
    axes = site.port.driven[-1][1]
    assert axes[axis] == pytest.approx(0.6 * way) and sum(map(abs, axes)) == pytest.approx(0.6)
    page.keyboard.up(key)
    is_released(page, site)


def test_page_over_tls_drives_with_a_certificate_that_was_made_here(visit, tmp_path):
    site = Site(certificate=make_certificate(tmp_path, []))
    try:
        page = operate(visit(site.address, ignore_https_errors=True))
        hold(page, site)
        page.keyboard.up("KeyW")
        is_released(page, site)
    finally:
        site.close()


@pytest.mark.parametrize(
    ("button", "gripper"), [("#open", 1), ("#close", -1)], ids=["open", "close"]
)
def test_gripper_button_moves_it_while_it_is_pressed(visit, site, button, gripper):
    site.status.settings["axes"] = ["x", "y", "z", "gripper"]
    page = operate(visit())
    page.hover(button)
    hold_by(page, site, page.mouse.down, page.mouse.up)
    assert site.port.gripper == gripper
    page.mouse.up()
    is_released(page, site)


@pytest.mark.parametrize(("pad", "axis"), [("#pad-z", 2), ("#pad-yaw", 5)])
def test_pad_drives_its_axis_while_the_mouse_holds_it(visit, site, pad, axis):
    site.status.settings["axes"] = ["x", "y", "z", "yaw"]
    page = operate(visit())
    page.hover(pad, position={"x": 20, "y": 20})  # which is up
    hold_by(page, site, page.mouse.down, page.mouse.up)
    assert site.port.driven[-1][1][axis] > 0.3
    page.mouse.up()
    is_released(page, site)


def test_key_held_is_sent_thirty_times_a_second(visit, site):
    page = operate(visit())
    hold(page, site)
    began, count = time.monotonic(), len(site.port.driven)
    page.wait_for_timeout(1000)
    rate = (len(site.port.driven) - count) / (time.monotonic() - began)
    assert rate > 30.0 / scaled(1.0)
    page.keyboard.up("KeyW")


def test_touch_joystick_drives_while_a_finger_is_on_it(visit, site):
    page = operate(visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True))
    page.locator("#pad-xy").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('#pad-xy').scrollIntoView({block: 'center'})")
    box = page.locator("#pad-xy").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *points: dict[str, float]) -> None:
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": list(points)})

    def press() -> None:
        touch("touchStart", {"x": x, "y": y})
        touch("touchMove", {"x": x, "y": y - 200})

    hold_by(page, site, press, lambda: touch("touchEnd"))
    until(page, lambda: site.port.driven[-1][1][0] > 0.5, "forward")
    touch("touchEnd")
    is_released(page, site)


def test_pad_is_not_taken_over_by_a_pointer_that_hovers(visit, site):
    page = operate(visit())
    page.evaluate("document.querySelector('#pad-xy').scrollIntoView({block: 'center'})")

    def point(kind: str, number: int, right: int) -> None:
        page.evaluate(
            """([kind, id, right]) => {
                const pad = document.querySelector("#pad-xy"), box = pad.getBoundingClientRect();
                pad.setPointerCapture = () => {}; // there is no such pointer
                const at = {clientX: box.left + box.width / 2 + right, clientY: box.top + box.height / 2};
                pad.dispatchEvent(new PointerEvent(kind, {pointerId: id, ...at}));
            }""",
            [kind, number, right],
        )

    hold_by(page, site, lambda: point("pointerdown", 11, 200), lambda: point("pointerup", 11, 200))
    assert site.port.driven[-1][1][1] < -0.5, "to the right"
    point("pointermove", 12, -200)
    point("pointerup", 11, 200)
    is_released(page, site)
    assert not any(axes[1] > 0 for _, axes in site.port.driven), "the one that hovers"


GAMEPAD = """
window.pad = {connected: true, mapping: "standard", id: "test pad", axes: [0, 0, 0, 0],
              buttons: Array.from({length: 17}, () => ({pressed: false, value: 0}))};
navigator.getGamepads = () => [window.pad];
"""


def test_gamepad_drives_while_its_deadman_is_held_and_not_when_it_is_unplugged(visit, site):
    page = visit()
    page.evaluate(GAMEPAD)
    operate(page)
    page.evaluate("pad.axes[1] = -1")
    page.wait_for_timeout(200)
    assert not site.port.held, "without the deadman"
    page.evaluate("pad.buttons[5].pressed = true")
    until(page, lambda: site.port.held and site.port.driven[-1][1][0] > 0.5, "forward")
    page.evaluate("pad.connected = false")
    is_released(page, site)


def test_gamepad_of_a_window_without_focus_stops_and_commands_nothing_else(visit, site):
    page = visit()
    page.evaluate(GAMEPAD)
    operate(page)
    page.wait_for_timeout(200)  # until the page has seen the buttons up
    page.evaluate("document.hasFocus = () => false; pad.buttons[9].pressed = true")
    page.wait_for_timeout(200)
    page.evaluate("delete document.hasFocus")
    page.wait_for_timeout(200)
    page.evaluate("document.hasFocus = () => false; pad.buttons[8].pressed = true")
    until(page, lambda: site.port.commands, "a stop")
    assert site.port.commands == [("stop", None)]


# ---- every way of letting go


@pytest.mark.parametrize(
    "event",
    [
        "window.dispatchEvent(new Event('blur'))",
        "window.dispatchEvent(new Event('pagehide'))",
        "document.dispatchEvent(new Event('freeze'))",
        "Object.defineProperty(document, 'hidden', {get: () => true}); document.dispatchEvent(new Event('visibilitychange'))",
    ],
    ids=["blur", "pagehide", "freeze", "hidden"],
)
def test_page_out_of_sight_releases_before_the_gap(visit, site, event):
    page = operate(visit())
    hold(page, site)
    page.evaluate(event)
    is_released(page, site)
    assert site.hub.robots["/left"].deadman.reason in ("", "the page is hidden"), "not by silence"
    page.wait_for_timeout(300)
    assert not site.port.held, "the key is still down"


@pytest.mark.parametrize(
    ("key", "event"),
    [
        ("KeyW", "keydown', {code: 'MetaLeft', key: 'Meta', metaKey: true}"),
        ("KeyW", "keyup', {code: 'MetaLeft', key: 'Meta'}"),
        ("ShiftLeft", "keyup', {code: 'ShiftRight', key: 'Shift'}"),
    ],
    ids=["Cmd down", "Cmd up", "Shift up"],
)
def test_key_whose_keyup_the_system_keeps_back_releases(visit, site, key, event):
    page = operate(visit())
    hold(page, site, key)
    page.evaluate(f"window.dispatchEvent(new KeyboardEvent('{event}))")
    is_released(page, site)
    assert site.hub.robots["/left"].deadman.reason == "", "the page let go, not the console"
    repeat = f"{{code: '{key}', shiftKey: {str(key != 'KeyW').lower()}, repeat: true}}"
    page.evaluate(f"window.dispatchEvent(new KeyboardEvent('keydown', {repeat}))")
    page.wait_for_timeout(300)
    assert not site.port.held, "the key is still down"
    page.keyboard.up(key)


def test_hidden_page_is_no_operator_for_the_arbiter(visit, site):
    page = operate(visit())
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {get: () => true}); document.dispatchEvent(new Event('visibilitychange'))"
    )
    until(page, lambda: not site.hub.robots["/left"].deadman.present(time.monotonic()), "absence")


def test_stalled_page_releases_after_the_gap(visit, site):
    page = operate(visit())
    hold(page, site)
    page.evaluate(
        "(() => { const end = performance.now() + 2500; while (performance.now() < end); })()"
    )
    assert not site.port.held
    page.wait_for_timeout(200)
    assert "Released" in page.inner_text("#drive") and not site.port.held
    page.keyboard.up("KeyW")
    page.wait_for_timeout(100)
    hold(page, site)
    page.keyboard.up("KeyW")


@pytest.mark.parametrize("way", ["reload", "close", "leave"])
def test_page_that_goes_releases(visit, site, way):
    page = operate(visit())
    hold(page, site)
    {"reload": page.reload, "close": page.close, "leave": lambda: page.goto("about:blank")}[way]()
    wait_until(lambda: not site.port.held, "a release")
    wait_until(lambda: site.hub.robots["/left"].lease.holder is None, "a free lease")


def test_browser_that_is_killed_releases(playwright, site):
    browser = launch(playwright)
    page = browser.new_page()
    page.goto(site.address)
    operate(page)
    hold(page, site)
    session = browser.new_browser_cdp_session()
    info = session.send("SystemInfo.getProcessInfo")["processInfo"]
    os.kill(next(p["id"] for p in info if p["type"] == "browser"), signal.SIGKILL)
    wait_until(lambda: not site.port.held, "a release")
    with contextlib.suppress(Exception):
        browser.close()


class Proxy:
    """Passes one port to another until `stalled`; then everything waits in it, nothing is closed."""

    def __init__(self, target: int) -> None:
        self.stalled = threading.Event()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                for a, b in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                while self.stalled.is_set():
                    time.sleep(0.01)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.stalled.clear()
        self._listener.close()


def test_stalled_network_releases_and_what_it_kept_back_does_not_drive(visit, site):
    proxy = Proxy(site.server.port)
    page = operate(visit(f"http://127.0.0.1:{proxy.port}/"))
    hold(page, site)
    proxy.stalled.set()
    is_released(page, site)
    count = len(site.port.driven)
    page.wait_for_timeout(AGE * 1000 + 500)
    assert "too slow to drive" in page.inner_text("#drive")
    proxy.stalled.clear()
    page.wait_for_timeout(500)
    assert not any(held for held, _ in site.port.driven[count:])
    page.keyboard.up("KeyW")
    proxy.close()


def test_console_that_ends_is_told_at_once_and_lets_go(visit, site):
    page = operate(visit())
    hold(page, site)
    site.run(site.server.close())
    assert not site.port.held
    page.wait_for_selector(
        "#banner:has-text('STOP does not reach the robot')", timeout=scaled(10_000)
    )
    page.keyboard.press("Space")
    page.wait_for_selector("#answer:has-text('NOT SENT')")


# ---- commands and displays


def test_stop_by_button_by_space_bar_and_by_touch(visit, site):
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True)
    for press in (
        lambda: page.click("#stop"),
        lambda: page.keyboard.press("Space"),
        lambda: page.tap("#stop"),
    ):
        site.port.commands.clear()
        press()
        until(page, lambda: site.port.commands, "a stop")
        page.wait_for_timeout(100)
        assert site.port.commands == [("stop", None)], "once"
    page.wait_for_selector("body[data-state=FAULT]")
    assert "FAULT" in page.inner_text("#state")


def test_space_bar_in_a_note_is_a_space(visit, site):
    page = operate(visit())
    page.click("#note")
    page.keyboard.type("slips at the edge")
    page.keyboard.press("Enter")
    until(page, lambda: site.port.commands, "the note")
    assert site.port.commands == [("note", "slips at the edge")] and not site.port.held


@pytest.mark.parametrize(
    "name", ["arm", "disarm", "start", "success", "failure", "discard", "check"]
)
def test_button_sends_its_command_and_shows_the_answer(visit, site, name):
    page = operate(visit())
    page.click(f"[data-command={name}]")
    page.wait_for_selector(f"#answer.shown:has-text('{name} is done')")
    assert site.port.commands == [(name, None)]


def test_refused_command_is_shown_as_such(visit, site):
    page = operate(visit())
    page.click("[data-command=save]")
    page.wait_for_selector("#answer.no:has-text('the disk is full')")


def test_settings_send_their_value(visit, site):
    page = operate(visit())
    page.fill("#speed", "30")
    page.check("#evaluation")
    site.status.settings["checkpoints"] = ["000003"]
    page.wait_for_selector("#checkpoint option[value='000003']", state="attached")
    page.select_option("#checkpoint", "000003")
    until(page, lambda: len(site.port.commands) == 3, "all")
    wanted = [("speed", 0.3), ("evaluation", True), ("checkpoint", "000003")]
    assert site.port.commands == wanted


def test_state_episode_learner_problems_and_take_overs_are_shown(visit, site):
    page = visit()
    counts = {"max_steps": 60, "steps": 40, "interventions": 1, "operator_steps": 10}
    status, now = site.status, time.monotonic()

    def feed() -> None:
        status.on_control(3, "taken over with console", "console", now)
        status.on_episode(
            {
                "id": 7,
                "phase": 3,
                "outcome": 1,
                "reason": "detector",
                "evaluation": False,
                **counts,
            },
            now,
        )
        status.on_decision(1, 16, [0.0], "", now)
        status.on_take_over(3, 17, now)
        status.on_value(-0.4, now)
        status.on_confidence(0.62, 0.9, True, time.monotonic())
        status.settings |= {
            "bag_directory": "runs/1/bag",
            "free_gb": 12.5,
            "run_directory": "runs/1",
        }
        status.checks = [
            {"check": "observation", "verdict": "pass", "found": "10 Hz", "advice": ""}
        ]
        learner = {"steps": 500, "updates": 1234, "critic_steps_per_s": 80.0, "updates_per_step": 1.5,
                   "caught_up": False, "backlog": 7, "lost_steps": 0, "policy_version": 4, "message": ""}  # fmt: skip
        status.on_learner(learner, {"critic_loss": 0.5}, now)
        status.on_diagnostic("observer: camera/wrist/image", 2, "<b>nothing</b> received", now)
        status.on_pose("ee_pose", [0.4, 0.0, 0.2])
        status.guide = "Put the peg into the hole"

    site.loop.call_soon_threadsafe(feed)
    page.wait_for_selector("body[data-state=OPERATOR]")
    page.wait_for_selector(
        "#problems:has-text('<b>nothing</b> received')"
    )  # as text, not as markup
    shown = page.inner_text("main")
    for text in ("OPERATOR", "taken over with console", "Episode 7", "1,234", "100 %", "1 ✓",
                 "label −1 on step 16", "present action: -0.40", "detector: 0.620, threshold 0.900; disabled", "7 due", "runs/1/bag, 12.5 GB free",
                 "runs/1/checkpoints", "observation: 10 Hz", "direction x: not pushed yet", "Put the peg into the hole", "cable and the driver of the camera"):  # fmt: skip
        assert text in shown, text
    assert "critic_loss" in page.inner_text("#metric")
    for canvas in ("#line", "#scene", "#curve"):
        drawn = (
            f"(() => {{ const c = document.querySelector('{canvas}'); return c.getContext('2d')."
        )
        drawn += "getImageData(0, 0, c.width, c.height).data.some((value) => value) })()"
        until(page, lambda script=drawn: page.evaluate(script), f"a picture in {canvas}")


def test_picture_of_the_observation_is_drawn_with_its_age(visit, site):
    page = visit()

    def feed() -> None:
        site.pictures.put(
            "observation/wrist",
            lambda: np.full((48, 64, 3), (200, 0, 0), np.uint8),
            time.monotonic(),
        )

    site.loop.call_soon_threadsafe(feed)
    page.wait_for_selector("figcaption >> text=/[0-9] s/")
    colour = page.evaluate(
        "[...document.querySelector('figure canvas').getContext('2d').getImageData(9, 9, 1, 1).data]"
    )
    assert colour[0] > 180 and colour[1] < 30
    page.wait_for_selector("figure.old")


def test_raw_streams_are_shown_by_choice(visit, site):
    site.status.streams = ("camera/wrist", "camera/fixed")
    page = visit()
    assert page.locator("figure").count() == 1
    page.check("#raw")
    page.wait_for_selector("figure[data-name='camera/fixed']")


def test_check_is_repeated_until_nothing_is_to_mend_or_somebody_arms(visit, site):
    site.port.answers["check"] = ["2 to mend", "1 to mend", "all is well"]
    page = operate(visit())
    page.click("[data-command=check]")
    until(page, lambda: len(site.port.commands) == 3, "three checks", 20.0)
    page.wait_for_selector("#answer:has-text('all is well')")
    site.port.answers["check"] = ["1 to mend"]
    page.click("[data-command=check]")
    page.click("#arm")
    page.wait_for_timeout(4000)
    assert [name for name, _ in site.port.commands[3:]] == ["check", "arm"]


# ---- people


def test_two_pages_hand_the_controls_over(visit, site):
    first, second = operate(visit()), visit()
    assert second.is_disabled("#arm")
    second.click("#lease")
    first.click("#asking button")
    second.wait_for_selector("#drive:has-text('Hold a key')", timeout=scaled(10_000))
    assert first.is_disabled("#arm") and not second.is_disabled("#arm")
    assert not first.inner_text("#answer"), "nothing was refused"
    hold(second, site)
    second.keyboard.up("KeyW")
    is_released(second, site)
    site.port.driven.clear()
    first.keyboard.down("KeyW")
    first.wait_for_timeout(300)
    assert not any(held for held, _ in site.port.driven)


def test_robot_is_chosen_on_the_page(visit):
    page = visit()
    page.select_option("#robot", "/right")
    page.wait_for_selector("#state:has-text('no arbiter')")


@pytest.mark.parametrize(("token", "may"), [("o" * 16, True), ("w" * 16, False)])
def test_token_behind_the_address_opens_the_page_and_leaves_it(browser, token, may):
    site = Site("o" * 16, "w" * 16)
    page = browser.new_page()
    try:
        page.goto(site.address)
        page.wait_for_selector("#login[open]")
        page.goto(f"{site.address}#{token}")
        page.reload()
        page.wait_for_selector("#state:has-text('DISARMED')", timeout=scaled(10_000))
        assert (
            token not in page.url and page.is_enabled("#lease") == may and page.is_enabled("#stop")
        )
    finally:
        page.close()
        site.close()


# ---- sizes and accessibility

SIZES = {
    "desktop": {"viewport": {"width": 1400, "height": 900}},
    "tablet": {"viewport": {"width": 820, "height": 1180}, "has_touch": True},
    "phone": {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True},
    "dark": {"viewport": {"width": 1400, "height": 900}, "color_scheme": "dark"},
}


@pytest.mark.parametrize("size", SIZES)
def test_page_fits_and_stop_is_always_there(visit, site, size):
    page = operate(visit(**SIZES[size]))
    width, height = SIZES[size]["viewport"].values()
    for scroll in (0, 100_000):
        page.evaluate(f"window.scrollTo(0, {scroll})")
        box = page.locator("#stop").bounding_box()
        assert box["height"] >= 60 and box["y"] + box["height"] <= height and box["x"] >= 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("size", SIZES)
def test_page_has_no_accessibility_violations(visit, site, size):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="make test-browser")
    page = operate(visit(**SIZES[size]))
    site.loop.call_soon_threadsafe(
        lambda: site.status.on_diagnostic("arbiter: control", 1, "HOLD", time.monotonic())
    )
    page.wait_for_timeout(600)  # until colours have changed
    found = axe.Axe().run(page).response["violations"]
    assert not [(v["id"], [n["target"] for n in v["nodes"]]) for v in found]
