# SPDX-License-Identifier: Apache-2.0
"""Fixtures of this package: one graph of nodes for a test, a stand-in for tf2_ros."""

from node_graph import graph  # noqa: F401 - a fixture
from stand_in_tf import tf  # noqa: F401 - a fixture
