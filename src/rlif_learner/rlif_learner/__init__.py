"""Learner node: RLPD on interventions, replay buffer, labels, bags."""
