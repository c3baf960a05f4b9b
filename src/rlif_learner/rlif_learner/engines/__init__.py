"""What executes the updates of an algorithm: PyTorch, compiled critics, CUDA graphs, several processes."""
