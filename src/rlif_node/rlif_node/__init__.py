# SPDX-License-Identifier: Apache-2.0
"""Shared by all nodes: parameters as a table, their checks, QoS, enums, graceful shutdown."""
