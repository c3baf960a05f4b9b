# SPDX-License-Identifier: Apache-2.0
"""The console's web server: the page's own files and two WebSockets. No ROS.

    /ws        messages of rlif_console.hub; the first one is `hello` with the token
    /pictures  JPEGs; the page acknowledges each of them before it gets more, so none ever queues

Nothing else is served: the page's files are read once at start, and no path names a file.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from .access import SECURITY_HEADERS, Access, Bucket, Buckets, Role
from .hub import Hub, Page
from .inputs import MessageError, parse, text
from .pictures import Pictures

TICK = 0.02  # s
HELLO_TIMEOUT = 5.0  # s
PICTURE_PERIOD = 0.02  # s between two looks for a newer picture
LONGEST = 4096  # bytes of a message of a page
QUEUED = 200  # messages to a page that does not read; then it is dropped
CONNECTIONS = 64
KEPT_FOR_OPERATORS = 16  # of these: watchers do not get them
PER_ADDRESS = 24  # connections; a page has two
FILES = (40.0, 200.0)  # requests of files a second, and at once, from one address
UNASKED = (10.0, 30.0)  # messages of /pictures that acknowledge nothing likewise, from one page
FAILURES = (0.1, 5.0)  # wrong tokens a second, and at once, from one address
OPENED = (5.0, 40.0)  # connections likewise
MAX_LOOKS = 8  # pictures at once for one page
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


def page_files() -> dict[str, tuple[bytes, str]]:
    """The files of the page by path, with their content type."""
    folder = resources.files("rlif_console") / "page"
    found = {}
    for file in folder.iterdir():
        kind = TYPES.get(f".{file.name.rpartition('.')[2]}")
        if kind:
            found[f"/{file.name}"] = (file.read_bytes(), kind)
    found["/"] = found["/index.html"]
    return found


class Server:
    """Serves one hub until `close`; `start` and `close` belong into the event loop.

    Args:
        pictures: of each robot, by namespace.
        looked_at: called with robot and names whenever what is looked at there has changed.
    """

    def __init__(
        self,
        hub: Hub,
        access: Access,
        pictures: dict[str, Pictures],
        looked_at: Callable[[str, frozenset[str]], None] = lambda robot, names: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub, self._access, self._pictures, self._now = hub, access, pictures, now
        self._looked_at = looked_at
        self._looks: list[_Look] = []
        self._encoder = ThreadPoolExecutor(1, "encoder")
        self._failures, self._opened = Buckets(*FAILURES), Buckets(*OPENED)
        self._fetched = Buckets(*FILES)
        self._sockets: dict[web.WebSocketResponse, str] = {}  # address of each
        self._watchers: set[web.WebSocketResponse] = set()
        self._files = page_files()
        self._runner: web.AppRunner | None = None
        self._ticking: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self, port: int, certificate: ssl.SSLContext | None = None) -> None:
        """Listen. OSError: the port is taken."""
        app = web.Application(client_max_size=LONGEST)
        app.router.add_get("/ws", self._on_ws)
        app.router.add_get("/pictures", self._on_pictures)
        for path in self._files:
            app.router.add_get(path, self._on_file)
        app.on_response_prepare.append(_add_headers)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._access.address, port, ssl_context=certificate)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._ticking = asyncio.create_task(self._tick())

    async def close(self) -> None:
        """End all connections and stop listening."""
        if self._ticking:
            self._ticking.cancel()
        for socket in list(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the console ends")
        if self._runner:
            await self._runner.cleanup()
        self._encoder.shutdown(cancel_futures=True)

    async def _tick(self) -> None:
        while True:
            self._hub.tick(self._now())
            await asyncio.sleep(TICK)

    # ---- requests

    async def _on_file(self, request: web.Request) -> web.Response:
        self._require_host(request)
        if not self._fetched.take(request.remote or "", self._now()):
            raise web.HTTPTooManyRequests(text="too many requests from this address")
        body, kind = self._files[request.path]
        return web.Response(body=body, content_type=kind, charset="utf-8")

    def _require_host(self, request: web.Request) -> None:
        if not self._access.host_allowed(request.headers.get("Host", "")):
            raise web.HTTPForbidden(text="this console is not known by that name (parameter hosts)")

    async def _open(self, request: web.Request) -> web.WebSocketResponse:
        self._require_host(request)
        origin = request.headers.get("Origin")
        if not self._access.origin_allowed(origin, request.headers.get("Host", "")):
            raise web.HTTPForbidden(text="a WebSocket of another origin")
        if not self._opened.take(request.remote or "", self._now()):
            raise web.HTTPTooManyRequests(text="too many connections from this address")
        mine = sum(address == request.remote for address in self._sockets.values())
        if mine >= PER_ADDRESS or len(self._sockets) >= CONNECTIONS:
            raise web.HTTPServiceUnavailable(text="too many connections")
        socket = web.WebSocketResponse(max_msg_size=LONGEST, heartbeat=5.0, compress=False)
        await socket.prepare(request)
        self._sockets[socket] = request.remote or ""
        return socket

    def _forget(self, socket: web.WebSocketResponse) -> None:
        self._sockets.pop(socket, None)
        self._watchers.discard(socket)

    async def _hello(
        self, request: web.Request, socket: web.WebSocketResponse
    ) -> tuple[Role, dict[str, Any]] | None:
        """Role and content of the first message; None: the connection was closed."""
        address = request.remote or ""
        try:
            message = parse(await socket.receive_str(timeout=HELLO_TIMEOUT))
            token = text(message, "token", 200)
        except (MessageError, TypeError, asyncio.TimeoutError):
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"expected hello")
            return None
        role = self._access.role(token) if message["type"] == "hello" else None
        if role is None:
            # Only failures cost: who has the token is not locked out by somebody who guesses.
            if not self._failures.take(address, self._now()):
                await asyncio.sleep(2.0)
            await socket.close(code=4401, message=b"the token is wrong")
            return None
        if role < Role.OPERATOR:
            if len(self._watchers) >= CONNECTIONS - KEPT_FOR_OPERATORS:
                await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"too many watchers")
                return None
            self._watchers.add(socket)
        return role, message

    async def _on_ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = await self._open(request)
        page: Page | None = None
        writer: asyncio.Task[None] | None = None
        try:
            greeted = await self._hello(request, socket)
            if greeted is None:
                return socket
            role, hello = greeted
            outbox = _Outbox(socket)
            page = self._hub.open(
                role, text(hello, "name", 40), text(hello, "robot", 200), outbox.put, self._now()
            )
            writer = asyncio.create_task(outbox.write())
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    raise MessageError("expected text")
                self._hub.receive(page, parse(message.data), self._now())
                if outbox.full:
                    break
        except MessageError as problem:
            await socket.close(
                code=WSCloseCode.POLICY_VIOLATION, message=str(problem).encode()[:100]
            )
        finally:
            if page:
                self._hub.close(page, self._now())
            if writer:
                writer.cancel()
            self._forget(socket)
        return socket

    # ---- pictures

    async def _on_pictures(self, request: web.Request) -> web.WebSocketResponse:
        socket = await self._open(request)
        sender: asyncio.Task[None] | None = None
        look = _Look(Bucket(*UNASKED, 0.0, self._now()))
        try:
            greeted = await self._hello(request, socket)
            if greeted is None:
                return socket
            look.robot = text(greeted[1], "robot", 200) or next(iter(self._pictures))
            if look.robot not in self._pictures:
                raise MessageError("no such robot")
            self._looks.append(look)
            sender = asyncio.create_task(self._send_pictures(socket, look))
            async for received in socket:
                if received.type is not WSMsgType.TEXT:
                    raise MessageError("expected text")
                self._on_picture_message(look, parse(received.data))
        except MessageError as problem:
            await socket.close(
                code=WSCloseCode.POLICY_VIOLATION, message=str(problem).encode()[:100]
            )
        finally:
            if sender:
                sender.cancel()
            if look in self._looks:
                self._looks.remove(look)
                self._tell(look.robot)
            self._forget(socket)
        return socket

    def _on_picture_message(self, look: _Look, message: dict[str, Any]) -> None:
        if message["type"] == "ack" and look.in_flight:
            look.acknowledge()
        elif not look.unasked.take(self._now()):
            raise MessageError(f"more than {UNASKED[0]:.0f} messages a second")
        elif message["type"] == "look":
            look.shown = {name: look.shown.get(name, 0) for name in _names(message)}
            self._tell(look.robot)

    async def _send_pictures(self, socket: web.WebSocketResponse, look: _Look) -> None:
        """The newest pictures, each time after the page has acknowledged the last ones."""
        pictures, loop = self._pictures[look.robot], asyncio.get_running_loop()
        while not socket.closed:
            await look.all_shown.wait()
            # In a thread: input must not wait for the encoder.
            found = await loop.run_in_executor(
                self._encoder, pictures.newer, dict(look.shown), self._now()
            )
            if not found:
                await asyncio.sleep(PICTURE_PERIOD)
                continue
            look.sent(len(found))
            for name, number, packed in found:
                if name in look.shown:
                    look.shown[name] = number
                try:
                    await socket.send_bytes(packed)
                except (ConnectionError, RuntimeError):
                    return

    def _tell(self, robot: str) -> None:
        """Which pictures of a robot somebody looks at."""
        wanted = (name for look in self._looks if look.robot == robot for name in look.shown)
        self._looked_at(robot, frozenset(wanted))


@dataclass(eq=False)
class _Look:
    """What one page looks at: names of pictures, with the number of the last that it was sent.

    unasked: its messages that acknowledge nothing
    in_flight: pictures that were sent and not acknowledged; all_shown: there are none
    """

    unasked: Bucket
    robot: str = ""
    shown: dict[str, int] = field(default_factory=dict)
    in_flight: int = 0
    all_shown: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.all_shown.set()

    def sent(self, count: int) -> None:
        self.in_flight += count
        self.all_shown.clear()

    def acknowledge(self) -> None:
        self.in_flight -= 1
        if not self.in_flight:
            self.all_shown.set()


class _Outbox:
    """What waits to be sent to one page. A state replaces an older one; the rest keeps its order."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._latest: dict[str, dict[str, Any]] = {}
        self._ordered: list[dict[str, Any]] = []
        self._wake = asyncio.Event()
        self.full = False

    def put(self, message: dict[str, Any]) -> None:
        if message["type"] in ("state", "beat"):
            self._latest[message["type"]] = message
        elif len(self._ordered) < QUEUED:
            self._ordered.append(message)
        else:
            self.full = True
        self._wake.set()

    async def write(self) -> None:
        """Until cancelled or the connection ends."""
        while not self._socket.closed:
            await self._wake.wait()
            self._wake.clear()
            waiting = [*self._ordered, *self._latest.values()]
            self._ordered, self._latest = [], {}
            for message in waiting:
                try:
                    await self._socket.send_str(json.dumps(message, allow_nan=False))
                except (ConnectionError, RuntimeError):
                    return


def _names(message: dict[str, Any]) -> tuple[str, ...]:
    names = message.get("names")
    if not isinstance(names, list) or len(names) > MAX_LOOKS:
        raise MessageError(f"names: expected a list of at most {MAX_LOOKS}")
    return tuple(text({"names": name}, "names", 100) for name in names)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(SECURITY_HEADERS)
    response.headers["Server"] = "rlif_console"


def reachable_hosts(address: str, more: Iterable[str]) -> list[str]:
    """Names under which a browser reaches an address: for the lines that are printed."""
    if address in ("0.0.0.0", "::"):
        import socket

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))  # sends nothing: asks which of our addresses would
                found = probe.getsockname()[0]
            except OSError:
                found = "127.0.0.1"
        return [found, *more]
    return [address, *more]
