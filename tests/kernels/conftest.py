"""Kernel tests run in Triton's interpreter, which must be switched on before Triton is imported.

So they need a process of their own with TRITON_INTERPRET=1, which `test_in_interpreter.py` starts. Without the variable
`test_kernel_*.py` are not collected; with it only they are.
"""

import os
from typing import Any

import torch

torch.set_num_threads(1)

if os.environ.get("TRITON_INTERPRET") == "1":
    collect_ignore_glob = ["test_[!k]*.py", "test_kernels_usable.py"]
    from triton.runtime import interpreter

    # Every function of a kernel prepares Triton's language when called. That takes a millisecond, which only the first
    # call of a launch needs.
    _prepare, _launch, _prepared = interpreter._patch_lang, interpreter.GridExecutor.__call__, {}

    def _prepare_once(function: Any) -> Any:
        key = id(function.__globals__)
        if key not in _prepared:
            _prepared[key] = _prepare(function)
        return _prepared[key]

    def _launch_fresh(self: Any, *arguments: Any, **named: Any) -> Any:
        _prepared.clear()
        return _launch(self, *arguments, **named)

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = _prepare_once, _launch_fresh
else:
    collect_ignore_glob = ["test_kernel_*.py"]
