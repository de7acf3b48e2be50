"""Settings that describe a model far larger than its weights cost next to nothing."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from guided.errors import CorruptWeights
from guided.scorers.clip import load_clip
from guided.scorers.clip_files import find
from guided.zoo import allowance
from guided.zoo.allowance import building, weights_in
from guided.zoo.gate_calls import load_part
from guided.zoo.structure import CLIP_WEIGHTS
from tests.helpers.tiny_clip import write_clip
from tests.zoo import bombs


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("vision_cfg", {"width": 1 << 14, "head_width": 64}),
        ("vision_cfg", {"layers": 1 << 20}),
        ("vision_cfg", {"image_size": 1 << 18}),
        ("text_cfg", {"context_length": 1 << 15}),  # its mask has the square of it
        ("text_cfg", {"vocab_size": 1 << 28}),
    ],
)
def test_a_model_is_no_larger_than_its_weights(
    bundle: Path, tmp_path: Path, part: str, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowance, "_FEWEST", 500)
    folder = shutil.copytree(bundle, tmp_path / "clip")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"][part] |= change
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(CorruptWeights, match="far larger than its weights"):
        load_clip(f"local-dir:{folder}")


def test_a_part_of_diffusers_is_no_larger_than_its_weights(tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    AutoencoderTiny(num_encoder_blocks=(1, 1), encoder_block_out_channels=(8, 8),
                    num_decoder_blocks=(1, 1), decoder_block_out_channels=(8, 8),
                    ).save_pretrained(tmp_path)  # fmt: skip
    assert load_part(AutoencoderTiny, tmp_path).config.latent_channels == 4
    config = json.loads((tmp_path / "config.json").read_text())
    for change in ({"num_encoder_blocks": [1, 100_000]}, {"decoder_block_out_channels": [9000] * 2},
                   {"latent_channels": 1 << 22}):  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(CorruptWeights, match="far larger than its weights"):
            load_part(AutoencoderTiny, tmp_path)


def test_what_is_built_is_counted_by_bytes_and_tensors(tmp_path: Path) -> None:
    weights = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(10_000)}, weights)
    assert weights_in(tmp_path) == [weights]
    most = allowance.SPARE + allowance.SHARED * weights.stat().st_size
    with building("it", [weights]):
        torch.empty(most // 8, dtype=torch.float64)
    for make in (torch.empty, torch.zeros, torch.ones, torch.randn, torch.arange):
        with pytest.raises(CorruptWeights), building("it", [weights]):
            make(most // 4 + 1)
    few = allowance._FEWEST + weights.stat().st_size // allowance._TENSOR
    with building("it", [weights]):
        kept = [torch.empty(1) for _ in range(few)]
    assert len(kept) == few
    with pytest.raises(CorruptWeights), building("it", [weights]):
        kept = [torch.empty(1) for _ in range(few + 1)]


@pytest.mark.parametrize("pair", [*itertools.combinations(CLIP_WEIGHTS, 2)], ids=" ".join)
def test_the_file_that_open_clip_loads_is_the_one_that_was_checked(
    bundle: Path, tmp_path: Path, pair: tuple[str, str]
) -> None:
    from open_clip.factory import _find_checkpoint_in_dir

    for name in ("open_clip_config.json", "tokenizer.json"):
        shutil.copy(bundle / name, tmp_path)
    for name in reversed(pair):
        (tmp_path / name).touch()
    assert str(find(f"local-dir:{tmp_path}").weights) == _find_checkpoint_in_dir(tmp_path)


def test_weights_of_every_name_are_checked_first(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    monkeypatch.setattr(torch, "load", lambda *a, **k: loads.append(a))
    bomb = tmp_path / "bomb.pt"
    bomb.write_bytes(bombs.archives()["compressed zeros"])
    with pytest.raises(CorruptWeights, match="compressed"):
        load_clip(f"ViT-B-32/{bomb}")
    folder = shutil.copytree(bundle, tmp_path / "clip")
    (folder / "open_clip_model.safetensors").unlink()
    shutil.copy(bomb, folder / "pytorch_model.bin")
    with pytest.raises(CorruptWeights, match="compressed"):
        load_clip(f"local-dir:{folder}")
    odd = bomb.rename(tmp_path / "bomb.npz")
    with pytest.raises(CorruptWeights, match="no weight file has"):
        load_clip(f"ViT-B-32/{odd}")
    assert not loads
