"""Tests import what they share by name: `import bag_episodes`; of the policy's, `import trunks`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[2] / "rlif_policy" / "test"))
pytest.register_assert_rewrite("bag_episodes", "bag_sessions")
