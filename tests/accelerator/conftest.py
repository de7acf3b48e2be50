from __future__ import annotations

import pytest

from tests.accelerator.tiny_runs import TinyRuns


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRuns:
    """Tiny models, and what each verb gives with them on the CPU."""
    return TinyRuns(tmp_path_factory.mktemp("accelerator"))
