"""The primitive operations, each as plain PyTorch: the reference that faster twins are held to."""
