# SPDX-License-Identifier: Apache-2.0
"""Who operates a robot: one page at a time, with an explicit hand-over. No ROS."""

from __future__ import annotations

from dataclasses import dataclass, field


class LeaseError(ValueError):
    """A lease that cannot be had, given up or handed over, and why."""


@dataclass
class Lease:
    """Of one robot. Pages are known by the numbers of their connections.

    holder: None: nobody; asking: pages that want it, the oldest first
    """

    holder: int | None = None
    asking: list[int] = field(default_factory=list)

    def take(self, page: int, holder_is_gone: bool = False) -> None:
        """Have the lease, if it is free or its holder does not answer; otherwise ask for it."""
        if self.holder in (None, page) or holder_is_gone:
            self._give(page)
        elif page not in self.asking:
            self.asking.append(page)

    def hand_over(self, page: int, to: int) -> None:
        """Give the lease to a page that has asked for it."""
        self._require(page)
        if to not in self.asking:
            raise LeaseError(f"page {to} has not asked to operate")
        self._give(to)

    def give_up(self, page: int) -> None:
        """End the lease, or the wish for it."""
        if page in self.asking:
            self.asking.remove(page)
        elif self.holder == page:
            self.holder = None

    def _require(self, page: int) -> None:
        if self.holder != page:
            raise LeaseError("only the operator hands over")

    def _give(self, page: int) -> None:
        self.holder = page
        if page in self.asking:
            self.asking.remove(page)
