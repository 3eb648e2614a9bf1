"""Training: the loop, what it optimises with, and its checkpoints."""
