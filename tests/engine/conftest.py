"""Tiny models: one thread is fastest, and leaves the other cores to other processes."""

import torch

torch.set_num_threads(1)
