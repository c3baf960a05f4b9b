"""Assertions in what the tests share (`import bag_episodes`) are explained like their own."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("bag_episodes", "bag_sessions")
