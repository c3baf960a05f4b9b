# SPDX-License-Identifier: Apache-2.0
"""One operator at a time."""

from __future__ import annotations

import pytest

from rlif_console.lease import Lease, LeaseError


def test_lease_taken_by_one_is_only_asked_for_by_others():
    lease = Lease()
    lease.take(1)
    lease.take(2)
    lease.take(2)
    assert lease.holder == 1 and lease.asking == [2]


def test_lease_handed_over_moves_to_who_asked():
    lease = Lease(holder=1, asking=[2, 3])
    lease.hand_over(1, 3)
    assert lease.holder == 3 and lease.asking == [2]


@pytest.mark.parametrize(("page", "to"), [(2, 2), (1, 4), (3, 2)])
def test_lease_hand_over_by_others_or_to_strangers_is_refused(page, to):
    lease = Lease(holder=1, asking=[2])
    with pytest.raises(LeaseError):
        lease.hand_over(page, to)
    assert lease.holder == 1


def test_lease_of_a_holder_that_is_gone_can_be_taken():
    lease = Lease(holder=1)
    lease.take(2, holder_is_gone=True)
    assert lease.holder == 2


def test_lease_given_up_is_free_and_nobody_gets_it_unasked():
    lease = Lease(holder=1, asking=[2])
    lease.give_up(1)
    assert lease.holder is None
    lease.give_up(2)
    assert lease.asking == []
