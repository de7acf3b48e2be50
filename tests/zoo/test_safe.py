"""load_tensors: what loads, what does not, and what a damaged file says."""

from __future__ import annotations

import json
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from guided.errors import CorruptWeights, GuidedError, MissingWeights, UnsafeWeights
from guided.zoo.cards import Card
from guided.zoo.checksums import fresh_digest, verify
from guided.zoo.headers import read_header
from guided.zoo.safe import flatten, load_tensors


def tensors() -> dict[str, torch.Tensor]:
    """A few tensors of several types, one empty and one scalar."""
    numbers = torch.Generator().manual_seed(3)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=numbers).half(),
        "conv.bias": torch.randn(4, generator=numbers),
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "none": torch.zeros(0, 5),
        "rough": torch.randn(2, 2, generator=numbers).bfloat16(),
    }


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return set(found) == set(wanted) and all(
        torch.equal(found[key], wanted[key]) and found[key].dtype == wanted[key].dtype
        for key in wanted
    )


def test_safetensors_come_as_stored(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(save(tensors(), {"recipe": "x"}))
    assert same(load_tensors(file), tensors())
    table, metadata = read_header(file)
    assert metadata == {"recipe": "x"}
    assert table["conv.weight"]["shape"] == [4, 3, 3, 3]


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
@pytest.mark.parametrize("zipped", ["archive", "legacy"])
def test_torch_files_come_flat(tmp_path: Path, suffix: str, zipped: str) -> None:
    file = tmp_path / f"a{suffix}"
    weight = torch.nn.Parameter(torch.ones(2, 3))
    content = {
        "state_dict": OrderedDict({"fc.weight": weight, "fc.bias": torch.zeros(2)}),
        "latent_avg": torch.arange(3.0),
        "noises": [torch.ones(1), torch.ones(2)],
        "opts": {"size": 8, "name": "x"},
        "step": 5,
    }
    torch.save(content, file, _use_new_zipfile_serialization=zipped == "archive")
    loaded = load_tensors(file)
    assert sorted(loaded) == [
        "latent_avg", "noises.0", "noises.1", "state_dict.fc.bias", "state_dict.fc.weight",
    ]  # fmt: skip
    assert type(loaded["state_dict.fc.weight"]) is torch.Tensor
    assert not loaded["state_dict.fc.weight"].requires_grad


def test_a_missing_file_and_an_unknown_ending(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match=r"There is no weight file .*none\.pt"):
        load_tensors(tmp_path / "none.pt")
    file = tmp_path / "model.h5"
    file.write_bytes(b"x")
    with pytest.raises(CorruptWeights, match=r"ending '\.h5'.*Known: \.safetensors, \.bin"):
        load_tensors(file)
    file = tmp_path / "net.pkl"
    file.write_bytes(b"x")
    with pytest.raises(UnsafeWeights, match="is a bare pickle, which can run code"):
        load_tensors(file)


def test_files_without_tensors_and_odd_tensors(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    torch.save({"a": 1}, file)
    with pytest.raises(CorruptWeights, match="holds no tensor"):
        load_tensors(file)
    torch.save({"wide": torch.zeros(1).expand(1 << 40)}, file)
    with pytest.raises(CorruptWeights, match="more elements than are stored: 1099511627776 from 4"):
        load_tensors(file)
    wide = {"wide": torch.zeros(1).expand(1 << 40)}
    with pytest.raises(CorruptWeights, match=r"'wide'.*claims 1099511627776 elements, but only 4"):
        flatten(wide, "x")
    torch.save({"sparse": torch.eye(3).to_sparse()}, file)
    with pytest.raises(CorruptWeights, match=r"'sparse'.*sparse, quantised or has no data"):
        load_tensors(file)
    with pytest.raises(CorruptWeights, match=r"two tensors called 'a\.b'"):
        flatten({"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)}, "x")
    deep: Any = torch.ones(1)
    for _ in range(40):
        deep = [deep]
    with pytest.raises(CorruptWeights, match="nests its tables deeper than 32"):
        flatten(deep, "x")


def built(table: object, data: bytes = b"") -> bytes:
    raw = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(shape: object, start: object, end: object, kind: object = "F32") -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "header length is wrong"),
        (b"\x08\0\0\0\0\0\0\0", "header length is wrong"),
        (struct.pack("<Q", 1 << 62) + b"{}", "header length is wrong"),
        (built(b"[]"), "not a table"),
        (built(b"{]"), "not valid JSON"),
        (built(b"\xff\xfe"), "not valid JSON"),
        (built(b"[" * 100000), "not valid JSON"),
        (built(b'{"a":1,"a":2}'), "a name comes twice"),
        (built({"a": 5}), "'a' is malformed"),
        (built({"a": {"dtype": "F32", "shape": [1]}}), "'a' is malformed"),
        (built({"a": entry([1], 0, 4, "F99")}, bytes(4)), "unknown element type 'F99'"),
        (built({"a": entry([1], 0, 4, 7)}, bytes(4)), "unknown element type '7'"),
        (built({"a": entry([-1], 0, 4)}, bytes(4)), "not a list of whole numbers"),
        (built({"a": entry([1.0], 0, 4)}, bytes(4)), "not a list of whole numbers"),
        (built({"a": entry([True], 0, 4)}, bytes(4)), "not a list of whole numbers"),
        (built({"a": entry([1 << 60], 0, 4)}, bytes(4)), "not a list of whole numbers"),
        (built({"a": entry([1] * 40, 0, 4)}, bytes(4)), "is impossible"),
        (built({"a": entry([1], 4, 0)}, bytes(4)), "is impossible"),
        (built({"a": entry([3], 0, 4)}, bytes(4)), "another size than its shape"),
        (built({"a": entry([1], 0, 4), "b": entry([1], 2, 6)}, bytes(6)), "overlap others"),
        (built({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4)), "overlap others"),
        (built({"a": entry([1], 4, 8)}, bytes(8)), "leave a gap"),
        (built({"a": entry([1], 0, 4)}, bytes(9)), "take 4 bytes, but 9 follow"),
        (built({"a": entry([2], 0, 8)}, bytes(4)), "take 8 bytes, but 4 follow"),
        (built({"__metadata__": {"a": 1}}), "not a table of texts"),
        (built({"__metadata__": []}), "not a table of texts"),
        (built({f"t{i}": entry([0], 0, 0) for i in range(20001)}), "more than 20000"),
        (built(b" " * (17 << 20)), "more than 16777216"),
    ],
)
def test_crafted_headers_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "bad.safetensors"
    file.write_bytes(content)
    with pytest.raises(CorruptWeights, match=said) as caught:
        load_tensors(file)
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 400


def damage(folder: Path, count: int, seed: int) -> dict[str, int]:
    """Mutate a weight file ``count`` times: the card must refuse each, the loaders may.

    A flipped number is still a sound file, so only the sha256 can see it; whatever the loaders
    refuse they must refuse with an error of ours.
    """
    seen = {"card": 0, "structure": 0}
    originals = []
    for name in ("a.safetensors", "b.pt", "c.pth"):
        file = folder / name
        if file.suffix == ".safetensors":
            file.write_bytes(save(tensors()))
        else:
            torch.save(tensors(), file, _use_new_zipfile_serialization=file.suffix == ".pt")
        size, digest = file.stat().st_size, fresh_digest(file)
        card = Card(
            name="x", role="own", kind="weights", file=name, origin="added", licence="none",
            sha256=digest, size=size,
        )  # fmt: skip
        verify(folder, card)
        originals.append((file, file.read_bytes(), card))
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        file, data, card = originals[number % len(originals)]
        wounded = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(len(wounded)))
            match int(rng.integers(5)):
                case 0 | 1:
                    wounded[at] ^= 1 << int(rng.integers(8))
                case 2:
                    del wounded[at : at + int(rng.integers(1, 9))]
                case 3:
                    wounded[at:at] = rng.bytes(int(rng.integers(1, 9)))
                case _:
                    del wounded[max(at, 1) :]
        if wounded == data:
            wounded += b"\0"
        file.write_bytes(wounded)
        try:
            verify(folder, card)
        except CorruptWeights:
            seen["card"] += 1
        try:
            load_tensors(file)
        except GuidedError:
            seen["structure"] += 1
    return seen


def test_damaged_files_are_refused_quick(tmp_path: Path) -> None:
    seen = damage(tmp_path, 300, seed=1)
    assert seen["card"] == 300
    assert seen["structure"] > 100


@pytest.mark.soak
def test_damaged_files_are_refused_soak(tmp_path: Path) -> None:
    seen = damage(tmp_path, 2000, seed=2)
    assert seen["card"] == 2000
    assert seen["structure"] > 700
