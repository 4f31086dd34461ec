"""What this machine can run a model on: device, number type, threads, memory.

Asks the operating system and PyTorch, and respects the limits of a container. Must not know models.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from engine.errors import ModelError, UsageError
from engine.kernels import unavailable_reason

DTYPES = {"float32": torch.float32, "fp32": torch.float32, "bfloat16": torch.bfloat16, "bf16": torch.bfloat16}
ROOT = Path("/")
UNKNOWN_MEMORY = sys.maxsize  # if the system does not report it: nothing is refused for lack of memory


def choose_device(name: str = "auto") -> torch.device:
    """`auto` (CUDA, else MPS, else the CPU), `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises ModelError if the named device is absent or does not work, UsageError for any other name.
    """
    if name == "auto":
        found = (_cuda(0), _mps(), torch.device("cpu"))
        return next(device for device in found if isinstance(device, torch.device))
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        device = _mps()
    elif match := re.fullmatch(r"cuda(?::(\d{1,4}))?", name):
        device = _cuda(int(match[1] or 0))
    else:
        raise UsageError(f"There is no device called {name!r}; use auto, cpu, cuda, cuda:N or mps.")
    if isinstance(device, str):
        raise ModelError(f"The device {name} cannot be used: {device}; use auto or cpu, and see `gesso doctor`.")
    return device


def choose_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """`float32` or `bfloat16`; `auto` is bfloat16 if `device` multiplies matrices in it natively."""
    if name != "auto":
        if name not in DTYPES:
            raise UsageError(f"Unknown number type {name!r}; use auto, float32 or bfloat16.")
        return DTYPES[name]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "mps":
        native = _works(torch.device("mps"), torch.bfloat16) is None
    else:
        native = cpu_has_bfloat16()
    return torch.bfloat16 if native else torch.float32


def cpu_has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 matrix products, and PyTorch uses them."""
    if not torch.backends.mkldnn.is_available():
        return False
    capabilities = _cpu_capabilities()
    x86 = ("avx512_bf16", "amx_bf16")
    arm = ("bf16", "sve_bf16") if sys.platform == "linux" else ()
    return any(capabilities.get(key) for key in (*x86, *arm))


def set_threads(most: int = 8) -> int:
    """Sets the number of PyTorch threads to the physical cores this process may use, at most `most`, and returns it.

    The variable GESSO_THREADS overrides it; if OMP_NUM_THREADS is set, PyTorch's own choice is kept.
    """
    setting = os.environ.get("GESSO_THREADS", "").strip()
    if setting and not (setting.isascii() and setting.isdigit() and int(setting) > 0):
        raise UsageError(f"GESSO_THREADS is {setting!r}; set it to a whole number from 1, or unset it.")
    if setting:
        torch.set_num_threads(int(setting))
    elif not threads_are_given():
        torch.set_num_threads(max(1, min(usable_cores(), most)))
    return torch.get_num_threads()


def threads_are_given() -> bool:
    """Whether the user has set the number of threads, not only a maximum."""
    return any(os.environ.get(name, "").strip() for name in ("GESSO_THREADS", "OMP_NUM_THREADS"))


def usable_cores() -> int:
    """Physical cores this process may run on, by affinity and by the container's share of CPU time; at least one."""
    return max(1, min(_physical_cores(), int(_cgroup_cores())))


def available_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on `device`, within the limits of containers."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    system = min(_free_memory(), _cgroup_memory())
    if device.type == "mps":
        return min(system, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return system


def describe() -> dict[str, Any]:
    """What a user needs to know about this machine; memory in bytes, `trouble` says why a GPU cannot be used."""
    device = choose_device("auto")
    return {
        "cpu": cpu_name(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "logical_cores": _affinity(),
        "usable_cores": usable_cores(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": cpu_has_bfloat16(),
        "memory_total": _total_memory(),
        "memory_available": available_memory(torch.device("cpu")),
        "gpus": _describe_gpus(),
        "driver": nvidia_driver(),
        "no_cuda": cuda if isinstance(cuda := _cuda(0), str) else None,
        "mps": isinstance(_mps(), torch.device),
        "torch": torch.__version__,
        "device": str(device),
        "dtype": str(choose_dtype(device)).removeprefix("torch."),
    }


def nvidia_driver() -> str | None:
    """The version of NVIDIA's driver on Linux; None if there is none."""
    match = re.search(r"Kernel Module\D*([\d.]+)", _text("proc/driver/nvidia/version"))
    return match[1] if match else None


def _cuda(index: int) -> torch.device | str:
    """The device, or why there is none."""
    if not torch.backends.cuda.is_built():
        return "this PyTorch was built without CUDA"
    if not torch.cuda.is_available() and (driver := nvidia_driver()):
        return (
            f"the NVIDIA driver {driver} does not support this PyTorch, which needs CUDA {torch.version.cuda}; "
            "update the driver, or install a PyTorch for its CUDA version"
        )
    if not torch.cuda.is_available():
        return "no CUDA driver or GPU was found"
    if index >= torch.cuda.device_count():
        return f"there are only {torch.cuda.device_count()} CUDA devices, counted from 0"
    device = torch.device("cuda", index)
    return _works(device, torch.float32) or device


def _mps() -> torch.device | str:
    if not torch.backends.mps.is_available():
        return "PyTorch finds no Metal GPU here"
    device = torch.device("mps")
    return _works(device, torch.float32) or device


def _works(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a small product on `device` fails (an old driver, an unsupported GPU); None if it works."""
    try:
        ones = torch.ones(2, 2, device=device, dtype=dtype)
        (ones @ ones).sum().item()
    except (RuntimeError, TypeError, AssertionError) as error:
        return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    return None


def _describe_gpus() -> list[dict[str, Any]]:
    gpus = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        device = _cuda(index)
        gpus.append(
            {
                "name": properties.name,
                "compute_capability": f"{properties.major}.{properties.minor}",
                "memory_total": properties.total_memory,
                "memory_available": available_memory(device) if isinstance(device, torch.device) else 0,
                "trouble": device if isinstance(device, str) else None,
                "no_kernels": unavailable_reason((properties.major, properties.minor)),
            }
        )
    return gpus


def _cpu_capabilities() -> dict[str, Any]:
    try:
        return dict(torch.cpu.get_capabilities())
    except (AttributeError, RuntimeError):
        flags = set(_text("proc/cpuinfo").split())
        return {key: key in flags for key in ("avx512_bf16", "amx_bf16", "bf16")}


def cpu_name() -> str:
    match = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", _text("proc/cpuinfo"), re.MULTILINE)
    name = match[1] if match else _sysctl("machdep.cpu.brand_string")
    return (name or platform.processor() or platform.machine()).strip()


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _physical_cores() -> int:
    """Hyper-threads of one core count once; on macOS only the performance cores count."""
    if not hasattr(os, "sched_getaffinity"):
        fast = _sysctl("hw.perflevel0.physicalcpu") or _sysctl("hw.physicalcpu")
        return int(fast) if fast.isdigit() else _affinity()
    cores = os.sched_getaffinity(0)
    siblings = {_text(f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list") for core in cores}
    return len(cores) if "" in siblings else len(siblings)


def _cgroup_cores() -> float:
    """The container's share of CPU time in cores; half a core or more counts as one."""
    shares = [float(_affinity())]
    for group in _cgroups("cpu"):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        if not period:
            quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            shares.append(int(quota) / int(period) + 0.5)
    return min(shares)


def _cgroup_memory() -> int:
    """What the tightest container around this process leaves; file pages that it can drop count as free."""
    free = UNKNOWN_MEMORY
    for group in _cgroups("memory"):
        limit = _text(group / "memory.max") or _text(group / "memory.limit_in_bytes")
        used = _text(group / "memory.current") or _text(group / "memory.usage_in_bytes")
        if limit.isdigit() and used.isdigit():
            pages = re.findall(r"^(?:total_)?inactive_file (\d+)$", _text(group / "memory.stat"), re.MULTILINE)
            free = min(free, int(limit) - int(used) + max(map(int, pages), default=0))
    return max(0, free)


def _cgroups(controller: str) -> Iterator[Path]:
    """Folders under the root, innermost first, that may hold this process's limits for `controller`."""
    for line in _text("proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        mounts = [controllers] if controllers else ["", "unified"]
        inner = Path(path.lstrip("/"))
        for mount in mounts:
            for folder in (inner, *inner.parents):
                yield Path("sys/fs/cgroup") / mount / folder


def _free_memory() -> int:
    if match := re.search(r"^MemAvailable:\s+(\d+) kB", _text("proc/meminfo"), re.MULTILINE):
        return int(match[1]) * 1024
    report = _output("vm_stat")
    size = re.search(r"page size of (\d+) bytes", report)
    pages = re.findall(r"^Pages (?:free|inactive|speculative|purgeable):\s+(\d+)\.", report, re.MULTILINE)
    return int(size[1]) * sum(map(int, pages)) if size and pages else UNKNOWN_MEMORY


def _total_memory() -> int:
    if match := re.search(r"^MemTotal:\s+(\d+) kB", _text("proc/meminfo"), re.MULTILINE):
        return int(match[1]) * 1024
    total = _sysctl("hw.memsize")
    return int(total) if total.isdigit() else UNKNOWN_MEMORY


def _text(path: str | Path) -> str:
    """Content of a file of the operating system, named from its root; empty if there is none."""
    try:
        return (ROOT / path).read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _sysctl(name: str) -> str:
    return _output("sysctl", "-n", name)


def _output(*command: str) -> str:
    """What a command of macOS prints; empty elsewhere."""
    if sys.platform != "darwin":
        return ""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
