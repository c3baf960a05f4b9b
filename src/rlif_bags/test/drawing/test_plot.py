# SPDX-License-Identifier: Apache-2.0
"""Pictures of labels before and after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from step_bags import Cli, make_episodes, rlif, write_bag


def test_plot_episodes_draws_a_picture_for_each_episode(tmp_path: Path, cli: Cli) -> None:
    bag = write_bag(tmp_path / "peg", make_episodes(3))
    assert "plots:" in cli.succeeds(
        "relabel", bag, "-o", tmp_path / "out", "--scheme", "every_step", "--plots"
    )
    pictures = sorted((tmp_path / "out/peg.plots").iterdir())
    assert [p.name for p in pictures] == [f"episode_{n:06d}.png" for n in (1, 2, 3)]
    pixels = np.asarray(Image.open(pictures[0]).convert("RGB")).reshape(-1, 3)
    assert ((pixels == (0xC0, 0x18, 0x2B)).all(axis=1)).sum() > 100, "the new labels"


def test_plot_episodes_are_of_the_labels_that_are_there(tmp_path: Path) -> None:
    """Regression: after the labels were deleted and made again, the old pictures stayed."""
    bag = write_bag(tmp_path / "peg", make_episodes(1))
    args = (bag, "-o", tmp_path / "out", "--plots")
    assert rlif("relabel", *args) == 0
    (picture,) = (tmp_path / "out/peg.plots").iterdir()
    before = picture.read_bytes()
    assert rlif("relabel", *args) == 0 and picture.read_bytes() == before
    (tmp_path / "out/peg.labels.npz").unlink()
    assert rlif("relabel", *args, "--scheme", "every_step") == 0 and picture.read_bytes() != before
