"""Tests import what they share by name: `import bag_episodes`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("bag_episodes", "bag_sessions")
