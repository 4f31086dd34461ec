"""Requests of many clients share the denoising steps of one model."""
