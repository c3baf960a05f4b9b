# SPDX-License-Identifier: Apache-2.0
"""What executes the updates of an algorithm: PyTorch, compiled critics, CUDA graphs, several processes."""
