# SPDX-License-Identifier: Apache-2.0
"""Runs as plain arrays in one npz file, one row for each transition.

observations, next_observations  float32 [n, state_dim]
actions                          float32 [n, action_dim], as executed
policy_actions, operator_actions the same, as requested; NaN where not
rewards                          float32 [n], of the label scheme
terminals, timeouts              bool [n]: ended in success; ended otherwise, to be bootstrapped
outcomes                         uint8 [n]: in an episode's last row, of it (rlif_msgs/Episode)
episode_ids, step_indices        uint32 [n]
sources, onsets, interventions   uint8 [n] (1 policy, 2 operator, 0 none), bool, bool [n]
evaluations                      bool [n]
stamps                           int64 [n], ns, of the observation
images.NAME                      uint8 [frames, height, width, channels], one for each camera
image_rows                       int64 [n]: of the observation; the next one's is one further
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rlif_bags.formats.export import ExportReader
from rlif_bags.reading.files import partial_directory, refuse_existing

IMAGES = "images."


def write_npz(reader: ExportReader, output: Path) -> None:
    """The runs of `reader` as `output`, complete or not at all. BagError names why.

    Holds one episode in memory at a time: rows wait in files beside the output until all are there.
    """
    with partial_directory(output) as partial:
        kinds: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        with ExitStack() as stack:
            files: dict[str, BinaryIO] = {}
            frames = 0
            for run in reader:
                arrays = run.columns()
                arrays["episode_ids"] = np.full(len(run), reader.runs, np.uint32)
                for camera, name in enumerate(run.cameras):
                    arrays[IMAGES + name] = np.stack(run.images(camera))
                    arrays["image_rows"] = frames + np.arange(len(run))
                for name, array in arrays.items():
                    if name not in files:
                        files[name] = stack.enter_context((partial / name).open("wb"))
                        kinds[name] = (array.dtype, array.shape[1:])
                    files[name].write(np.ascontiguousarray(array).tobytes())
                frames += len(run) + 1
        with (partial / ".whole").open("wb") as stream:
            whole: dict[str, Any] = {
                name: np.memmap(partial / name, dtype, "r").reshape(-1, *shape)
                for name, (dtype, shape) in kinds.items()
            }
            np.savez_compressed(stream, **whole)
        refuse_existing(output)
        (partial / ".whole").rename(output)
