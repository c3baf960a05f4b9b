# SPDX-License-Identifier: Apache-2.0
"""Of several arbiters the oldest acts, and the next one when it has ended."""

from __future__ import annotations

from rlif_intervention.instances import PEER_TIMEOUT, Peers, instance_id


def test_peers_agree_on_the_oldest_until_it_is_silent():
    old, young = instance_id(10**18, b"\xff" * 8), instance_id(10**18 + 1, b"\0" * 8)
    assert len(old) == len(young) == 16
    first, second = Peers(old), Peers(young)
    for peers in (first, second):
        for instance in (old, young):  # its own comes back to it
            peers.heartbeat(instance, 5.0)
    assert not first.older(5.0) and first.count == 1
    assert second.older(5.0) and second.older(5.0 + PEER_TIMEOUT)
    assert not second.older(5.1 + PEER_TIMEOUT) and second.count == 0
