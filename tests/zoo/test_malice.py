"""Files that would run code are refused by every loader, and nothing in them is run."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from attacks import _legacy, attacks

from guided.errors import CorruptWeights, UnsafeWeights
from guided.zoo.safe import load_nvidia_pickle, load_tensors

NAMES = sorted(attacks(Path("canary")))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """The file no attack may make; what some attacks would load lies beside it."""
    place = tmp_path / "canary"
    script = f"__import__('pathlib').Path({str(place)!r}).touch()"
    place.with_suffix(".py").write_text(script)
    place.with_suffix(".pt").write_bytes(attacks(place)["builtins.exec"])
    return place


def archive(data: bytes, name: str = "archive/data.pkl") -> bytes:
    """The pickle as the object of a torch archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr(name, data)
        made.writestr("archive/version", "3\n")
        made.writestr("archive/byteorder", "little")
    return file.getvalue()


def test_there_are_enough_attacks_and_the_canary_sings(tmp_path: Path) -> None:
    """Without protection the first attack does run: the test below can fail."""
    canary = tmp_path / "canary"
    made = attacks(canary)
    assert len(made) >= 30
    pickle.loads(made["builtins.exec"])
    assert canary.exists()


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("name", NAMES)
def test_every_loader_refuses(name: str, protocol: int, canary: Path, tmp_path: Path) -> None:
    data = attacks(canary, protocol)[name]
    forms = {
        "bare.pt": data,
        "legacy.pth": _legacy(data),
        "archive.bin": archive(data),
        "archive.ckpt": archive(data, "data.pkl"),
        "disguised.safetensors": data,
    }
    for file, content in forms.items():
        path = tmp_path / file
        path.write_bytes(content)
        with pytest.raises((UnsafeWeights, CorruptWeights)) as caught:
            load_tensors(path)
        assert file in str(caught.value)
        assert "weights_only" not in str(caught.value), "torch's advice to load it anyway"
    network = tmp_path / "network.pkl"
    network.write_bytes(data)
    if name == "code after the end":
        assert load_nvidia_pickle(network) == {"a": 1}  # reading stops at the end
    else:
        with pytest.raises((UnsafeWeights, CorruptWeights)) as caught:
            load_nvidia_pickle(network)
        assert "network.pkl" in str(caught.value)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "torch.hub", "numpy f2py"])
def test_the_message_names_what_was_asked_for(name: str, canary: Path, tmp_path: Path) -> None:
    wanted = {"os.system": "os.system", "builtins.eval": r"(builtins\.)?eval"}.get(name, name[:5])
    for file, load in (("a.pt", load_tensors), ("a.pkl", load_nvidia_pickle)):
        (tmp_path / file).write_bytes(attacks(canary, 3)[name])
        with pytest.raises(UnsafeWeights, match=f"asks for {wanted}.*safetensors"):
            load(tmp_path / file)


def test_the_environment_cannot_turn_it_off(
    canary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    file = tmp_path / "a.pt"
    file.write_bytes(attacks(canary, 3)["builtins.exec"])
    with pytest.raises(UnsafeWeights):
        load_tensors(file)
    assert not canary.exists()


def test_an_entry_of_an_archive_cannot_be_swapped(canary: Path, tmp_path: Path) -> None:
    """Two entries of one name, and wrong check sums."""
    good, bad = io.BytesIO(), attacks(canary)["builtins.exec"]
    torch.save({"a": torch.ones(3)}, good)
    twice = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(good.getvalue())) as source,
        zipfile.ZipFile(twice, "w") as made,
    ):
        for entry in source.namelist():
            made.writestr(entry, source.read(entry))
        with pytest.warns(UserWarning, match="Duplicate name"):
            made.writestr(source.namelist()[0], bad)
    flipped = bytearray(archive(bad))
    at = flipped.index(b"PK\x03\x04") + 14
    flipped[at : at + 4] = b"\xff" * 4
    for i, content in enumerate((twice.getvalue(), bytes(flipped))):
        file = tmp_path / f"{i}.pt"
        file.write_bytes(content)
        with pytest.raises((UnsafeWeights, CorruptWeights)):
            load_tensors(file)
    assert not canary.exists()


def test_a_torchscript_archive_is_a_program(tmp_path: Path) -> None:
    file = tmp_path / "script.pt"
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("script/data.pkl", pickle.dumps({}))
        made.writestr("script/constants.pkl", pickle.dumps(()))
        made.writestr("script/version", "3\n")
    with pytest.raises(UnsafeWeights, match="is a TorchScript archive, which is a program"):
        load_tensors(file)
