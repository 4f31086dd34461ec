"""The primitive operations in plain PyTorch: the reference for the kernels."""
