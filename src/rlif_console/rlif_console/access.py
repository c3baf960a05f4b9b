# SPDX-License-Identifier: Apache-2.0
"""Who may open the page and from where: addresses, tokens, origins, rates. No ROS, no network."""

from __future__ import annotations

import enum
import hmac
import ipaddress
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

MIN_TOKEN = 16  # characters of a token that a person chooses
KNOWN_ADDRESSES = 1000  # of which failures are remembered


class Role(enum.IntEnum):
    """What a connection may do; an operator also needs the lease to drive or command."""

    WATCHER = 1
    OPERATOR = 2


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches the address."""
    if is_address(address):
        return ipaddress.ip_address(address).is_loopback
    return address == "localhost"


def is_address(host: str) -> bool:
    """Whether it is an IP address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def host_name(host: str) -> str:
    """A Host header without its port, lower case: `[::1]:80` is `::1`."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


@dataclass(frozen=True, kw_only=True)
class Access:
    """The rules of one console.

    address: that it listens on
    token, watch_token: of operators and of watchers; both empty: none is needed
    hosts: names of this machine besides the addresses that it is reached by
    operate: False: all may only watch
    """

    address: str
    token: str = ""
    watch_token: str = ""
    hosts: tuple[str, ...] = ()
    operate: bool = True

    def __post_init__(self) -> None:
        for name in ("token", "watch_token"):
            value = getattr(self, name)
            if value and len(value) < MIN_TOKEN:
                raise ValueError(
                    f"{name} has {len(value)} characters; expected at least {MIN_TOKEN}"
                )
        if not self.token and (self.watch_token or not is_loopback(self.address)):
            raise ValueError(
                f"address is {self.address} and token is empty; expected a token: anybody on the "
                "network could drive the robot"
            )

    def role(self, token: str) -> Role | None:
        """Of the holder of a token; None: it is wrong. Takes the same time for any wrong one."""
        highest = Role.OPERATOR if self.operate else Role.WATCHER
        if not self.token:
            return highest
        given = token.encode("utf-8", "replace")
        is_operator = hmac.compare_digest(given, self.token.encode())
        is_watcher = hmac.compare_digest(given, (self.watch_token or self.token).encode())
        if is_operator:
            return highest
        return Role.WATCHER if is_watcher else None

    def host_allowed(self, host: str) -> bool:
        """Whether a request names this machine. A page elsewhere whose name was pointed here does not."""
        name = host_name(host)
        if is_loopback(self.address):
            return is_loopback(name)
        return is_address(name) or name == "localhost" or name in self.hosts

    def origin_allowed(self, origin: str | None, host: str) -> bool:
        """Whether a WebSocket was opened by our own page. Browsers always send an origin."""
        if origin is None:
            return False
        scheme, separator, rest = origin.partition("://")
        return bool(separator) and scheme in ("http", "https") and rest.lower() == host.lower()


def new_token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(24)


@dataclass
class Bucket:
    """At most `rate` events a second, `burst` at once."""

    rate: float
    burst: float
    _level: float = 0.0
    _time: float = 0.0

    def take(self, now: float) -> bool:
        """Count one event. False: too many."""
        self._level = max(0.0, self._level - (now - self._time) * self.rate)
        self._time = now
        if self._level + 1.0 > self.burst:
            return False
        self._level += 1.0
        return True


class Buckets:
    """One bucket for each key; the longest unused is forgotten."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, key: str, now: float) -> bool:
        bucket = self._buckets.pop(key, None) or Bucket(self._rate, self._burst, 0.0, now)
        self._buckets[key] = bucket
        if len(self._buckets) > KNOWN_ADDRESSES:
            self._buckets.popitem(last=False)
        return bucket.take(now)


SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), gamepad=(self)",
    "Cache-Control": "no-store",
}


def addresses_text(scheme: str, hosts: Iterable[str], port: int, token: str) -> str:
    """Addresses to open, one a line. The token stands behind #, which browsers do not send."""
    fragment = f"#{token}" if token else ""
    return "\n".join(
        f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/{fragment}" for host in hosts
    )
