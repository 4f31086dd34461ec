"""Denoise steps recorded as CUDA graphs. Experimental: tested on a CPU, but never run on a GPU."""
