"""Arbiter, episode and recorder nodes: who drives, within which limits, and what is written down."""
