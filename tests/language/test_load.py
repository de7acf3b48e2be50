from __future__ import annotations

from pathlib import Path

import pytest

from guided.errors import MissingWeights, UsageError
from guided.language.load import find_language, load_language
from tests.helpers.tiny_language import write_language


def test_a_folder_by_name(tmp_path: Path) -> None:
    folder = write_language(tmp_path / "own")
    speaker = load_language(f"local-dir:{folder}")
    assert speaker.folder == folder
    assert speaker.profile.length == 6


@pytest.mark.parametrize("files", [("tokenizer.json",), ("vocab.json", "merges.txt")])
def test_a_repository_in_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--some--gpt2" / "snapshots" / "main"
    write_language(snapshot)
    (snapshot / "tokenizer.json").rename(snapshot / files[0])
    for name in files[1:]:
        (snapshot / name).write_text("")

    assert find_language("some/gpt2") == snapshot
    (snapshot / "config.json").unlink()
    with pytest.raises(MissingWeights, match=r"'some/gpt2' needs config.json and model"):
        find_language("some/gpt2")


def test_names_that_are_none() -> None:
    with pytest.raises(MissingWeights, match="no model called 'gpt2-portrait'"):
        find_language("gpt2-portrait")
    with pytest.raises(UsageError, match="cannot be the name of a repository"):
        find_language("some/../gpt2")
