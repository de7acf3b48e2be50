"""Tiny models of both stages, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from guided.scorers.clip import ClipScorer
from tests.helpers import small_own
from tests.helpers.small_unclip import write_prior
from tests.helpers.tiny_clip import write_clip


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def scorer(bundle: Path) -> ClipScorer:
    return small_own.clip(bundle)


@pytest.fixture(scope="session")
def denoiser(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own")
    own = small_own.write_autoencoder(root / "vae")
    return small_own.write_denoiser(root / "denoiser", own, bundle)


@pytest.fixture(scope="session")
def prior(scorer: ClipScorer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prior(tmp_path_factory.mktemp("prior"), scorer.fingerprint)
