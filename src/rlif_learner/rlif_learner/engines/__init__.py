"""What executes the update of an algorithm faster: compiled critics, CUDA graphs, several processes."""
