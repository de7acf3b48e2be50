from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
import torch

from guided.core.device import Device
from guided.worlds.portraits.benchmarks import _machine
from guided.worlds.portraits.tools import tool_names

PACKAGE = "guided.worlds.portraits.benchmarks"
NAMES = tool_names("benchmarks")


def test_there_are_benchmarks() -> None:
    assert {"caption", "diffusion", "edit", "embed", "search", "text_gan"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_device_that_is_not_there_is_told_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--device", "cuda:99"])
    with pytest.raises(SystemExit) as ended:
        import_module(f"{PACKAGE}.{name}").main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.err.startswith(
        f"scripts/bench {name}: There is no device 'cuda:99' here; there are: "
    )
    assert said.err.count("\n") == 1
    assert not said.out


def test_the_clock_waits_for_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", seen.append)
    for name in ("cuda:0", "mps"):
        seen.clear()
        seconds, result = _machine.once(lambda: seen.append("work") or "done", Device(name))
        where = torch.device(name)
        assert seen == [where, "work", where]
        assert (result, _machine.unit(Device(name))) == ("done", "s")
        assert 0 < seconds < 1
    seen.clear()
    _machine.once(lambda: None, Device())
    assert not seen
    assert _machine.unit(Device(), "ms") == "CPU ms"


def test_the_least_of_some_runs_comes_with_the_last_result() -> None:
    runs = iter(range(9))
    seconds, last = _machine.timed(lambda: next(runs), Device(), repeats=4)
    assert last == 4
    assert 0 <= seconds < 1


def test_memory_is_what_a_call_takes() -> None:
    assert 4 <= _machine.tensors_peak(lambda: torch.ones(2**20), Device()) < 5


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self")
def test_memory_of_a_process_is_what_a_call_takes() -> None:
    """In a fresh process: in an old one the call may get pages that are resident already."""
    script = (
        "import torch\n"
        "from guided.worlds.portraits.benchmarks import _machine\n"
        "from guided.core.device import Device\n"
        "print(_machine.process_peak(lambda: torch.ones(2**24), Device()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert 60 < float(done.stdout) < 90


def test_the_machine_and_the_commit_are_named() -> None:
    about = _machine.about(Device())
    assert list(about) == ["machine", "device", "commit"]
    assert about["device"] == "cpu"
    assert "thread" in about["machine"]
    assert about["commit"]
