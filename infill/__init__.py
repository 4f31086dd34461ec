"""Code in, code out: the engine fills holes in source text, and what passes the checks is returned as text.

Must not know editors or their protocol (`lsp`), nor how the model computes (`engine`).
"""

import engine  # noqa: F401  (before PyTorch, since it sets how the threads of PyTorch wait)
