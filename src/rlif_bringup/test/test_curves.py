# SPDX-License-Identifier: Apache-2.0
"""TensorBoard events of a run."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from rlif_bringup.curves import Curves


def test_curves_that_were_written_are_read_back(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    curves.add(100, training__success=0.25, nothing=None)
    curves.close()
    (path,) = tmp_path.iterdir()
    events = [e for e in EventFileLoader(str(path)).Load() if e.step == 100]
    assert [value.tag for value in events[0].summary.value] == ["training/success"]
