"""Tokens in, tokens out: the denoising engine. Knows nothing of text, code, editors or the network.

To be imported before PyTorch is, for the sake of the variable below.
"""

import os

# Threads that wait for each other must not spin: on a machine that does anything else a request then takes ten times
# as long (bench/NOTES.md). OpenMP reads this once, when PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
