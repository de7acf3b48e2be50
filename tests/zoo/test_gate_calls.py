"""Libraries get folders that were let through, from the hub's cache as from anywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from guided.errors import CorruptWeights, MissingWeights, UnsafeWeights
from guided.scorers.clip import load_clip
from guided.zoo.gate_calls import create_clip, create_tokenizer, from_config
from tests.helpers.tiny_clip import write_clip, write_tokenizer

TEXTS = ["red hair", "a green hat"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    place = tmp_path / "hub"
    place.mkdir()
    for module in ("constants", "file_download", "_snapshot_download"):
        monkeypatch.setattr(f"huggingface_hub.{module}.HF_HUB_CACHE", str(place), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place))
    return place


def cached(cache: Path, repository: str) -> Path:
    """The snapshot folder of a repository in the cache, empty."""
    place = cache / f"models--{repository.replace('/', '--')}"
    revision = "0" * 40
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(revision)
    (place / "snapshots" / revision).mkdir(parents=True)
    return place / "snapshots" / revision


def poison(file: Path, key: str, value: object) -> None:
    """Put a key into a JSON file."""
    table = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    file.write_text(json.dumps({**table, key: value}), "utf-8")


def architecture(monkeypatch: pytest.MonkeyPatch, **text: Any) -> str:
    """A tiny architecture among open_clip's own."""
    import open_clip

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16,
                       "patch_size": 16},
        "text_cfg": {"context_length": 24, "vocab_size": 600, "width": 32, "heads": 2, "layers": 1,
                     **text},
    }  # fmt: skip
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-SigLIP", config)
    return "tiny-SigLIP"


def test_a_tokenizer_of_the_hub_is_read_from_its_folder(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = architecture(monkeypatch, hf_tokenizer_name="timm/ViT-B-16-SigLIP")
    with pytest.raises(MissingWeights, match="timm/ViT-B-16-SigLIP") as caught:
        create_tokenizer(name)
    assert "--online" in caught.value.hint
    folder = cached(cache, "timm/ViT-B-16-SigLIP")
    write_tokenizer(folder)
    tokens = create_tokenizer(name)(TEXTS)
    assert tokens.shape == (2, 24)
    assert len(tokens.unique()) > 4
    poison(folder / "tokenizer_config.json", "auto_map", {"AutoTokenizer": ["own.Own", None]})
    with pytest.raises(UnsafeWeights, match=r"tokenizer_config\.json has auto_map"):
        create_tokenizer(name)


def test_a_text_tower_of_the_hub_is_built_from_its_folder(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, weights)
    name = architecture(monkeypatch, hf_model_name="roberta-base", hf_tokenizer_name="roberta-base")
    with pytest.raises(MissingWeights, match="roberta-base"):
        create_clip(name, weights)
    folder = cached(cache, "roberta-base")
    table = {"model_type": "roberta", "vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 1,
             "num_attention_heads": 2, "intermediate_size": 32, "pad_token_id": 1}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(table))
    model = create_clip(name, weights)
    assert type(model.text.transformer).__name__ == "RobertaModel"
    assert model.encode_text(torch.full((2, 8), 5)).shape == (2, 16)
    poison(folder / "config.json", "attn_implementation", "someone/kernel")
    with pytest.raises(UnsafeWeights, match=r"config\.json has attn_implementation"):
        create_clip(name, weights)


def test_a_scorer_of_the_hub_is_that_of_its_folder(cache: Path, tmp_path: Path) -> None:
    bundle = write_clip(tmp_path / "bundle")
    folder = cached(cache, "some/clip")
    for file in bundle.iterdir():
        shutil.copy(file, folder)
    ours, theirs = load_clip("hf-hub:some/clip"), load_clip(f"local-dir:{bundle}")
    assert torch.equal(ours.embed_texts(TEXTS), theirs.embed_texts(TEXTS))
    repository = load_clip(f"local-dir:{folder.parents[1]}")
    assert torch.equal(repository.embed_texts(TEXTS), theirs.embed_texts(TEXTS))
    assert repository.fingerprint == theirs.fingerprint
    poison(folder / "tokenizer_config.json", "auto_map", {"AutoTokenizer": ["own.Own", None]})
    for name in ("hf-hub:some/clip", f"local-dir:{folder.parents[1]}"):
        with pytest.raises(UnsafeWeights, match=r"tokenizer_config\.json has auto_map"):
            load_clip(name)


def test_a_folder_without_its_tokenizer_names_what_is_missing(tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "clip")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    with pytest.raises(MissingWeights, match=r"hf_tokenizer_name is 'own'"):
        load_clip(f"local-dir:{folder}")


def test_weights_that_are_programs_are_refused_without_advice(tmp_path: Path) -> None:
    file = tmp_path / "module.pt"
    torch.save({"state_dict": torch.nn.Linear(2, 2)}, file)
    asked = r"module\.pt was not loaded: it asks for torch\.nn\.modules\.linear\.Linear"
    with pytest.raises(UnsafeWeights, match=asked) as caught:
        load_clip(f"ViT-S-32-alt/{file}")
    assert "weights_only" not in str(caught.value)


def test_weights_of_another_model_are_told_briefly(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_clip(tmp_path / "clip")
    weights = folder / "open_clip_model.safetensors"
    state = {f"_orig_mod.{key}": value for key, value in load_file(weights).items()}
    save_file(state, weights)
    with pytest.raises(CorruptWeights, match="cannot be loaded") as caught:
        load_clip(f"local-dir:{folder}")
    assert len(str(caught.value)) < 1024


def test_settings_in_memory_pass_the_gate_too() -> None:
    from diffusers import DDIMScheduler

    assert from_config(DDIMScheduler, {"num_train_timesteps": 7}).config.num_train_timesteps == 7
    with pytest.raises(UnsafeWeights, match="The configuration of DDIMScheduler has auto_map"):
        from_config(DDIMScheduler, {"auto_map": "own.Own"})
