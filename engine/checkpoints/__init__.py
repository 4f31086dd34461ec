"""Model folders: reading, checking and writing them, in full precision and quantized."""
