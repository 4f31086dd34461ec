"""Code in, code out: holes in source text are filled by the engine, checked, and handed back as text.

Knows code and prompts. It must not know any editor or protocol (that is `lsp`), nor how the model computes
(that is `engine`).
"""

import engine  # noqa: F401  (before PyTorch: it says how PyTorch's threads wait)
