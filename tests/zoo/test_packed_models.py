"""Packed files load into every library's models as the tensors that they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from guided.errors import CannotDo, CorruptWeights
from guided.nets.denoiser import PortraitDenoiser
from guided.scorers.clip import load_clip
from guided.zoo.add import add
from guided.zoo.cards import CARD_FILE, read_card
from guided.zoo.checksums import verify
from guided.zoo.gate_calls import load_part
from guided.zoo.packing import load_weights, pack
from guided.zoo.repack import rename_digests, repack
from tests.helpers.small_own import denoiser
from tests.helpers.tiny_clip import write_clip

CLIP = "open_clip_model.safetensors"


def _pack_file(file: Path, smallest: int = 256) -> None:
    save_file(pack(load_file(file), smallest=smallest), file)


def test_a_packed_clip_has_the_tensors_of_its_file(tmp_path: Path, caplog: Any) -> None:
    folder = write_clip(tmp_path / "clip")
    plain = load_clip(f"local-dir:{folder}").embed_texts(["a red cat"])
    before = (folder / CLIP).stat().st_size
    _pack_file(folder / CLIP)
    assert (folder / CLIP).stat().st_size < 0.4 * before
    caplog.clear()
    scorer = load_clip(f"local-dir:{folder}")
    expected = load_weights(folder / CLIP)
    model: Any = scorer.model
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert not caplog.records
    packed = scorer.embed_texts(["a red cat"])
    assert float((packed * plain).sum()) > 0.99
    assert not torch.equal(packed, plain)


def test_a_packed_part_of_diffusers_has_the_tensors_of_its_file(tmp_path: Path) -> None:
    net = denoiser()
    net.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    whole = load_part(PortraitDenoiser, tmp_path)
    _pack_file(file)
    random = torch.random.get_rng_state()
    part = load_part(PortraitDenoiser, tmp_path, use_safetensors=True)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert not part.training
    expected = load_weights(file)
    state = part.state_dict()
    assert set(state) == set(whole.state_dict())
    assert all(torch.equal(state[name], expected[name]) for name in state)
    buffers, others = dict(whole.named_buffers()), dict(part.named_buffers())
    assert all(torch.equal(buffers[name], others[name]) for name in buffers)


def test_a_packed_part_that_lacks_tensors_is_refused(tmp_path: Path) -> None:
    net = denoiser()
    net.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    packed = pack(load_file(file), smallest=256)
    first = next(name for name in packed if name.endswith("::int8"))
    save_file({k: v for k, v in packed.items() if k.partition("::")[0] != first[:-6]}, file)
    with pytest.raises(RuntimeError, match="Missing key"):
        load_part(PortraitDenoiser, tmp_path)
    save_file({k: v for k, v in packed.items() if k != f"{first[:-6]}::scale"}, file)
    with pytest.raises(CorruptWeights, match="no fitting scales"):
        load_part(PortraitDenoiser, tmp_path)


def test_repacking_a_folder_rewrites_its_card_once(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("GUIDED_MODELS", str(tmp_path))
    source = tmp_path / "w.safetensors"
    generator = torch.Generator().manual_seed(0)
    save_file({"w": torch.randn(80, 80, generator=generator), "v": torch.ones(70, 70)}, source)
    add(source, "mine")
    folder = tmp_path / "mine"
    (folder / "parts.json").write_text('{"vae": "old"}', encoding="utf-8")
    before = read_card(folder / CARD_FILE)
    card = repack(folder, half=["v"], version="0.1.0")
    assert read_card(folder / CARD_FILE) == card
    verify(folder, card)
    assert card.half == ["v"]
    assert card.earlier == {"0.1.0": before.sha256}
    assert card.size is not None
    assert before.size is not None
    assert card.size < 0.45 * before.size
    with pytest.raises(CannotDo, match="packed already"):
        repack(folder)
    rename_digests(folder, {"old": "new"})
    assert (folder / "parts.json").read_text("utf-8") == '{"vae": "new"}'
    verify(folder, read_card(folder / CARD_FILE))
