"""Denoising steps that a GPU records once and replays."""
