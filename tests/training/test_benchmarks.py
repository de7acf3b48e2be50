from __future__ import annotations

import os
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from guided.core.device import Device

FOLDER = Path(__file__).resolve().parents[2] / "scripts" / "benchmarks"
SCRIPTS = sorted(file.stem for file in FOLDER.glob("[!_]*.py"))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmarks' module, found as a script finds it."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return import_module("_machine")


def test_there_are_benchmarks() -> None:
    assert {"caption", "diffusion", "edit", "embed", "search", "text_gan"} <= set(SCRIPTS)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_device_that_is_not_there_is_told_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--device", "cuda:99"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.err.startswith(f"{name}.py: There is no device 'cuda:99' here; there are: ")
    assert said.err.count("\n") == 1
    assert not said.out


def test_the_clock_waits_for_an_accelerator(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", seen.append)
    for name in ("cuda:0", "mps"):
        seen.clear()
        seconds, result = machine.once(lambda: seen.append("work") or "done", Device(name))
        where = torch.device(name)
        assert seen == [where, "work", where]
        assert (result, machine.unit(Device(name))) == ("done", "s")
        assert 0 < seconds < 1
    seen.clear()
    machine.once(lambda: None, Device())
    assert not seen
    assert machine.unit(Device(), "ms") == "CPU ms"


def test_the_least_of_some_runs_comes_with_the_last_result(machine: Any) -> None:
    runs = iter(range(9))
    seconds, last = machine.timed(lambda: next(runs), Device(), repeats=4)
    assert last == 4
    assert 0 <= seconds < 1


def test_memory_is_what_a_call_takes(machine: Any) -> None:
    assert 4 <= machine.tensors_peak(lambda: torch.ones(2**20), Device()) < 5


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self")
def test_memory_of_a_process_is_what_a_call_takes() -> None:
    """In a fresh process: in an old one the call may get pages that are resident already."""
    script = (
        "import _machine, torch\n"
        "from guided.core.device import Device\n"
        "print(_machine.process_peak(lambda: torch.ones(2**24), Device()))\n"
    )
    paths = os.pathsep.join([str(FOLDER), str(FOLDER.parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert 60 < float(done.stdout) < 90


def test_the_machine_and_the_commit_are_named(machine: Any) -> None:
    about = machine.about(Device())
    assert list(about) == ["machine", "device", "commit"]
    assert about["device"] == "cpu"
    assert "thread" in about["machine"]
    assert about["commit"]
