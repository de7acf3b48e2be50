"""Every verb runs on an accelerator: nothing stays behind, and the numbers are the CPU's."""

from __future__ import annotations

import pytest

from guided.tasks import task_modules
from tests.accelerator.tiny_runs import LONGER, RUNS, TinyRuns


def test_every_verb_of_the_toolkit_has_a_run() -> None:
    verbs = {name for name, module in task_modules().items() if module.startswith("guided.tasks.")}
    assert len(verbs) > 5
    assert verbs <= {table["task"] for table in RUNS.values()}


@pytest.mark.parametrize("name", RUNS)
def test_a_verb_runs_on_the_device_with_the_cpu_s_numbers(name: str, tiny: TinyRuns) -> None:
    assert not tiny.faults(name)


@pytest.mark.soak
@pytest.mark.parametrize("name", LONGER)
def test_further_ways_run_on_the_device_with_the_cpu_s_numbers(name: str, tiny: TinyRuns) -> None:
    assert not tiny.faults(name)
