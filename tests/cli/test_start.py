"""The command line starts quickly and loads nothing it does not need."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "pydantic", "transformers", "diffusers", "open_clip", "PIL", "rich")
LOUD = "import json, sys; print('\\n' + json.dumps([m for m in {heavy} if m in sys.modules]))"


def _loaded(words: list[str], heavy: tuple[str, ...] = HEAVY) -> list[str]:
    """Which heavy modules a command line has loaded when it is done."""
    code = f"from guided.cli import main; main({words!r}); {LOUD.format(heavy=heavy)}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _cpu_seconds() -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "guided", "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_takes_less_than_three_tenths_of_a_cpu_second() -> None:
    assert min(_cpu_seconds() for _ in range(3)) < 0.3


def test_help_loads_nothing_heavy() -> None:
    assert _loaded(["--help"]) == []


@pytest.mark.parametrize(
    "words",
    [
        ["list", "tasks"],
        ["list", "losses"],
        ["list", "recipes"],
        ["portraits", "--help"],
        ["portraits", "--count", "none"],
        ["portraits", "--print-recipe"],
        ["run", "no-such.toml"],
        ["run", "no-such.toml", "--set", "a"],
        ["no-such-verb"],
    ],
)
def test_no_torch_for_lists_helps_and_recipe_errors(words: list[str]) -> None:
    assert _loaded(words, ("torch", "transformers", "diffusers", "open_clip", "rich")) == []


def test_module_and_command_are_the_same(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "guided", "portraits", "--count", "1", "--out", tmp_path, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {"folder": str(tmp_path), "count": 1}
