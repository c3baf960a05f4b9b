# SPDX-License-Identifier: Apache-2.0
"""Curves: what is written, and that a full disk ends neither them nor the training."""

from __future__ import annotations

import resource
from dataclasses import replace

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from rlif_learner import scalars
from rlif_learner.learner_loop import NOTHING_YET
from rlif_learner.scalars import Scalars

# What TensorBoard's thread could not write it raises there too, now or while the next test runs.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def status(steps):
    return replace(NOTHING_YET, steps=steps, updates=2 * steps, metrics={"loss": 0.5 * steps})


def points(directory, name):
    """Step to value of a curve, over all files of the directory."""
    found = {}
    for file in sorted(directory.glob("events*")):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.tag == name:
                    found[event.step] = value.tensor.float_val[0]
    return found


def test_scalars_are_written_once_per_progress(tmp_path):
    curves = Scalars(tmp_path / "new" / "folder")
    for steps in (1, 2, 2, 3):
        curves.write(status(steps))
    curves.close()
    assert points(tmp_path / "new" / "folder", "learner/loss") == {1: 0.5, 2: 1.0, 3: 1.5}
    assert points(tmp_path / "new" / "folder", "data/intervention_rate") == {1: 0, 2: 0, 3: 0}


def test_scalars_on_a_full_disk_report_it_and_go_on_when_there_is_room(tmp_path, monkeypatch):
    """Regression: what TensorBoard's writer raised ended the training's thread."""
    curves = Scalars(tmp_path)
    curves.write(status(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(path.stat().st_size for path in tmp_path.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # as a full disk: no file may grow
    try:
        for steps in (2, 3, 4):
            curves.write(status(steps))
        assert f"no curves in {tmp_path}: [Errno 27] File too large" in curves.problem
        curves.write(status(5))  # not tried again yet
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    monkeypatch.setattr(curves, "_open_at", 0.0)
    curves.write(status(6))
    assert curves.problem == ""
    curves.close()
    found = points(tmp_path, "learner/loss")
    assert {1, 6} <= set(found) and 5 not in found


def test_scalars_that_cannot_be_written_at_the_start_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        Scalars(tmp_path / "file" / "curves")


def test_scalars_that_cannot_be_ended_report_it(tmp_path, monkeypatch):
    curves = Scalars(tmp_path)
    writer = curves._writer

    def close():
        raise OSError("No space left on device")

    curves._writer = type("Full", (), {"close": staticmethod(close)})
    curves.close()
    assert curves.problem == f"curves in {tmp_path} lack their end: No space left on device"
    writer.close()
    assert scalars.RETRY > 1.0
