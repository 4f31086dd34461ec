"""Tokens in, tokens out: the denoising engine. Must not know text, code, editors or the network.

Import it before PyTorch, because of the variable below.
"""

import os

# Waiting threads must not spin: on a machine with other load a request then takes ten times as long (bench/NOTES.md).
# OpenMP reads this once, when PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
