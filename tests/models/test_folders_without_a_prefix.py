"""A model's folder is named as it is, with or without ``local-dir:``, also as a hub repository."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file

from guided.core.device import Device
from guided.errors import MissingWeights
from guided.generators.diffusion.vae import find_autoencoder
from guided.generators.unclip import load_prior
from guided.language.load import find_language
from guided.models.loading import load_scorer
from guided.models.references import FOLDERS, Reference
from guided.scorers.latent import load_latent_scorer
from guided.worlds.portraits.judging.reader import Reader
from guided.zoo.folders import SHIPPED
from guided.zoo.resolve import find_folder
from tests.helpers import small_own
from tests.helpers.small_unclip import write_prior
from tests.helpers.tiny_clip import write_clip
from tests.helpers.tiny_language import write_language

Write = Callable[[Path], object]


def latent_scorer(name: str) -> object:
    learnt = str(find_folder(name, "latent_scorer", "config.json")[0])
    return load_latent_scorer(name, _teacher(Path(learnt)), Device("cpu"))


def _teacher(folder: Path) -> str:
    import json

    return str(json.loads((folder / "config.json").read_text())["scorer_sha256"])


def copied(name: str) -> Write:
    return lambda folder: shutil.copytree(SHIPPED / name, folder)


LOADERS: dict[str, tuple[Write, Callable[[str], object]]] = {
    "scorer": (write_clip, lambda name: load_scorer(name, Device("cpu"))),
    "language": (write_language, find_language),
    "vae": (small_own.write_autoencoder, find_autoencoder),
    "prior": (lambda folder: write_prior(folder, "x" * 64), lambda name: load_prior(name, "")),
    "latent_scorer": (copied("latent_scorer"), latent_scorer),
    "reader": (copied("reader"), lambda name: Reader.load(name, Device("cpu"))),
}


@pytest.mark.parametrize("role", LOADERS)
def test_a_folder_is_named_as_it_is(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, load = LOADERS[role]
    monkeypatch.chdir(tmp_path)
    repository = Path("models--me--mine")
    inside = repository / "snapshots" / "abc"
    inside.parent.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    write(inside)
    for name in (str(inside), f"local-dir:{inside}", str(inside.absolute()), str(repository),
                 f"local-dir:{repository}"):  # fmt: skip
        assert Reference.parse(name, role).locate().folder == inside.absolute()
        load(name)
    with pytest.raises(MissingWeights, match=r"There is no folder .*nothing\. Check the path"):
        Reference.parse(str(tmp_path / "nothing"), role).locate()


def test_a_name_of_the_zoo_goes_before_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reader").mkdir()
    save_file({}, "reader/model.safetensors")
    assert find_folder("reader", "reader", "model.safetensors")[0] == SHIPPED / "reader"
    assert find_folder("./reader", "reader", "model.safetensors")[0] == tmp_path / "reader"


def test_every_role_with_a_folder_is_tried() -> None:
    assert set(FOLDERS) - {"denoiser", "judge"} == set(LOADERS)
