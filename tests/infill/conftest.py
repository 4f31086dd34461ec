"""Tiny models: one thread is fastest, and spares the other processes of a busy machine."""

import torch

torch.set_num_threads(1)
