# SPDX-License-Identifier: Apache-2.0
"""TensorBoard events of a run, without importing torch into the process that shows it."""

from __future__ import annotations

import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class Curves:
    """Scalars over environment steps."""

    def __init__(self, directory: Path) -> None:
        self._writer = EventFileWriter(str(directory))

    def add(self, step: int, **values: float | None) -> None:
        """One point per named curve; None is left out."""
        scalars = [
            Summary.Value(tag=name.replace("__", "/"), simple_value=float(value))
            for name, value in values.items()
            if value is not None
        ]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=scalars))
        self._writer.add_event(event)

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()
