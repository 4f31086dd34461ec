"""Programs that measure: each prints a table and writes JSON with its conditions. None of them is a test."""

import engine  # noqa: F401  (before PyTorch: it says how PyTorch's threads wait)
