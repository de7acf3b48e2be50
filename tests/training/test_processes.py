from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from guided.errors import CannotDo
from guided.training import checkpoint, processes
from guided.training.frozen import placed
from tests.training import tiny


def test_as_many_processes_as_asked_for_must_run(tmp_path: Path) -> None:
    with pytest.raises(CannotDo, match=r"asks for 2 processes and 1 are running.*torchrun"):
        tiny.run(tiny.recipe(tmp_path, processes=2))


def test_two_processes_equal_one_with_the_same_whole_batch(tmp_path: Path) -> None:
    table = tiny.recipe(tmp_path / "one", settings={"plain": True}, samples=160)
    _, one = tiny.run(table)
    script = tmp_path / "two.py"
    script.write_text(
        "import sys, torch\n"
        f"sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[2])!r}]\n"
        "torch.set_num_threads(1)\n"
        "import tiny\n"
        "from pathlib import Path\n"
        f"table = tiny.recipe(Path({str(tmp_path / 'two')!r}), settings={{'plain': True}},\n"
        "                    samples=160, processes=2)\n"
        "tiny.run(table)\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
         "--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", str(script)],
        capture_output=True, text=True, env=environment, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    two = checkpoint.read_newest(tmp_path / "two" / "tiny")
    single = checkpoint.read_newest(tmp_path / "one" / "tiny")
    assert two is not None
    assert single is not None
    assert two["step"] == single["step"] == 20
    for name, tensor in single["model"].items():
        assert torch.allclose(tensor, two["model"][name], atol=1e-5, rtol=1e-5), name
    assert one.answer["finished"]


def test_the_processor_of_several_processes_is_a_device_that_models_are_put_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Several:
        device, process_index, num_processes = torch.device("cpu:0"), 1, 2

    monkeypatch.setattr(processes, "Accelerator", lambda **_: Several())
    monkeypatch.setattr(processes.atexit, "register", lambda _: None)
    assert placed(processes.Team(2, "cpu").device, "fp32").torch == torch.device("cpu")
