# SPDX-License-Identifier: Apache-2.0
"""What is learned from: Steps, labels, the replay buffer, and checkpoints of all of it."""
