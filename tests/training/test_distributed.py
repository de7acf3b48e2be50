from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from guided.core import device as policy
from guided.errors import CannotDo
from guided.models.loading import placed
from guided.training import checkpoint, distributed
from guided.training.distributed_muon import partition
from tests.helpers import tiny_training as tiny


def two_processes(script: Path) -> None:
    """Run a script in two processes that know of each other, as ``torchrun`` starts them."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
         "--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", str(script)],
        capture_output=True, text=True, env=environment, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


#: Becomes two processes once all is imported; the second one's failure is the whole's.
FORK = """
import os, sys, torch
from torch import _dynamo  # which a model shared by processes imports
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
from tests.helpers import tiny_training as tiny
from pathlib import Path
other = os.fork()
os.environ["RANK"] = os.environ["LOCAL_RANK"] = "0" if other else "1"
try:
    tiny.run(tiny.recipe(Path(sys.argv[2]), settings={"plain": True}, samples=160, processes=2))
finally:
    if other:
        assert os.waitpid(other, 0)[1] == 0
"""


def test_as_many_processes_as_asked_for_must_run(tmp_path: Path) -> None:
    with pytest.raises(CannotDo, match=r"asks for 2 processes and 1 are running.*torchrun"):
        tiny.run(tiny.recipe(tmp_path, processes=2))


def test_one_process_trains_on_the_device_that_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(policy, "available", lambda: ["cuda", "cuda:0", "cuda:1", "cpu"])
    for name in ("cuda:1", "cpu", "cuda"):  # in one interpreter
        assert distributed.DistributedGroup(1, name).device == torch.device(name)


def test_two_processes_equal_one_with_the_same_whole_batch(tmp_path: Path) -> None:
    table = tiny.recipe(tmp_path / "one", settings={"plain": True}, samples=160)
    _, one = tiny.run(table)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    known = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(Path(__file__).parents[2]), str(tmp_path / "two")],
        env={**os.environ, **known, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120, check=False,
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


@pytest.mark.soak
def test_two_processes_share_the_work_of_muon_and_come_to_its_very_numbers(tmp_path: Path) -> None:
    script = tmp_path / "muon.py"
    script.write_text(
        "import sys, torch\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from guided.training import distributed_muon\n"
        "torch.distributed.init_process_group('gloo')\n"
        "distributed_muon.multiplies_bf16 = lambda device: True\n"
        "done, whole = [], distributed_muon.polar_factor\n"
        "def counted(update, *more):\n"
        "    done.append(tuple(update.shape))\n"
        "    return whole(update, *more)\n"
        "distributed_muon.polar_factor = counted\n"
        "stream = torch.Generator().manual_seed(0)\n"
        "shapes = [(8, 8), (4, 32), (32, 8), (8, 8), (5, 3)]\n"
        "drawn = [torch.randn(s, generator=stream) for s in shapes]\n"
        "own, other = ([torch.nn.Parameter(d.clone()) for d in drawn] for _ in range(2))\n"
        "muons = distributed_muon.DistributedMuon(own, lr=0.02), torch.optim.Muon(other, lr=0.02)\n"
        "for step in range(3):\n"
        "    for a, b, shape in zip(own, other, shapes):\n"
        "        skipped = step == 1 and shape == (5, 3)\n"
        "        a.grad = None if skipped else torch.randn(shape, generator=stream)\n"
        "        b.grad = None if skipped else a.grad.clone()\n"
        "    for muon in muons:\n"
        "        muon.step()\n"
        "    assert 0 < len(done) < sum(p.grad is not None for p in own), done\n"
        "    done.clear()\n"
        "    for a, b in zip(own, other):\n"
        "        assert torch.equal(a, b)\n"
        "        assert a.grad is b.grad is None or torch.equal(a.grad, b.grad)\n"
        "        one, two = (m.state[p]['momentum_buffer'] for m, p in zip(muons, (a, b)))\n"
        "        assert torch.equal(one, two)\n"
        "torch.distributed.destroy_process_group()\n"
    )
    two_processes(script)


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_work_is_shared_out_evenly(world: int) -> None:
    work = [7.0, 1.0, 3.0, 3.0, 9.0, 2.0, 2.0, 5.0]
    owners = partition(work, world)
    laden = [sum(w for w, o in zip(work, owners, strict=True) if o == p) for p in range(world)]
    assert sum(laden) == sum(work)
    assert max(laden) <= max(4 / 3 * sum(work) / world, *work)
    assert partition(work, world) == owners


def test_the_processor_of_several_processes_is_a_device_that_models_are_put_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Several:
        device, process_index, num_processes = torch.device("cpu:0"), 1, 2

    monkeypatch.setattr(distributed, "Accelerator", lambda **_: Several())
    monkeypatch.setattr(distributed.atexit, "register", lambda _: None)
    assert placed(distributed.DistributedGroup(2, "cpu").device, "fp32").torch == torch.device(
        "cpu"
    )
