"""Arbiter, episode and recorder nodes: control source, limits and recording."""
