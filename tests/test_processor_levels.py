# SPDX-License-Identifier: Apache-2.0
"""PyTorch's own paths: the learner's and the encoders' numbers at each level of the processor.

PyTorch chooses its instructions when it is imported, so that each level is a process of its own: these
tests once more, in the environment that conftest.py makes of RLIF_CPU_LEVEL.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cpu_levels
import pytest
from waiting import scaled

from rlif_policy.processor import LEVELS

SOURCES = Path(__file__).resolve().parents[1] / "src"
TESTS = (
    "rlif_policy/test/test_processor.py::test_torch_uses_the_level_of_this_run",
    "rlif_learner/test/algorithms/test_rlpd.py::test_whole_updates_equal_numpy_float64[rlpd-plain]",
    "rlif_learner/test/algorithms/test_rlpd.py::test_whole_updates_equal_numpy_float64[rlif-fast]",
    "rlif_learner/test/algorithms/test_rlpd.py::test_an_update_equals_a_slow_one_in_float64[both]",
    "rlif_learner/test/algorithms/test_rlpd.py::test_low_precision_is_of_the_convolutions_alone_and_close",
    "rlif_policy/test/test_encoders.py::test_encoder_in_low_precision_gives_close_float32[small]",
)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [level.name for level in LEVELS if level.torch])
def test_numbers_of_pytorch_at_a_level_equal_numpy(name):
    with cpu_levels.enter(name):
        command = [sys.executable, "-m", "pytest", "-v", "-n", "0", *TESTS]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=scaled(280.0), cwd=SOURCES, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(TESTS)} passed" in done.stdout, done.stdout
