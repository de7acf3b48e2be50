from __future__ import annotations

from pathlib import Path

import pytest
import torch

from guided.language.gpt2 import Gpt2
from guided.scorers.clip import ClipScorer, load_clip
from guided.scorers.prefix_text import PrefixTextScorer
from guided.worlds.portraits import draw, sample
from tests.helpers.tiny_clip import write_clip
from tests.helpers.tiny_language import tiny_gpt2, write_language


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def language_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language(tmp_path_factory.mktemp("language"))


@pytest.fixture(scope="session")
def scorer(clip_folder: Path) -> ClipScorer:
    return load_clip(f"local-dir:{clip_folder}")


@pytest.fixture
def words(scorer: ClipScorer) -> PrefixTextScorer:
    return PrefixTextScorer.of(scorer)


@pytest.fixture(scope="session")
def language() -> Gpt2:
    return tiny_gpt2()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five drawn portraits."""
    place = tmp_path_factory.mktemp("pictures")
    for seed in range(5):
        draw(sample(seed), 48).save(place / f"{seed}.png")
    return place
