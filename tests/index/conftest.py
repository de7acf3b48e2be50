from __future__ import annotations

from pathlib import Path

import pytest

from guided.scorers.clip import ClipScorer, load_clip
from tests.tiny_clip import write_clip


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("bundle") / "clip")


@pytest.fixture(scope="session")
def scorer(bundle: Path) -> ClipScorer:
    return load_clip(f"local-dir:{bundle}")
