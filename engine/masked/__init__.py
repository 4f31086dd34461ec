"""Denoising of masks on a bidirectional Qwen2: Dream, Dream-Coder, DreamOn, Open-dCoder."""
