# SPDX-License-Identifier: Apache-2.0
"""The learner as a plain library: where there is no ROS at all."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys

ROS = ("rclpy", "rlif_msgs", "ament_index_python", "rosidl_runtime_py",
       "std_msgs", "sensor_msgs", "geometry_msgs", "builtin_interfaces")
for name in ROS:
    sys.modules[name] = None  # an import of it is an ImportError

import numpy as np
import rlif_learner
from rlif_learner import RLPD, Buffers, CheckpointStore, ReplayBuffer, StepRecord, named_preset
from rlif_learner.config import RLPDConfig
from rlif_policy.networks import PolicySpec

for name in rlif_learner.__all__:
    getattr(rlif_learner, name)
assert named_preset("rlif").prior_ratio == 0.0

spec = PolicySpec(state_dim=3, action_dim=1, hidden=(8,))
config = RLPDConfig(hidden=(8,), ensemble_size=2, utd=1, batch_size=4)
buffers = Buffers(online=ReplayBuffer(50, 3, 1))
learner = RLPD(config, spec, seed=0)
for t in range(6):
    last = t == 5
    buffers.online.add_step(
        StepRecord(t, 1, t, t == 0, last, int(last), int(not last), False, 0, False,
                   np.full(3, 0.1 * t), np.zeros(0 if last else 1))
    )
assert "critic_loss" in learner.update(buffers)
assert learner.actor.act(np.zeros(3), deterministic=False).shape == (1,)
path = CheckpointStore(sys.argv[1]).save(learner, buffers)
CheckpointStore(sys.argv[1]).load(path, learner, buffers)
loaded = [name for name in sys.modules if name.startswith((*ROS, "rlif_node")) and sys.modules[name]]
print("without", sorted(loaded))
"""


@pytest.mark.slow
def test_the_learner_works_without_ros(tmp_path):
    """As at the top of docs/learner.md: networks, buffer, update, action, checkpoint."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "without ['rlif_node', 'rlif_node.states']\n"
