"""Makes the pocket model: data, tokenizer, training, calibration. Nothing here is needed to fill a hole."""

import engine  # noqa: F401  (before PyTorch: it sets how OpenMP threads wait)
