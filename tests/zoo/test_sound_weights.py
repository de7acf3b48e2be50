"""What torch, numpy and Python 2 wrote goes on loading, whatever the budgets of weight files."""

from __future__ import annotations

import json
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bombs import START, items, named, older, view
from pickle_writer import Net, dumps

from guided.zoo import structure
from guided.zoo.arrays import read_array
from guided.zoo.nvidia import load_nvidia_pickle
from guided.zoo.safe import flatten, load_tensors


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


SOUND: dict[str, Callable[[], object]] = {
    "kinds": lambda: {
        str(kind): torch.ones(3, 2).to(kind)
        for kind in (
            *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64),
            *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
            *(torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16),
        )
    },
    "sharing a storage": lambda: (lambda t: {"a": t[:2], "b": t[1:], "c": t, "d": t.t()})(
        numbers(4, 3)
    ),
    "tied twelve times": lambda: (lambda t: {f"layer{i}.w": t for i in range(12)})(numbers(50, 50)),
    "expanded": lambda: {"row": numbers(1, 3).expand(1000, 3), "one": torch.zeros(1).expand(99)},
    "parameters": lambda: torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)
    ).state_dict(),
    "an optimiser": lambda: _trained(),
    "plain values": lambda: {
        "epoch": 3, "args": {"lr": 0.1, "names": ["a", None, True], (1, 2): {3, 4}}, "big": 2**70,
        "bytes": b"abc", "size": torch.Size([2, 3]), "device": torch.device("cpu"), "z": 1 + 2j,
        "kind": torch.float16, "w": numbers(2, 2), "text": "x" * 5000,
    },
    "empty": lambda: {"a": torch.zeros(0, 3), "b": torch.tensor(1.0)},
    "three thousand tensors": lambda: {f"l{i}.weight": torch.zeros(2, 2) for i in range(3000)},
}  # fmt: skip


def _trained() -> object:
    net = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return {"state_dict": net.state_dict(), "optimizer": optimiser.state_dict(), "step": 1}


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("name", sorted(SOUND))
def test_what_torch_saves_loads(name: str, archive: bool, tmp_path: Path) -> None:
    if not archive and name == "kinds":
        content = {
            k: v for k, v in SOUND[name]().items() if "float8" not in k and "uint16" not in k
        }
    else:
        content = SOUND[name]()
    file = tmp_path / "a.pt"
    torch.save(content, file, _use_new_zipfile_serialization=archive)
    expected = flatten(torch.load(file, weights_only=True), "x")
    loaded = load_tensors(file)
    assert loaded.keys() == expected.keys()
    assert all(loaded[k].dtype == expected[k].dtype for k in loaded)
    assert all(
        torch.equal(loaded[k].float(), expected[k].float())
        for k in loaded
        if not loaded[k].is_complex()
    )


def test_tables_as_python_2_pickled_them_load(tmp_path: Path) -> None:
    """``OrderedDict`` made of a list of pairs: published weights of 2017."""
    row = view(1, 1).replace(b"tQ", b"NtQ")  # that form has a place for a part of a storage
    pair = b"](U\x01a" + row + b"e"
    body = START + named("collections", "OrderedDict") + b"](" + pair + b"e\x85R."
    data = struct.pack("<q", 1) + struct.pack("<f", 2.5)
    file = tmp_path / "old.pth"
    file.write_bytes(older(body, b"](X\x01\0\0\x000e", data))
    assert load_tensors(file)["a"].tolist() == [2.5]


@pytest.mark.parametrize(
    "kind", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u4", ">f4", ">i2"]
)
def test_what_numpy_saves_loads(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    for array in (
        np.arange(24).reshape(2, 3, 4).astype(kind), np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array(3).astype(kind), np.zeros((0, 5), kind), np.arange(12).astype(kind)[::2],
    ):  # fmt: skip
        np.save(file, array)
        assert np.array_equal(read_array(file), array)
    with file.open("wb") as stream:
        np.lib.format.write_array(stream, np.arange(5.0), version=(2, 0))
    assert read_array(file).tolist() == [0, 1, 2, 3, 4]


def test_files_of_gigabytes_pass_by_their_headers(tmp_path: Path) -> None:
    """Sparse files: nothing but headers is on the disk, and nothing but headers is looked at."""
    count = 1 << 29
    head = json.dumps({"w": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}})
    file = tmp_path / "a.safetensors"
    file.write_bytes(struct.pack("<Q", len(head)) + head.encode())
    with file.open("r+b") as stream:
        stream.truncate(8 + len(head) + 4 * count)
    structure.check_structure(file)
    array = tmp_path / "a.npy"
    np.save(array, np.zeros(0, "<f4"))
    raw = array.read_bytes().replace(b"(0,), }" + b" " * 9, b"(536870912,), }"[:16].ljust(16))
    array.write_bytes(raw)
    with array.open("r+b") as stream:
        stream.truncate(len(raw) + 4 * count)
    structure.check_structure(array)
    old = tmp_path / "a.pt"
    body = items(view(count, count))
    old.write_bytes(older(body, b"](X\x01\0\0\x000e", struct.pack("<q", count)))
    with old.open("r+b") as stream:
        stream.truncate(old.stat().st_size + 4 * count)
    structure.check_structure(old)


def test_a_network_of_three_records_passes(tmp_path: Path) -> None:
    net = Net("Generator", {"w": numbers(3, 3)}, modules={"m": Net("M", {"b": numbers(2)})}).call()
    file = tmp_path / "a.pkl"
    file.write_bytes(dumps({"G": net, "D": net, "G_ema": net, "kwargs": OrderedDict(a=1)}))
    assert sorted(load_nvidia_pickle(file)["G_ema"].tensors()) == ["m.b", "w"]
