# SPDX-License-Identifier: Apache-2.0
"""Tokens, hosts, origins, rates."""

from __future__ import annotations

import pytest

from rlif_console.access import Access, Bucket, Buckets, Role, addresses_text

TOKEN, WATCH = "o" * 16, "w" * 16


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.2", "robot.lab"])
def test_access_beyond_this_machine_without_a_token_is_refused(address):
    with pytest.raises(ValueError, match="token"):
        Access(address=address)


def test_access_short_token_is_refused():
    with pytest.raises(ValueError, match="characters"):
        Access(address="0.0.0.0", token="short")


@pytest.mark.parametrize(
    ("token", "role"), [(TOKEN, Role.OPERATOR), (WATCH, Role.WATCHER), ("", None), ("ö", None), (TOKEN[:-1], None)]
)  # fmt: skip
def test_access_role_follows_the_token(token, role):
    assert Access(address="0.0.0.0", token=TOKEN, watch_token=WATCH).role(token) == role


@pytest.mark.parametrize("token", [TOKEN, ""])
def test_access_that_does_not_operate_makes_everybody_a_watcher(token):
    access = Access(address="127.0.0.1", token=token, operate=False)
    assert access.role(token) == Role.WATCHER


def test_access_without_a_watch_token_an_empty_one_is_wrong():
    assert Access(address="0.0.0.0", token=TOKEN).role("") is None


@pytest.mark.parametrize(
    ("address", "host", "allowed"),
    [
        ("127.0.0.1", "127.0.0.1:8765", True), ("127.0.0.1", "localhost:8765", True),
        ("127.0.0.1", "[::1]:8765", True), ("127.0.0.1", "evil.example:8765", False),
        ("127.0.0.1", "192.168.1.2", False), ("127.0.0.1", "", False),
        ("0.0.0.0", "192.168.1.2:8765", True), ("0.0.0.0", "robot.lab", True),
        ("0.0.0.0", "evil.example", False),
    ],
)  # fmt: skip
def test_access_host_that_was_pointed_here_is_refused(address, host, allowed):
    access = Access(address=address, token=TOKEN, hosts=("robot.lab",))
    assert access.host_allowed(host) == allowed


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:8765", True), ("https://localhost:8765", True), (None, False), ("null", False),
        ("http://localhost:80", False), ("http://evil.example", False), ("file://localhost:8765", False),
    ],
)  # fmt: skip
def test_access_websocket_of_another_origin_is_refused(origin, allowed):
    assert Access(address="127.0.0.1").origin_allowed(origin, "localhost:8765") == allowed


def test_bucket_beyond_burst_and_rate_is_refused():
    bucket = Bucket(rate=10.0, burst=3.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.take(0.1) and not bucket.take(0.1)


def test_buckets_keys_do_not_share_and_are_forgotten():
    buckets = Buckets(0.0, 1.0)
    assert buckets.take("a", 0.0) and not buckets.take("a", 0.0) and buckets.take("b", 0.0)
    for n in range(2000):
        buckets.take(str(n), 0.0)
    assert len(buckets._buckets) <= 1000


def test_addresses_text_has_the_token_where_browsers_do_not_send_it():
    found = addresses_text("https", ["10.0.0.1", "::1"], 1, TOKEN)
    assert found == f"https://10.0.0.1:1/#{TOKEN}\nhttps://[::1]:1/#{TOKEN}"
