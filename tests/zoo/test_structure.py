"""Budgets of weight files: small files that ask for much are refused before torch is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bombs import archives, pickles, refusals
from pickle_writer import Call, Net, Raw, dumps, tensor
from safetensors.torch import save

from guided.errors import CorruptWeights, UnsafeWeights
from guided.zoo import pickle_stubs, structure
from guided.zoo.arrays import read_array
from guided.zoo.nvidia import NvidiaRecord, load_nvidia_pickle
from guided.zoo.packing import load_weights, pack
from guided.zoo.pickle_machine import steps_for
from guided.zoo.safe import flatten, load_tensors


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


SCRIPT = """
import json, pathlib, resource, sys, time
from guided.errors import GuidedError
from guided.zoo.structure import check_structure
worst = {"cpu": ("", 0.0), "peak": ("", 0.0)}
passed, told = [], {}
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
base = peak()
for file in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    began = time.process_time()
    try:
        check_structure(file)
        passed.append(file.name)
    except GuidedError as error:
        text = str(error)
        told[file.name] = [type(error).__name__, len(text), error.hint, str(file) in text]
    worst["cpu"] = max(worst["cpu"], (file.name, time.process_time() - began), key=lambda x: x[1])
heavy = [name for name in ("torch", "numpy") if name in sys.modules]
print(json.dumps([passed, told, worst["cpu"], peak() - base, heavy]))
"""


def test_refusals_are_cheap_and_need_no_torch(tmp_path: Path) -> None:
    files = refusals()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=True
    )
    passed, told, slowest, memory, heavy = json.loads(done.stdout)
    assert passed == []
    assert set(told) == set(files)
    assert heavy == []
    assert slowest[1] < 1, slowest
    assert memory < 200
    for name, (kind, length, hint, named_file) in told.items():
        assert kind in ("CorruptWeights", "UnsafeWeights"), name
        assert length < 600, name
        assert hint, name
        assert named_file, name


def test_the_loaders_refuse_what_the_check_refuses(tmp_path: Path) -> None:
    for name, data in refusals().items():
        if "pushes" in name or "names" in name:
            continue  # these are the slow ones, and nothing of their own
        file = tmp_path / name
        file.write_bytes(data)
        load = {".pkl": load_nvidia_pickle, ".npy": read_array}.get(file.suffix, load_tensors)
        with pytest.raises((CorruptWeights, UnsafeWeights)):
            load(file)
        file.unlink()


@pytest.mark.parametrize(
    "words",
    [
        ("edit", "x.png", "--prompt", "y", "--generator", "evil.pt"),
        ("score", "x.png", "--text", "y", "--scorer", "local-dir:clip"),
        ("caption", "x.png", "--language", "local-dir:clip"),
        ("models", "add", "evil.pkl"),
        ("models", "add", "evil.pt"),
    ],
)
def test_a_verb_refuses_before_torch(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "evil.pt").write_bytes(archives()["a compressed table"])
    (tmp_path / "evil.pkl").write_bytes(pickles()["a key of 2 ** 60 parts"])
    (tmp_path / "x.png").write_bytes(b"")
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "open_clip_config.json").write_text("[" * 100_000)
    script = (
        "import sys\nfrom guided.cli import main\nsys.argv = ['guided', *sys.argv[1:]]\n"
        "try:\n    code = main()\nexcept SystemExit as end:\n    code = end.code\n"
        "print(code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, text=True,
        env={"PATH": "", "HOME": str(tmp_path), "GUIDED_MODELS": str(tmp_path / "models")},
        check=True,
    )  # fmt: skip
    assert done.stdout.split()[-2:] == ["1", "False"], done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "evil.p" in done.stderr or "open_clip_config.json" in done.stderr


def test_all_names_of_networks_have_a_stand_in() -> None:
    own = {("dnnlib.util", "EasyDict"), ("collections", "OrderedDict")}
    assert set(pickle_stubs.CONSTRUCTORS) | own == structure.NETWORK_NAMES
    assert set(pickle_stubs.DTYPES) == structure.DTYPE_NAMES


def test_budgets_leave_room_for_twenty_thousand_tensors() -> None:
    assert steps_for(130) < steps_for(6_000_000) <= steps_for(1 << 40)
    assert steps_for(20_000 * 300) >= 20_000 * 28


# ---------------------------------------------------------------- shared parts


def test_shared_tables_take_linear_time(tmp_path: Path) -> None:
    """2 ** 30 paths through lists and through modules, none of which holds a tensor."""
    pairs: object = [1]
    for _ in range(30):
        pairs = [pairs, pairs]
    assert list(flatten({"a": pairs, "w": torch.ones(1)}, "x")) == ["w"]
    record = NvidiaRecord("Leaf", {})
    for _ in range(60):
        record = NvidiaRecord("Node", {"_modules": {"a": record, "b": record}})
    assert record.tensors() == {}


def test_names_and_repeats_are_bounded() -> None:
    with pytest.raises(CorruptWeights, match="name is longer than 1000"):
        flatten({"a" * 1001: torch.ones(1)}, "x")
    pairs: object = torch.ones(1)
    for _ in range(20):
        pairs = [pairs, pairs]
    with pytest.raises(CorruptWeights, match="more than 20000 tensors"):
        flatten(pairs, "x")
    wide = [torch.ones(1), *([[]] * 1000)]
    with pytest.raises(CorruptWeights, match="repeats its tables"):
        flatten([wide] * 3000, "x")


def test_a_network_cannot_multiply_its_storages(tmp_path: Path) -> None:
    """Two hundred copies of a tensor of a megabyte in a file of one."""
    one = tensor(torch.zeros(1 << 18))
    storage_code = dumps(one.args[0])[2:-1] + b"q\x00"
    body = Raw(storage_code + b"0")
    again = Call(one.module, one.name, (Raw(b"h\x00"), *one.args[1:]))
    copies = {f"t{i}": again for i in range(200)}
    file = tmp_path / "a.pkl"
    data = dumps({"x": 1, **copies})
    file.write_bytes(data[:2] + body.code + data[2:])
    with pytest.raises(CorruptWeights, match="more elements than are stored"):
        load_nvidia_pickle(file)
    few = dumps({"x": 1, **{f"t{i}": again for i in range(20)}})
    file.write_bytes(few[:2] + body.code + few[2:])
    assert len(load_nvidia_pickle(file)) == 21


def test_packed_weights_cannot_claim_more_than_their_file(tmp_path: Path) -> None:
    packed = pack({"w": numbers(8, 8)}, smallest=1)
    bomb = {"w::int8": torch.zeros(1, 1, dtype=torch.int8).expand(1 << 15, 1 << 15),
            "w::scale": torch.ones(1).expand(1 << 15)}  # fmt: skip
    file = tmp_path / "a.pt"
    torch.save(bomb, file)
    with pytest.raises(CorruptWeights, match="more elements than are stored"):
        load_weights(file)
    torch.save(packed, file)
    assert load_weights(file)["w"].shape == (8, 8)


# ---------------------------------------------------------------- mutations

FUZZ = """
import pathlib, resource, sys
import numpy as np
from guided.errors import GuidedError
from guided.zoo.arrays import read_array
from guided.zoo.nvidia import load_nvidia_pickle
from guided.zoo.safe import load_tensors
count, seed, folder = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + (600 << 20),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (60 + count // 10,) * 2)
files = [(f, f.read_bytes()) for f in sorted(folder.iterdir())]
for number in range(count):
    rng = np.random.default_rng((seed, number))
    file, data = files[number % len(files)]
    wounded = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(wounded)))
        kind = int(rng.integers(6))
        if kind < 2:
            wounded[at] = int(rng.integers(256))
        elif kind == 2:
            wounded[at : at + 4] = b"\\xff\\xff\\xff\\x7f"
        elif kind == 3:
            wounded[at:at] = wounded[at : at + int(rng.integers(1, 40))] * int(rng.integers(1, 50))
        elif kind == 4:
            wounded[at:at] = bytes(rng.choice(list(b"2\\x85\\x86\\x94()]}Rbst0h\\x8f"), 30))
        else:
            del wounded[at : at + int(rng.integers(1, 9))]
    target = folder.parent / f"wounded{file.suffix}"
    target.write_bytes(wounded)
    try:
        if file.suffix == ".npy":
            read_array(target)
        elif file.suffix == ".pkl":
            load_nvidia_pickle(target)
        else:
            load_tensors(target)
    except GuidedError as error:
        assert len(str(error)) < 700, str(error)
print("done")
"""


def mutate(tmp_path: Path, count: int, seed: int) -> None:
    folder = tmp_path / "sound"
    folder.mkdir()
    state = {"a": numbers(4, 3), "b": {"c": numbers(2).half()}, "n": 3}
    torch.save(state, folder / "a.pt")
    torch.save(state, folder / "b.pth", _use_new_zipfile_serialization=False)
    net = Net("Generator", {"w": numbers(3, 3)}, attributes={"grid": np.arange(6)})
    (folder / "c.pkl").write_bytes(dumps({"G_ema": net.call()}))
    np.save(folder / "d.npy", np.arange(12.0).reshape(3, 4))
    (folder / "e.safetensors").write_bytes(save({"a": numbers(4, 3), "b": numbers(2).half()}))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FUZZ, str(count), str(seed), str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "done\n", done.stderr[-2000:]


@pytest.mark.skipif(sys.platform != "linux", reason="the memory in use is read from /proc")
def test_mutated_weights_end_in_our_errors_quick(tmp_path: Path) -> None:
    mutate(tmp_path, 150, seed=5)


@pytest.mark.soak
def test_mutated_weights_end_in_our_errors_soak(tmp_path: Path) -> None:
    mutate(tmp_path, 20_000, seed=6)
