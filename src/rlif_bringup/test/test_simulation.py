"""Two runs on one host must not share a DDS domain: one would command the other's arm."""

import socket

from rlif_bringup.simulation import chosen_domain, is_domain_free, reserve_domain


def test_reserve_domain_in_use_takes_another():
    with reserve_domain() as first:
        assert 1 <= first.id <= 101
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
        participant.bind(("", 7410 + 250 * first.id))
        assert not is_domain_free(first.id)
        with reserve_domain() as other:
            assert other.id != first.id
    assert is_domain_free(first.id)


def test_reserve_domain_of_a_run_that_is_about_to_start_takes_another():
    with reserve_domain() as first:
        assert is_domain_free(first.id), "nobody is in it yet"
        with reserve_domain() as second:
            assert second.id != first.id
    with reserve_domain() as again:
        assert again.id == first.id


def test_chosen_domain_asked_for_is_taken_also_0():
    with chosen_domain(0) as domain:
        assert domain == 0
    with chosen_domain(7) as domain:
        assert domain == 7
    with chosen_domain(None) as domain:
        assert domain >= 1
