"""Benchmarks: programs that print a table and can write it, with its conditions, as JSON and Markdown.

None of them writes anything that is shipped; programs that do are in `train`.
"""

import engine  # noqa: F401  (before PyTorch: it sets how OpenMP threads wait)
