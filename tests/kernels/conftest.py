"""Kernel tests run in Triton's interpreter, which has to be switched on before Triton is imported.

So they need a process of their own, with TRITON_INTERPRET=1: `test_in_interpreter.py` starts it. Without the variable
`test_kernel_*.py` are not collected, with it only they are.
"""

import os

import torch

torch.set_num_threads(1)

if os.environ.get("TRITON_INTERPRET") == "1":
    collect_ignore = ["test_in_interpreter.py", "test_kernels_usable.py", "test_compile.py", "test_quantized.py"]
else:
    collect_ignore_glob = ["test_kernel_*.py"]
