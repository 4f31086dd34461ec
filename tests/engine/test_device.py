"""Choice of device, number type and threads on simulated machines."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from engine import device as devices
from engine.device import (
    available_memory,
    choose_device,
    choose_dtype,
    cpu_has_bfloat16,
    describe,
    set_threads,
    usable_cores,
)
from engine.errors import ModelError, UsageError

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
MPS = torch.device("mps")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a Linux system with 16 hyper-threads on 8 cores, 8 GiB of free memory, and no container."""
    for core in range(16):
        write(
            tmp_path / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list",
            f"{core % 8},{core % 8 + 8}",
        )
    write(tmp_path / "proc/meminfo", "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB")
    write(tmp_path / "proc/self/cgroup", "0::/")
    write(tmp_path / "proc/cpuinfo", "processor : 0\nmodel name\t: Pretended CPU\nflags : fpu avx2")
    monkeypatch.setattr(devices, "ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(devices.sys, "platform", "linux")
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch):
    """Sets the number of CUDA devices, whether there is MPS, and which devices fail when used."""

    def set_up(cuda: int = 0, mps: bool = False, broken: tuple[str, ...] = ()) -> None:
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(
            devices, "_works", lambda device, dtype: "no kernel image" if device.type in broken else None
        )

    return set_up


def test_auto_takes_the_best_that_works(pretend) -> None:
    pretend()
    assert choose_device("auto") == CPU
    pretend(mps=True)
    assert choose_device() == MPS
    pretend(cuda=2, mps=True)
    assert choose_device() == CUDA
    pretend(cuda=1, broken=("cuda",))
    assert choose_device() == CPU


def test_named_devices(pretend) -> None:
    pretend(cuda=2, mps=True)
    assert choose_device("cpu") == CPU
    assert choose_device("cuda") == CUDA
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("mps") == MPS


@pytest.mark.parametrize("name, reason", [("cuda", "without CUDA"), ("cuda:0", "without CUDA"), ("mps", "Metal")])
def test_absent_devices_are_refused_with_a_way_out(pretend, name: str, reason: str) -> None:
    pretend()
    with pytest.raises(ModelError, match=reason) as caught:
        choose_device(name)
    assert name in str(caught.value) and "gesso doctor" in str(caught.value)


def test_devices_that_fail_are_refused_when_named(pretend) -> None:
    pretend(cuda=2, mps=True, broken=("cuda", "mps"))
    for name in ("cuda", "cuda:1", "mps"):
        with pytest.raises(ModelError, match="no kernel image"):
            choose_device(name)
    pretend(cuda=2)
    with pytest.raises(ModelError, match="only 2 CUDA devices"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cuda:-1", "cuda:x", "CPU", "cuda:0\n"])
def test_unknown_device_names(name: str) -> None:
    with pytest.raises(UsageError, match="auto, cpu, cuda, cuda:N or mps"):
        choose_device(name)


def test_a_device_is_tried_before_it_is_believed() -> None:
    assert devices._works(CPU, torch.float32) is None
    assert devices._works(torch.device("meta"), torch.float32) is not None


@pytest.mark.parametrize("native", [True, False])
def test_number_type_on_gpus(monkeypatch: pytest.MonkeyPatch, pretend, native: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    pretend(mps=True, broken=() if native else ("mps",))
    expected = torch.bfloat16 if native else torch.float32
    assert choose_dtype(CUDA) == choose_dtype(MPS) == expected


@pytest.mark.parametrize(
    "capabilities, native",
    [
        ({"avx2": True}, False),
        ({"avx512_f": True, "avx512_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"bf16": True}, True),
    ],
)
def test_number_type_on_cpus(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], native: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert choose_dtype(CPU) == (torch.bfloat16 if native else torch.float32)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert choose_dtype(CPU) == torch.float32


def test_older_torch_falls_back_to_the_systems_report(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert not cpu_has_bfloat16()
    write(machine / "proc/cpuinfo", "flags : fpu avx512_bf16 avx2")
    assert cpu_has_bfloat16()


def test_named_number_types() -> None:
    assert choose_dtype(CPU, "float32") == choose_dtype(CPU, "fp32") == torch.float32
    assert choose_dtype(CPU, "bfloat16") == choose_dtype(CPU, "bf16") == torch.bfloat16
    with pytest.raises(UsageError, match="float16"):
        choose_dtype(CPU, "float16")


def test_hyper_threads_count_once(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores() == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 8})
    assert usable_cores() == 2


@pytest.mark.parametrize(
    "quota, cores", [("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("max 100000", 8)]
)
def test_cores_in_a_container(machine: Path, quota: str, cores: int) -> None:
    write(machine / "proc/self/cgroup", "0::/user/box")
    write(machine / "sys/fs/cgroup/user/cpu.max", quota)
    write(machine / "sys/fs/cgroup/user/box/cpu.max", "max 100000")
    assert usable_cores() == cores


def test_cores_in_a_container_of_the_first_kind(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "5:cpu,cpuacct:/not/mounted/here\n4:memory:/x\n0::/")
    write(machine / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "300000")
    write(machine / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000")
    assert usable_cores() == 3
    write(machine / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1")
    assert usable_cores() == 8


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of threads that PyTorch was set to, the current one last."""
    counts = [5]
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: counts[-1])
    monkeypatch.delenv("GESSO_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return counts


def test_threads(machine: Path, monkeypatch: pytest.MonkeyPatch, threads: list[int]) -> None:
    assert set_threads() == 8
    assert set_threads(most=3) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert set_threads(most=2) == 3 and threads == [5, 8, 3]
    monkeypatch.setenv("GESSO_THREADS", "12")
    assert set_threads() == 12


@pytest.mark.parametrize("value", ["0", "many", "-2", "1.5"])
def test_bad_threads_setting(monkeypatch: pytest.MonkeyPatch, threads: list[int], value: str) -> None:
    monkeypatch.setenv("GESSO_THREADS", value)
    with pytest.raises(UsageError, match="GESSO_THREADS"):
        set_threads()
    assert threads == [5]


def test_free_memory(machine: Path) -> None:
    assert available_memory(CPU) == 8 * 2**30


@pytest.mark.parametrize(
    "cgroup, folder, names",
    [
        ("0::/user/box", "user/box", ("memory.max", "memory.current", "inactive_file")),
        (
            "9:memory:/box",
            "memory/box",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_free_memory_in_a_container(machine: Path, cgroup: str, folder: str, names: tuple[str, str, str]) -> None:
    limit, used, droppable = names
    place = machine / "sys/fs/cgroup" / folder
    write(machine / "proc/self/cgroup", cgroup)
    write(place / limit, str(3 * 2**30))
    write(place / used, str(2 * 2**30))
    write(place / "memory.stat", f"{droppable} {2**29}")
    assert available_memory(CPU) == 2**30 + 2**29
    write(place / used, str(4 * 2**30))
    assert available_memory(CPU) == 0


def test_free_memory_unknown_refuses_nothing(machine: Path) -> None:
    (machine / "proc/meminfo").unlink()
    assert available_memory(CPU) == devices.UNKNOWN_MEMORY


def test_free_memory_of_gpus(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    assert available_memory(CUDA) == 1200
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 5000)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 1000)
    assert available_memory(MPS) == 4000


def test_macos_reports_through_its_own_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        ("vm_stat",): "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:           1000.\nPages active: 5.\nPages inactive:  2000.\nPages speculative: 30.",
        ("sysctl", "-n", "hw.perflevel0.physicalcpu"): "6",
        ("sysctl", "-n", "hw.memsize"): "17179869184",
        ("sysctl", "-n", "machdep.cpu.brand_string"): "Apple M4",
    }
    monkeypatch.setattr(devices, "ROOT", tmp_path)
    monkeypatch.setattr(devices, "_output", lambda *command: answers.get(command, ""))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert available_memory(CPU) == 3030 * 16384
    assert usable_cores() == 6
    assert devices.cpu_name() == "Apple M4" and devices._total_memory() == 2**34


def test_description(machine: Path, pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend()
    report = describe()
    json.dumps(report)
    assert report["cpu"] == "Pretended CPU" and report["usable_cores"] == 8 and report["logical_cores"] == 16
    assert report["memory_total"] == 2**34 and report["memory_available"] == 2**33
    assert report["torch"] == torch.__version__ and report["gpus"] == [] and report["device"] == "cpu"


def test_description_of_gpus(machine: Path, pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        name, major, minor, total_memory = "Pretended GPU", 9, 0, 2**36

    pretend(cuda=1, broken=("cuda",))
    monkeypatch.setenv("GESSO_KERNELS", "off")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    assert describe()["gpus"] == [
        {
            "name": "Pretended GPU",
            "compute_capability": "9.0",
            "memory_total": 2**36,
            "memory_available": 0,
            "trouble": "no kernel image",
            "no_kernels": "GESSO_KERNELS is off",
        }
    ]


def test_a_driver_that_does_not_fit_is_named(machine: Path, pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend()
    assert devices.nvidia_driver() is None and describe()["driver"] is None
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    assert devices.describe()["no_cuda"] == "no CUDA driver or GPU was found"
    write(
        machine / "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.82.01  Wed Oct 27\nGCC version: 12",
    )
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = str(devices.describe()["no_cuda"])
    assert "driver 470.82.01" in found and "CUDA 13.0" in found and "update the driver" in found
    with pytest.raises(ModelError, match="470.82.01"):
        devices.choose_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_gpu() -> None:
    assert choose_device().type == "cuda"
    assert 0 < available_memory(choose_device()) <= torch.cuda.get_device_properties(0).total_memory
    assert describe()["gpus"][0]["trouble"] is None
