"""What every benchmark needs of the machine: a device, clocks, memory, and its name."""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from guided.core.device import Device
from guided.errors import UsageError

ROOT = Path(__file__).resolve().parents[4]


def arguments(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Device]:
    """What the command line gives, ``--device`` included, and that device.

    A device that is not there ends the program: one line, status 2.
    """
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda|mps")
    given = parser.parse_args()
    try:
        return given, Device.pick(given.device)
    except UsageError as error:
        parser.exit(error.exit_status, f"{parser.prog}: {error.message}\n")


def on_cpu(device: Device) -> bool:
    """Whether time is that of the processor, and memory that of the process."""
    return device.torch.type == "cpu"


def clock(device: Device) -> float:
    """CPU seconds of this process; elsewhere seconds on the wall, once the device is done."""
    if on_cpu(device):
        return time.process_time()
    torch.accelerator.synchronize(device.torch)
    return time.perf_counter()


def unit(device: Device, name: str = "s") -> str:
    """What the clock counts in, for a table."""
    return f"CPU {name}" if on_cpu(device) else name


def once(work: Callable[[], Any], device: Device) -> tuple[float, Any]:
    """The seconds of one run, and its result."""
    begun = clock(device)
    result = work()
    return clock(device) - begun, result


def timed(work: Callable[[], Any], device: Device, repeats: int = 3) -> tuple[float, Any]:
    """The least seconds of some runs after a first one, and the last result.

    The least, so that other work on the machine counts little.
    """
    work()
    best, result = float("inf"), None
    for _ in range(repeats):
        seconds, result = once(work, device)
        best = min(best, seconds)
    return best, result


def tensors_peak(work: Callable[[], Any], device: Device) -> float:
    """MiB that tensors take at most during a call, beyond those that were there before."""
    if not on_cpu(device):
        return _allocated(work, device)
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most / 2**20


def process_peak(work: Callable[[], Any], device: Device) -> float:
    """MiB by which the resident memory of this process grows (Linux); elsewhere its tensors."""
    if not on_cpu(device):
        return _allocated(work, device)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = _resident("VmRSS")
    work()
    return _resident("VmHWM") - before


def _allocated(work: Callable[[], Any], device: Device) -> float:
    torch.accelerator.synchronize(device.torch)
    if device.torch.type == "mps":  # counts no peak, but returns nothing to the system unasked
        torch.mps.empty_cache()
        before = torch.mps.driver_allocated_memory()
        work()
        torch.mps.synchronize()
        return (torch.mps.driver_allocated_memory() - before) / 2**20
    torch.cuda.reset_peak_memory_stats(device.torch)
    before = torch.cuda.memory_allocated(device.torch)
    work()
    torch.cuda.synchronize(device.torch)
    return (torch.cuda.max_memory_allocated(device.torch) - before) / 2**20


def _resident(entry: str) -> float:
    """A figure of this process in MiB: VmRSS now, VmHWM at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(entry):
            return int(line.split()[1]) / 1024
    raise SystemExit("Memory figures need Linux's /proc/self/status.")


def about(device: Device) -> dict[str, str]:
    """What ran the benchmark: the machine, its device, and the commit."""
    return {"machine": _machine(device), "device": device.name, "commit": _commit()}


def headline(device: Device) -> str:
    """The same in one line."""
    return "; ".join(f"{key}: {value}" for key, value in about(device).items())


def _machine(device: Device) -> str:
    if device.torch.type == "cuda":
        return torch.cuda.get_device_name(device.torch)
    if device.torch.type == "mps":
        return torch.backends.mps.get_name()
    threads = torch.get_num_threads()
    kind = f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}"
    return f"{kind}, {threads} thread{'s' if threads > 1 else ''}"


def _processor() -> str:
    known = Path("/proc/cpuinfo")
    for line in known.read_text("utf-8").splitlines() if known.is_file() else ():
        if line.startswith("model name"):
            return f"{platform.machine()}, {line.partition(':')[2].strip()}"
    return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of this copy, "+" where files were changed since."""
    if not shutil.which("git"):
        return "unknown"
    found = []
    for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain"]):
        told = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        found.append(told.stdout.strip())
    return (found[0] or "unknown") + ("+" if found[1] else "")
