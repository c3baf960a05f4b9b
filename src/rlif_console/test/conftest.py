# SPDX-License-Identifier: Apache-2.0
"""Fixtures of this package: one graph of nodes for a test."""

from node_graph import graph  # noqa: F401 - a fixture
