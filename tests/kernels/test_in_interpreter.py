"""Runs the kernel tests of this folder, in a process where Triton interprets its kernels on the CPU."""

import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy
import pytest

FOLDER = Path(__file__).parent


def why_not() -> str:
    """Why no interpreter can run them; empty if one can."""
    if find_spec("triton") is None:
        return "Triton is not installed: pip install 'gesso[cuda]'"
    triton, arrays = (tuple(map(int, text.split(".")[:2])) for text in (version("triton"), numpy.__version__))
    if triton < (3, 9) and arrays >= (2, 4):  # seen with 3.6, which runs with NumPy 2.3; 3.9 runs with 2.4
        return "this Triton's interpreter takes arrays for loop counts, which NumPy refuses from 2.4 on"
    return ""


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_kernels_equal_their_references() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FOLDER)]
    run = subprocess.run(command, cwd=FOLDER.parents[1], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
