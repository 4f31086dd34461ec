"""Quantized checkpoints as others publish them, read into weights that stay in few bits."""
