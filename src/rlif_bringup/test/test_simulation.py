# SPDX-License-Identifier: Apache-2.0
"""Runs on one host share no DDS domain (one would command the other's arm), and end with their nodes."""

import os
import socket
from pathlib import Path

import pytest
from rich.console import Console
from waiting import scaled, wait_until

from rlif_bringup.graph_client import GraphError
from rlif_bringup.processes import Interrupt
from rlif_bringup.progress import Progress
from rlif_bringup.simulation import chosen_domain, is_domain_free, reserve_domain, simulation


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


@pytest.mark.ros
def test_simulation_with_a_node_that_dies_names_it_and_ends_the_rest(tmp_path, monkeypatch):
    file = tmp_path / "test.launch.yaml"
    file.write_text(
        "launch:\n"
        """- executable: {cmd: 'sh -c "echo $$; exec sleep 1000"', name: robot}\n"""
        """- executable: {cmd: 'sh -c "echo last words; kill -9 $$"', name: policy}\n"""
    )
    monkeypatch.setattr("rlif_bringup.simulation.find_launch_file", lambda _: file)
    progress = Progress("test", Console(quiet=True))
    log = tmp_path / "log" / "robot.log"
    with (
        pytest.raises(GraphError, match=r"policy was killed by SIGKILL(.|\n)*last words"),
        Interrupt() as interrupt,
        simulation({}, tmp_path, progress, int(os.environ["ROS_DOMAIN_ID"]), interrupt) as graph,
    ):
        wait_until(lambda: log.is_file() and log.read_text().strip(), "the other node")
        graph.wait(lambda: False, "the death", scaled(20.0))
    assert not Path(f"/proc/{log.read_text().strip()}").exists()
