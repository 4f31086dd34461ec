"""Making the pocket model: its data, its tokenizer and its training. Nothing here is needed to fill a hole."""

import engine  # noqa: F401  (before PyTorch: it says how PyTorch's threads wait)
