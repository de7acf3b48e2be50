"""The hub's local cache: what is in it is found and checked; nothing is downloaded unasked."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from guided.errors import CannotDo, CorruptWeights, MissingWeights
from guided.zoo import checksums, hub, resolve
from guided.zoo.cards import Card


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache and an empty user folder."""
    from huggingface_hub import constants

    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("GUIDED_MODELS", str(tmp_path / "mine"))
    checksums.forget()
    return tmp_path / "hub"


def store(cache: Path, repository: str, files: dict[str, bytes]) -> Path:
    """Put files into a hub cache as the hub's client lays them out; the snapshot folder."""
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / ("a" * 40)
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("a" * 40)
    for name, data in files.items():
        blob = root / "blobs" / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blob)
    return snapshot


def gpt2_files() -> dict[str, bytes]:
    card = resolve.public_card("gpt2")
    assert card is not None
    return {name: name.encode() for name in card.files}


def test_a_complete_snapshot_is_found(cache: Path) -> None:
    snapshot = store(cache, "openai-community/gpt2", gpt2_files())
    found = resolve.find("gpt2", "language")
    assert (found.place, found.path) == ("hub", snapshot / "model.safetensors")
    assert found.folder == snapshot


def test_files_in_folders_keep_their_place(cache: Path) -> None:
    card = resolve.public_card("stable-diffusion-v1-5")
    assert card is not None
    files = {name: name.encode() for name in card.files}
    snapshot = store(cache, card.repository, files)
    assert resolve.find(card.name, "denoiser").folder == snapshot


def test_an_incomplete_snapshot_is_missing(cache: Path) -> None:
    files = gpt2_files()
    del files["merges.txt"]
    store(cache, "openai-community/gpt2", files)
    with pytest.raises(MissingWeights, match="--online"):
        resolve.find("gpt2")


def test_a_damaged_blob_is_seen(cache: Path) -> None:
    snapshot = store(cache, "openai-community/gpt2", gpt2_files())
    (snapshot / "model.safetensors").resolve().write_bytes(b"other")
    with pytest.raises(CorruptWeights, match=r"model\.safetensors is damaged.*Delete"):
        resolve.find("gpt2")


def test_a_download_that_fails_says_why(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **named: object) -> str:
        raise ConnectionError("no route\nsecond line")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(MissingWeights, match=r"could not be downloaded \(no route\)"):
        resolve.find("gpt2", online=True)


def test_only_the_files_of_the_card_are_asked_for(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, object]] = []

    def download(repository: str, *, allow_patterns: list[str]) -> str:
        asked.append((repository, allow_patterns))
        return str(store(cache, repository, gpt2_files()))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve.find("gpt2", online=True).place == "hub"
    assert asked == [("openai-community/gpt2", list(gpt2_files()))]


def test_models_outside_the_hub_are_not_downloaded() -> None:
    card = resolve.public_card("e4e-ffhq")
    assert isinstance(card, Card)
    with pytest.raises(CannotDo, match=r"not in a hub.*guided models add e4e_ffhq_encode\.pt"):
        hub.download(card)
