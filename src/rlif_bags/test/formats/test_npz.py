# SPDX-License-Identifier: Apache-2.0
"""Exported arrays: transitions of the buffer, and back again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from step_bags import assert_equal_steps, export_arrays, imported, make_episodes, make_step

from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.labels import label_rewards
from rlif_learner.data.steps import Outcome


def test_write_npz_transitions_equal_those_of_the_buffer(tmp_path: Path) -> None:
    steps = make_episodes(3)
    steps.pop(8)
    arrays = export_arrays(tmp_path, steps)
    buffer = ReplayBuffer(100, 3, 2)
    buffer.add_episode(steps)
    rows = np.flatnonzero(buffer.columns["valid"])
    assert len(arrays["rewards"]) == len(rows)
    assert np.array_equal(arrays["rewards"], buffer.columns["reward"][rows])
    assert np.array_equal(arrays["terminals"], buffer.columns["terminal"][rows] == 1.0)
    assert np.array_equal(arrays["observations"], buffer.columns["state"][rows])
    assert np.array_equal(arrays["next_observations"], buffer.columns["state"][rows + 1])


def test_write_npz_gap_ends_an_episode_and_comes_back(tmp_path: Path) -> None:
    """PITFALLS: next states crossed what they must not cross."""
    steps = make_episodes(1, length=8)
    steps.pop(4)
    arrays = export_arrays(tmp_path, steps)
    assert arrays["episode_ids"].tolist() == [1] * 3 + [2] * 3
    assert arrays["timeouts"].tolist() == [False, False, True, False, False, False]
    found = [(s.episode_id, s.state[1], s.is_last) for s in imported(tmp_path / "out.npz")]
    assert found == [
        (1, 0, False), (1, 1, False), (1, 2, False), (1, 3, True),
        (2, 5, False), (2, 6, False), (2, 7, False), (2, 8, True),
    ]  # fmt: skip


def test_write_npz_time_limit_is_no_terminal(tmp_path: Path) -> None:
    """PITFALLS: time limits stored as terminal."""
    steps = make_episodes(1)
    steps[-1] = make_step(5, 5, 5, outcome=Outcome.TRUNCATED)
    arrays = export_arrays(tmp_path, steps)
    assert not arrays["terminals"].any() and arrays["timeouts"].tolist() == [False] * 4 + [True]


def test_write_npz_failure_has_the_same_labels_when_imported(tmp_path: Path) -> None:
    steps = make_episodes(1, length=2)
    steps[-1] = replace(steps[-1], outcome=Outcome.FAILURE)
    assert export_arrays(tmp_path, steps)["rewards"].tolist() == [0.0, -1.0]
    assert label_rewards(imported(tmp_path / "out.npz"))[0].tolist() == [0.0, -1.0, 0.0]


def test_write_npz_action_that_nobody_asked_for_is_nan(tmp_path: Path) -> None:
    unknown = np.zeros(0, np.float32)
    arrays = export_arrays(tmp_path, [replace(s, refused_action=unknown) for s in make_episodes(1)])
    operator = arrays["interventions"]
    assert operator.tolist() == [False] * 3 + [True] * 2
    assert np.isnan(arrays["operator_actions"][~operator]).all()
    assert np.isnan(arrays["policy_actions"][operator]).all()
    assert np.array_equal(arrays["operator_actions"][operator], arrays["actions"][operator])


def test_write_npz_images_come_back(tmp_path: Path) -> None:
    steps = make_episodes(3, images=True)
    arrays = export_arrays(tmp_path, steps)
    assert arrays["images.camera_0"].shape == (18, 4, 6, 3)
    rows = arrays["image_rows"]
    assert np.array_equal(
        arrays["images.camera_1"][rows, 0, 0, 0], arrays["observations"][:, 0] + 1
    )
    assert_equal_steps(imported(tmp_path / "out.npz"), steps)
    named = imported(tmp_path / "out.npz", "--cameras", "wrist", "fixed")
    assert {step.cameras for step in named} == {("wrist", "fixed")}


def test_write_npz_no_images_leaves_them_out(tmp_path: Path) -> None:
    steps = make_episodes(1, images=True)
    assert not any("image" in name for name in export_arrays(tmp_path, steps, "--no-images"))
