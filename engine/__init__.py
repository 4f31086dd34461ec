"""Tokens in, tokens out: the denoising engine. Knows nothing of text, code, editors or the network."""
