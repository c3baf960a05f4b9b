"""Shared by all nodes of the suite: parameters as a table, their checks, QoS, graceful shutdown."""
