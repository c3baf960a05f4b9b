"""Shared by all nodes: parameters as a table, their checks, QoS, enums, graceful shutdown."""
