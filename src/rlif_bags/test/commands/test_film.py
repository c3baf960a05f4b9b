# SPDX-License-Identifier: Apache-2.0
"""`rlif film`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint_runs import CONFIG
from film_takes import SPEC, bag_of, seen_steps, store_checkpoint
from PIL import Image
from step_bags import Cli, rlif

from rlif_learner.algorithms.bc import BC
from rlif_learner.algorithms.rlpd import RLPD
from rlif_learner.config import ImitationConfig


@pytest.mark.slow
def test_film_command_writes_the_named_episodes(tmp_path: Path, cli: Cli) -> None:
    bag = bag_of(tmp_path, *(seen_steps(n) for n in range(1, 6)))
    assert "3 episodes, 6 s" in cli.succeeds(
        "film", bag, "-o", tmp_path / "film.gif", "--episodes", "1,4-5"
    )
    with Image.open(tmp_path / "film.gif") as gif:
        assert gif.n_frames == 21
        without = gif.size
    assert "exists already" in cli.fails("film", bag, "-o", tmp_path / "film.gif")
    store_checkpoint(tmp_path / "run", RLPD(CONFIG, SPEC))
    assert rlif("film", bag, "-o", tmp_path / "valued.gif", "--checkpoint", tmp_path / "run") == 0
    with Image.open(tmp_path / "valued.gif") as gif:
        assert gif.width > without[0] and gif.n_frames == 21
    for args in ("1,x", "", "3-", "5-4"):
        with pytest.raises(SystemExit):
            rlif("film", bag, "-o", tmp_path / "no.gif", "--episodes", args)


def test_film_command_wrong_checkpoint_is_an_error(tmp_path: Path, cli: Cli) -> None:
    bag = bag_of(tmp_path, seen_steps())
    args = (bag, "-o", tmp_path / "film.gif", "--checkpoint", tmp_path / "run")
    assert "checkpoint: found none" in cli.fails("film", *args)
    store_checkpoint(tmp_path / "run", RLPD(CONFIG, replace(SPEC, state_dim=4)))
    assert "is of another network" in cli.fails("film", *args)
    assert not (tmp_path / "film.gif").exists()
    store_checkpoint(tmp_path / "bc", BC(ImitationConfig(), SPEC))
    assert "no critic's value" in cli.succeeds("film", *args[:-1], tmp_path / "bc"), "all the same"
