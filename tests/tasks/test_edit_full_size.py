"""The whole photo path on random files of the published sizes (about 2 GB; a few minutes)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from guided.generators.latents import read_delta
from guided.nets.e4e import StyleEncoder
from guided.nets.irse50 import IRSE50
from guided.nets.stylegan2 import StyleGAN2Shape
from guided.recipe import Recipe
from guided.studio import run
from tests.helpers.tiny_faces import seeded, write_generator

WIDTHS = (64, 128, 256, 512)
FFHQ = StyleGAN2Shape(1024, 512, 512, 8, (512, 512, 512, 512, 512, 256, 128, 64, 32))


def write_clip(folder: Path) -> str:
    """A random ViT-B/32 in open_clip's folder layout, with OpenAI's tokenizer."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir()
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    config = {
        "model_cfg": open_clip.get_model_config("ViT-B-32"),
        "preprocess_cfg": {"mean": list(mean), "std": list(std)},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    model = seeded(lambda: open_clip.create_model("ViT-B-32"))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


@pytest.mark.soak
def test_a_photograph_through_full_size_files(tmp_path: Path) -> None:
    faces = seeded(lambda: IRSE50(WIDTHS, 512))
    torch.save(faces.state_dict(), tmp_path / "model_ir_se50.pth")
    encoder = seeded(lambda: StyleEncoder(WIDTHS, FFHQ.rows, 512))
    state = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    mean = torch.zeros(FFHQ.rows, 512)
    checkpoint = {"state_dict": state, "opts": {"encoder_type": "Encoder4Editing"}}
    torch.save({**checkpoint, "latent_avg": mean}, tmp_path / "e4e_ffhq_encode.pt")
    del encoder, state, checkpoint, faces
    write_generator(tmp_path / "stylegan2-ffhq-config-f.pt", shape=FFHQ)
    rng = np.random.default_rng(0)
    grain = Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8))
    photo = tmp_path / "me.jpg"
    grain.resize((1500, 1000), Image.Resampling.BICUBIC).save(photo)
    recipe = Recipe.of(
        {
            "task": "edit", "kit": "photo", "images": [str(photo)], "prompt": ["a smiling face"],
            "landmarks": ["620,420,860,440,650,690,820,700"], "steps": 2, "keep_identity": 0.1,
            "generator": str(tmp_path / "stylegan2-ffhq-config-f.pt"), "strip": True,
            "inverter": str(tmp_path / "e4e_ffhq_encode.pt"), "paste": "difference",
            "identity": str(tmp_path / "model_ir_se50.pth"),
            "scorer": write_clip(tmp_path / "clip"), "out": str(tmp_path / "out"),
        },
        "test",
    )  # fmt: skip
    (row,) = run(recipe).result().answer["results"]
    with Image.open(row["image"]) as image:
        assert image.size == (1500, 1000)
    with Image.open(row["strip"]) as strip:
        assert strip.height >= 1024
    delta = read_delta(row["latent"])
    assert delta.start["w"].shape == (1, 18, 512)
    assert delta.change["w"].any()
    assert {"clip_gain", "identity", "change"} <= set(row["metrics"])
