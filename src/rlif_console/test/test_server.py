# SPDX-License-Identifier: Apache-2.0
"""The web server as a stranger meets it, and as the page does."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import numpy as np
import pytest

from rlif_console.access import Access
from rlif_console.console_node import make_certificate
from rlif_console.hub import Hub
from rlif_console.inputs import DeadmanConfig
from rlif_console.pictures import Pictures
from rlif_console.server import CONNECTIONS, FILES, LONGEST, OPENED, PER_ADDRESS, Server
from rlif_console.status import RobotStatus

TOKEN, WATCH = "o" * 16, "w" * 16


class FakePort:
    def __init__(self) -> None:
        self.driven: list[bool] = []

    def drive(self, held, axes, gripper):
        self.driven.append(held)

    def command(self, name, value, done):
        done(True, "done")


class Site:
    """A running server and a client of it."""

    def __init__(
        self, server: Server, port: FakePort, pictures: Pictures, client: aiohttp.ClientSession
    ) -> None:
        self.server, self.port, self.pictures, self.client = server, port, pictures, client
        self.base = f"127.0.0.1:{server.port}"

    async def get(self, path: str, **headers: str) -> aiohttp.ClientResponse:
        return await self.client.get(f"http://{self.base}{path}", headers=headers)

    async def socket(self, path: str = "/ws", token: str = TOKEN, **headers: str) -> Any:
        socket = await self.client.ws_connect(
            f"http://{self.base}{path}", headers={"Origin": f"http://{self.base}"} | headers
        )
        await socket.send_json({"type": "hello", "token": token})
        return socket


def serve(
    test: Callable[[Site], Awaitable[None]],
    token: str = TOKEN,
    certificate: ssl.SSLContext | None = None,
) -> None:
    """Run `test` on a server with tokens, in an event loop of its own."""

    async def run() -> None:
        port, status, pictures = FakePort(), RobotStatus(), Pictures()
        hub = Hub({"/": (port, status)}, DeadmanConfig())
        access = Access(address="127.0.0.1", token=token, watch_token=WATCH if token else "")
        server = Server(hub, access, {"/": pictures})
        await server.start(0, certificate)
        try:
            async with aiohttp.ClientSession() as client:
                await test(Site(server, port, pictures, client))
        finally:
            await server.close()

    asyncio.run(asyncio.wait_for(run(), 60.0))


async def until(socket: Any, kind: str) -> dict[str, Any]:
    while True:
        message = await socket.receive_json(timeout=10.0)
        if message["type"] == kind:
            return message


def test_server_serves_the_page_under_a_strict_policy():
    async def test(site):
        response = await site.get("/")
        assert response.status == 200 and "RLIF console" in await response.text()
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"

    serve(test)


@pytest.mark.parametrize(
    "path", ["/console_node.py", "/../console_node.py", "/%2e%2e/hub.py", "//etc/passwd", "/page/", "/ws/x"]
)  # fmt: skip
def test_server_serves_no_other_file(path):
    async def test(site):
        assert (await site.get(path)).status == 404

    serve(test)


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}]
)  # fmt: skip
@pytest.mark.parametrize("path", ["/ws", "/pictures"])
def test_server_websocket_of_another_site_is_refused(path, headers):
    async def test(site):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await site.socket(path, **headers)
        assert refused.value.status == 403

    serve(test)


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x"])
@pytest.mark.parametrize("path", ["/ws", "/pictures"])
def test_server_wrong_token_is_closed_without_a_word(path, token):
    async def test(site):
        socket = await site.socket(path, token)
        message = await socket.receive(timeout=10.0)
        assert message.type is aiohttp.WSMsgType.CLOSE and message.data == 4401

    serve(test)


def test_server_token_decides_who_may_operate():
    async def test(site):
        for token, role in ((TOKEN, "operator"), (WATCH, "watcher")):
            assert (await until(await site.socket(token=token), "welcome"))["role"] == role

    serve(test)


@pytest.mark.parametrize(
    "text", ["no json", '{"type":"input"}' + " " * LONGEST, '{"type":"nonsense"}', "[1]"]
)
def test_server_malformed_message_closes_the_connection(text):
    async def test(site):
        socket = await site.socket()
        await until(socket, "welcome")
        await socket.send_str(text)
        while not socket.closed:
            await socket.receive(timeout=10.0)
        assert socket.close_code in (1008, 1009)

    serve(test)


def test_server_lost_connection_while_driving_releases():
    async def test(site):
        socket = await site.socket()
        await socket.send_json({"type": "lease", "action": "take"})
        beat = (await until(socket, "beat"))["number"]
        frame = {"type": "input", "seen": beat, "present": True, "axes": [1, 0, 0, 0, 0, 0]}
        await socket.send_json({**frame, "sequence": 1, "held": False})
        await socket.send_json({**frame, "sequence": 2, "held": True})
        while not any(site.port.driven):
            await asyncio.sleep(0.005)
        socket._response.connection.transport.abort()  # no close frame, as a process that was killed
        while site.port.driven[-1]:
            await asyncio.sleep(0.005)

    serve(test)


@pytest.mark.slow
def test_server_over_tls_is_driven_by_who_trusts_its_certificate_alone(tmp_path):
    certificate = make_certificate(tmp_path, ["127.0.0.1"])
    trusts = ssl.create_default_context(cafile=tmp_path / "certificate.pem")

    async def test(site):
        address, origin = f"wss://{site.base}/ws", {"Origin": f"https://{site.base}"}
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await site.client.ws_connect(address, headers=origin)
        socket = await site.client.ws_connect(address, headers=origin, ssl=trusts)
        await socket.send_json({"type": "hello", "token": TOKEN})
        await socket.send_json({"type": "lease", "action": "take"})
        beat = await until(socket, "beat")
        frame = {
            "type": "input",
            "seen": beat["number"],
            "present": True,
            "axes": [1.0] + [0.0] * 5,
        }
        await socket.send_json(frame | {"sequence": 1, "held": False})
        await socket.send_json(frame | {"sequence": 2, "held": True})
        while not (await until(socket, "beat"))["held"]:
            pass
        assert site.port.driven[-1] is True

    serve(test, certificate=certificate)


def test_server_picture_waits_for_the_page_and_old_ones_are_dropped():
    async def test(site):
        def picture(level: int) -> Callable[[], np.ndarray]:
            return lambda: np.full((8, 8, 3), level, np.uint8)

        socket = await site.socket("/pictures")
        for level in range(5):
            site.pictures.put("camera/wrist", picture(level), 0.0)
        await socket.send_json({"type": "look", "names": ["camera/wrist"]})
        first = await socket.receive_bytes(timeout=10.0)
        assert b"camera/wrist" in first and b"JFIF" in first
        assert int.from_bytes(first[6:10], "little") == 5, "only the newest"
        for level in range(5):
            site.pictures.put("camera/wrist", picture(level), 0.0)
        with pytest.raises(asyncio.TimeoutError):
            await socket.receive(timeout=0.3)  # not acknowledged
        await socket.send_json({"type": "ack"})
        assert int.from_bytes((await socket.receive_bytes(timeout=10.0))[6:10], "little") == 10

    serve(test)


def test_server_pictures_of_two_cameras_wait_until_both_are_acknowledged():
    async def test(site):
        names = ["camera/wrist", "camera/fixed", "camera/broken"]

        def put() -> None:
            for name in names[:2]:
                site.pictures.put(name, lambda: np.zeros((8, 8, 3), np.uint8), 0.0)
            site.pictures.put(names[2], lambda: [][0], 0.0)  # fewer images than cameras

        socket = await site.socket("/pictures")
        put()
        await socket.send_json({"type": "look", "names": names})
        for _ in range(2):
            await socket.receive_bytes(timeout=10.0)
        put()
        await socket.send_json({"type": "ack"})
        await socket.send_json({"type": "look", "names": names})
        with pytest.raises(asyncio.TimeoutError):
            await socket.receive(timeout=0.3)  # one of the two is in flight
        await socket.send_json({"type": "ack"})
        for _ in range(2):
            await socket.receive_bytes(timeout=10.0)

    serve(test)


def test_server_pictures_socket_that_floods_is_closed():
    async def test(site):
        socket = await site.socket("/pictures", WATCH)
        for _ in range(200):
            await socket.send_json({"type": "ack"})
        while not socket.closed:
            await socket.receive(timeout=10.0)
        assert socket.close_code == 1008

    serve(test)


def test_server_files_are_limited_in_rate():
    async def test(site):
        found = [(await site.get("/icon.svg")).status for _ in range(int(3 * FILES[1]))]
        assert found[0] == 200 and 429 in found

    serve(test)


def test_server_one_address_does_not_take_all_connections():
    assert CONNECTIONS > PER_ADDRESS and OPENED[1] > PER_ADDRESS

    async def test(site):
        sockets = [await site.socket() for _ in range(PER_ADDRESS)]
        await until(sockets[-1], "welcome")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await site.socket()
        assert refused.value.status == 503

    serve(test)


def test_server_watchers_leave_room_for_operators(monkeypatch):
    monkeypatch.setattr("rlif_console.server.CONNECTIONS", 6)
    monkeypatch.setattr("rlif_console.server.KEPT_FOR_OPERATORS", 2)

    async def test(site):
        sockets = [await site.socket(token=WATCH) for _ in range(4)]
        for socket in sockets:
            await until(socket, "welcome")
        fifth = await (await site.socket(token=WATCH)).receive(timeout=10.0)
        assert fifth.type is aiohttp.WSMsgType.CLOSE and fifth.data == 1013
        assert (await until(await site.socket(), "welcome"))["role"] == "operator"

    serve(test)


@pytest.mark.slow
def test_server_guesses_of_the_token_are_slowed():
    async def test(site):
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(6):
            socket = await site.socket(token="guess")
            await socket.receive(timeout=10.0)
        assert loop.time() - began > 2.0
        assert (await until(await site.socket(), "welcome"))["role"] == "operator"

    serve(test)
