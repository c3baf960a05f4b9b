"""Two runs on one host must not share a DDS domain: one would command the other's arm."""

import socket

from rlif_bringup.simulation import chosen_domain_id, is_domain_free, own_domain_id


def test_a_domain_in_use_is_not_chosen():
    first = own_domain_id()
    assert 1 <= first <= 101
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
        participant.bind(("", 7410 + 250 * first))
        assert not is_domain_free(first)
        assert own_domain_id() != first
    assert is_domain_free(first)


def test_a_domain_that_was_asked_for_is_taken_also_0() -> None:
    assert chosen_domain_id(0) == 0
    assert chosen_domain_id(7) == 7
    assert chosen_domain_id(None) >= 1
