"""`rlif replay` to a real learner: what it has learned from is what it would have had live."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import learner_doubles
import numpy as np
import pytest
import safetensors.numpy
from replay_rig import SMALL, ReplayRig

from rlif_bags.commands import replay as replay_command
from rlif_bags.step_writer import StepWriter

pytestmark = pytest.mark.ros

PERIOD = 100_000_000  # ns


def stored_rows(run: Path) -> dict[str, np.ndarray]:
    """The rows of all buffers in the checkpoints of a run, by buffer and column, in order."""
    found: dict[str, list[np.ndarray]] = {}
    files = sorted((run / "segments").glob("*.safetensors"))
    assert files, f"no buffer under {run}"
    for file in files:
        buffer = file.name.split("-")[0]
        for name, values in safetensors.numpy.load(file.read_bytes()).items():
            found.setdefault(f"{buffer} {name}", []).append(values)
    return {name: np.concatenate(parts) for name, parts in found.items()}


@pytest.mark.timeout(300)
def test_a_learner_has_the_same_buffers_from_a_bag_as_live(
    ros_node: Any, start_node: Any, spin_until: Any, tmp_path: Path
) -> None:
    """Byte for byte: rewards, terminals, states, actions, in both buffers."""
    episode = learner_doubles.episode
    steps = [
        *episode(1, 9, 0), *episode(2, 12, 10, takeover=4), *episode(3, 9, 23, evaluation=True),
        *episode(4, 9, 33)[2:], *episode(5, 9, 43, takeover=0), *episode(6, 9, 53, takeover=7),
    ]  # fmt: skip
    counted = sum(not step.evaluation for step in steps)
    with StepWriter(tmp_path / "bag") as writer:
        for step in steps:
            writer.write(step, step.sequence * PERIOD)
    rows = {}
    for name in ("live", "replayed"):
        settings = {**SMALL, "rlpd.utd": 2, "run_directory": tmp_path / name, "prior_episodes": 1}
        rig = ReplayRig(ros_node, start_node, spin_until, **settings)
        if name == "live":
            rig.send(steps)
        else:
            parser = argparse.ArgumentParser()
            replay_command.add_arguments(parser)
            words = [str(tmp_path / "bag"), "--as-fast-as-possible", "--namespace"]
            assert replay_command.run(parser.parse_args([*words, ros_node.get_namespace()])) == 0
        rig.wait_for(counted)
        code, output = rig.end()
        assert code == 0, output
        rows[name] = stored_rows(tmp_path / name)
        ros_node.destroy_publisher(rig.replay)
    live, replayed = rows["live"], rows["replayed"]
    assert set(live) == set(replayed) and any("reward" in name for name in live)
    assert {name.split()[0] for name in live} == {"online", "prior"}
    for name, values in live.items():
        assert values.dtype == replayed[name].dtype
        assert values.tobytes() == replayed[name].tobytes(), name
    assert (live["online reward"] < 0).sum() >= 2
