# SPDX-License-Identifier: Apache-2.0
"""Episodes in Rerun: images, states, actions, rewards and control source, over the steps.

Rerun is an optional extra, imported only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlif_bags.optional import optional
from rlif_bags.reading.files import refuse_existing
from rlif_bags.reading.step_reader import episodes_of
from rlif_bags.relabelling.relabel import Scheme
from rlif_learner.data.steps import Outcome, Source, StepRecord


def show_in_rerun(
    steps: Iterable[StepRecord], wanted: set[int], scheme: Scheme, name: str, file: Path | None
) -> int:
    """Send the episodes with these ids to a viewer, or into an .rrd file. Returns how many."""
    rerun = optional("rerun")
    if file is not None:
        refuse_existing(file)
    stream = rerun.RecordingStream(f"rlif {name}")
    if file is None:
        stream.spawn()
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        stream.save(str(file))
    sent = 0
    for episode in episodes_of(steps):
        if episode[0].episode_id in wanted:
            _send(rerun, stream, episode, scheme(episode)[0])
            sent += 1
    stream.flush()
    return sent


def _send(rerun: Any, stream: Any, steps: Sequence[StepRecord], rewards: np.ndarray) -> None:
    for step, reward in zip(steps, rewards, strict=True):
        stream.set_time("sequence", sequence=step.sequence)
        stream.set_time("episode", sequence=step.episode_id)
        for camera, image in enumerate(step.images):
            grey = image.shape[2] == 1
            stream.log(f"camera_{camera}", rerun.Image(image[:, :, 0] if grey else image))
        stream.log("state", rerun.Scalars(np.asarray(step.state, np.float64)))
        if step.is_last:
            text = f"episode {step.episode_id}: {Outcome(step.outcome).name.lower()}"
            stream.log("events", rerun.TextLog(text))
            continue
        stream.log("action", rerun.Scalars(np.asarray(step.action, np.float64)))
        stream.log("reward", rerun.Scalars(float(reward)))
        stream.log("driver", rerun.Scalars(float(step.source)))
        if step.onset:
            text = f"step {step.step_index}: {Source(step.source).name.lower()} takes over"
            stream.log("events", rerun.TextLog(text, level="WARN"))
