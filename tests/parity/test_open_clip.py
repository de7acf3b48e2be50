from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from guided.scorers.clip import ClipScorer
from guided.scorers.zero_shot import build_classifier
from guided.training.contrastive_losses import sigmoid_loss, softmax_loss

pytestmark = pytest.mark.parity
TOLERANCE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def io(parity_dir: Path) -> dict[str, Tensor]:
    return load_file(parity_dir / "open_clip" / "io.safetensors")


@pytest.fixture(scope="module")
def meta(parity_dir: Path) -> dict[str, object]:
    return json.loads((parity_dir / "open_clip" / "meta.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def scorer(parity_dir: Path, meta: dict, tmp_path_factory: pytest.TempPathFactory) -> ClipScorer:
    """The reference's weights, written as a bundle and loaded the way every CLIP is."""
    from guided.scorers.clip import load_clip

    folder = tmp_path_factory.mktemp("reference")
    source = parity_dir / "open_clip" / "weights.safetensors"
    config = {"model_cfg": meta["model_cfg"], "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "open_clip_model.safetensors").write_bytes(source.read_bytes())
    return load_clip(f"local-dir:{folder}")


def prompts(meta: dict) -> list[str]:
    return [t.format(name) for name in meta["classnames"] for t in meta["templates"]]


def unit(features: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features, dim=-1)


def test_tokens(scorer: ClipScorer, io: dict, meta: dict) -> None:
    assert torch.equal(scorer.texts.tokens(prompts(meta)), io["tokens"].long())


def test_tokens_of_odd_texts(scorer: ClipScorer, io: dict, meta: dict) -> None:
    assert torch.equal(scorer.texts.tokens(meta["edge_texts"]), io["tokens_edge"].long())


def test_image_features(scorer: ClipScorer, io: dict) -> None:
    pre = scorer.preprocess
    mean, std = torch.tensor(pre.mean), torch.tensor(pre.std)
    images = io["images"] * std[:, None, None] + mean[:, None, None]
    ours = scorer.embed_images(images)
    torch.testing.assert_close(ours, unit(io["image_features"]), **TOLERANCE)


def test_text_features(scorer: ClipScorer, io: dict, meta: dict) -> None:
    ours = scorer.embed_texts(prompts(meta))
    assert scorer.texts.trims
    torch.testing.assert_close(ours, unit(io["text_features"]), **TOLERANCE)


def test_classifier_and_logits(scorer: ClipScorer, io: dict, meta: dict) -> None:
    classes = {name: [t.format(name) for t in meta["templates"]] for name in meta["classnames"]}
    ours = build_classifier(scorer, classes)
    torch.testing.assert_close(ours.T, io["classifier"], **TOLERANCE)
    logits = unit(io["image_features"]) @ ours.T
    torch.testing.assert_close(logits, io["logits100"] / 100, **TOLERANCE)


def test_pair_logits(scorer: ClipScorer, io: dict, meta: dict) -> None:
    texts = scorer.embed_texts(prompts(meta)[:6])
    ours = unit(io["image_features"]) @ texts.T * scorer.scale
    torch.testing.assert_close(ours, io["logits_per_image"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.T, io["logits_per_text"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["clip", "clipbias", "siglip", "siglip2"])
def test_losses_and_their_gradients(io: dict, case: str) -> None:
    inputs = {
        name: io[f"{case}.{name}"].clone().requires_grad_(True)
        for name in ("image", "text", "log_scale", "bias")
        if f"{case}.{name}" in io
    }
    bias = inputs.get("bias")
    if case.startswith("siglip"):
        assert bias is not None
        loss = sigmoid_loss(inputs["image"], inputs["text"], inputs["log_scale"], bias)
    else:
        loss = softmax_loss(inputs["image"], inputs["text"], inputs["log_scale"], bias=bias)
    gradients = torch.autograd.grad(loss, list(inputs.values()))
    torch.testing.assert_close(loss, io[f"{case}.loss"].reshape(()), **TOLERANCE)
    for name, gradient in zip(inputs, gradients, strict=True):
        expected = io[f"{case}.grad_{name}"].reshape(gradient.shape)
        torch.testing.assert_close(gradient, expected, **TOLERANCE)
