"""What ``models add`` accepts the loaders accept, by path and by name, and the other way round."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from guided.core.device import Device
from guided.errors import GuidedError, UsageError
from guided.models.loading import load_directions, load_generator, weight_file
from guided.zoo.add import add
from tests.helpers.tiny_faces import nvidia_state, tiny_stylegan2
from tests.zoo.pickle_writer import Net, dumps

Write = Callable[[Path], object]
STATE = tiny_stylegan2().state_dict()


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDED_MODELS", str(tmp_path / "own"))


def torch_file(key: str = "g_ema", **how: object) -> Write:
    return lambda path: torch.save({key: STATE} if key else STATE, path, **how)


def nvidia(*keys: str, scale: float = 1.0) -> Write:
    state = {name: value * scale for name, value in nvidia_state(tiny_stylegan2()).items()}

    def network(names: dict[str, torch.Tensor]) -> Net:
        own = {n: v for n, v in names.items() if "." not in n}
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for name, value in names.items():
            if "." in name:
                first, _, rest = name.partition(".")
                parts.setdefault(first, {})[rest] = value
        return Net("Part", own, modules={name: network(each) for name, each in parts.items()})

    return lambda path: path.write_bytes(dumps({key: network(state).call() for key in keys}))


def safetensors(path: Path, value: float | None = None) -> None:
    state = {name: tensor.clone() for name, tensor in STATE.items()}
    if value is not None:
        next(iter(state.values())).view(-1)[0] = value
    save_file(state, path)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("run",)


def cut(write: Write) -> Write:
    def written(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[:-200])

    return written


FORMS: list[tuple[str, Write, bool]] = [
    ("a.safetensors", safetensors, True),
    ("a.pt", torch_file(), True),
    ("a.pth", torch_file("g"), True),
    ("a.ckpt", torch_file("G_ema"), True),
    ("a.bin", torch_file(""), True),
    ("old.pt", torch_file(_use_new_zipfile_serialization=False), True),
    ("a.pkl", nvidia("G_ema"), True),
    ("g-alone.pkl", nvidia("G"), True),
    ("both.pkl", nvidia("G", "G_ema"), True),
    ("d-alone.pkl", nvidia("D"), False),
    ("nan.pkl", nvidia("G_ema", scale=float("nan")), False),
    ("nan.safetensors", lambda path: safetensors(path, float("nan")), False),
    ("inf.safetensors", lambda path: safetensors(path, float("inf")), False),
    ("cut.safetensors", cut(safetensors), False),
    ("cut.pt", cut(torch_file()), False),
    ("cut.pkl", cut(nvidia("G_ema")), False),
    ("evil.pt", lambda path: torch.save({"g_ema": Evil()}, path), False),
    ("evil.pkl", lambda path: path.write_bytes(pickle.dumps({"G_ema": Evil()})), False),
    ("empty.pt", lambda path: path.write_bytes(b""), False),
    ("a.gguf", lambda path: path.write_bytes(b"GGUF"), False),
    ("a.txt", lambda path: path.write_text("no weights"), False),
]


def statistics(given: str) -> torch.Tensor:
    return load_directions(weight_file(given, "directions"), Device("cpu"))


def accepts(call: Callable[[], object]) -> bool:
    try:
        call()
    except GuidedError:
        return False
    return True


@pytest.mark.parametrize(("name", "write", "sound"), FORMS, ids=[form[0] for form in FORMS])
def test_both_doors_agree_on_a_generator(
    tmp_path: Path, name: str, write: Write, sound: bool
) -> None:
    file, device = tmp_path / name, Device("cpu")
    write(file)
    assert accepts(lambda: load_generator(str(file), device)) is sound
    assert accepts(lambda: add(file, "mine")) is sound
    assert accepts(lambda: load_generator("mine", device)) is sound


def test_both_doors_agree_on_channel_statistics(tmp_path: Path) -> None:
    file, rows = tmp_path / "fs3.npy", np.random.default_rng(0).random((4, 6))
    for values, sound in ((rows, True), (rows * np.nan, False), (np.array([{}]), False)):
        np.save(file, values, allow_pickle=True)
        assert accepts(lambda: statistics(str(file))) is sound
        assert accepts(lambda: add(file, "mine")) is sound
        if sound:
            assert torch.allclose(statistics("mine"), torch.from_numpy(rows).float())


def test_a_folder_needs_no_adding(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a folder.*name it where a model is wanted"):
        add(tmp_path)
