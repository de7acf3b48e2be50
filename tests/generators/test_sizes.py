"""Diffusion folders whose parts come from different models, or hold what is not finite."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from guided.errors import CannotDo, CorruptWeights
from guided.generators.diffusion import load_diffusion
from tests.helpers import small_models
from tests.helpers.small_models import seeded, write_folder

Copy = Callable[[str], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: write_folder(name, root / name) for name in ("sd", "sdxl", "pixart")}


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path) -> Copy:
    return lambda family: Path(shutil.copytree(folders[family], tmp_path / family))


def put(folder: Path, part: str, model: Any) -> None:
    shutil.rmtree(folder / part)
    model.save_pretrained(folder / part)


def replaced(name: str, **changes: Any) -> Callable[[Path], None]:
    """A change of a folder: a part made anew with other settings."""

    def change(folder: Path) -> None:
        import diffusers
        import transformers

        index = json.loads((folder / "model_index.json").read_text())
        library, kind = index[name]
        cls = getattr(diffusers if library == "diffusers" else transformers, kind)
        config = json.loads((folder / name / "config.json").read_text())
        settings = {k: v for k, v in config.items() if k[0] != "_"} | changes
        if library == "diffusers":
            made = seeded(lambda: cls.from_config(settings), 1)
        else:
            made = seeded(lambda: cls(cls.config_class(**settings)), 1)
        put(folder, name, made)

    return change


@pytest.mark.parametrize(
    ("family", "change", "error", "reason"),
    [
        ("sd", replaced("vae", latent_channels=16), CorruptWeights,
         r"reads 4 channels \(unet/config.json\).*latents have 16 \(vae\)"),
        ("sd", replaced("unet", in_channels=9), CannotDo,
         r"reads 9 channels \(unet/config.json\).*have 4 \(vae/config.json\).*inpainting"),
        ("sd", replaced("unet", in_channels=8), CannotDo, "reads 8 channels.*instructions"),
        ("sd", replaced("vae", in_channels=1, out_channels=1), CannotDo, "images with 1 channels"),
        ("sd", replaced("unet", cross_attention_dim=24), CorruptWeights,
         r"texts of 24 numbers a token \(unet/config.json\).*gives 16 \(text_encoder\)"),
        ("sdxl", replaced("unet", cross_attention_dim=24), CorruptWeights,
         r"texts of 24 .*encoders give 32 \(text_encoder and text_encoder_2\)"),
        ("pixart", replaced("transformer", caption_channels=24), CorruptWeights,
         r"texts of 24 .*\(transformer/config.json\).*gives 16 \(text_encoder\)"),
        ("sd", replaced("text_encoder", vocab_size=40), CorruptWeights,
         r"needs 56 tokens \(tokenizer\).*40 rows \(text_encoder\)"),
        ("sdxl", replaced("text_encoder_2", vocab_size=40), CorruptWeights,
         r"needs 56 tokens \(tokenizer_2\).*40 rows \(text_encoder_2\)"),
        ("pixart", replaced("text_encoder", vocab_size=20), CorruptWeights,
         r"needs 30 tokens \(tokenizer\).*20 rows \(text_encoder\)"),
    ],
)  # fmt: skip
def test_sizes_that_disagree_are_named_with_their_files(
    copy: Copy, family: str, change: Callable[[Path], None], error: type[Exception], reason: str
) -> None:
    folder = copy(family)
    change(folder)
    with pytest.raises(error, match=reason):
        load_diffusion(folder)


def test_the_small_decoder_is_of_the_same_latents(copy: Copy) -> None:
    folder = copy("sd")
    small_models.tiny_decoder().from_config(
        {**small_models.tiny_decoder().config, "latent_channels": 3}
    ).save_pretrained(folder / "tiny")
    index = folder / "model_index.json"
    table = json.loads(index.read_text())
    index.write_text(json.dumps({**table, "tiny": ["diffusers", "AutoencoderTiny"]}))
    with pytest.raises(CorruptWeights, match=r"decoder reads 3 channels \(tiny/config.json\)"):
        load_diffusion(folder)


def test_rows_without_a_token_do_no_harm(copy: Copy) -> None:
    folder = copy("pixart")
    replaced("text_encoder", vocab_size=64)(folder)
    assert load_diffusion(folder).bound(["a red hat"]).words.text.isfinite().all()


@pytest.mark.parametrize("suffix", ["", "_2"])
def test_an_added_token_without_a_row_is_refused_where_it_is_asked_for(
    copy: Copy, suffix: str
) -> None:
    from transformers import CLIPTokenizer

    folder = copy("sdxl")
    tokenizer = CLIPTokenizer.from_pretrained(folder / f"tokenizer{suffix}")
    tokenizer.add_tokens(["<mine>"])
    put(folder, f"tokenizer{suffix}", tokenizer)
    model = load_diffusion(folder)
    assert model.bound(["red"]).words.text.isfinite().all()
    with pytest.raises(CannotDo, match=rf"'<mine>' \(id 56 of tokenizer{suffix}\).*56 rows"):
        model.bound(["a <mine>"])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    put(folder, f"tokenizer{suffix}", tokenizer)
    with pytest.raises(CorruptWeights, match=rf"needs 58 tokens \(tokenizer{suffix}\)"):
        load_diffusion(folder)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(copy: Copy, part: str, value: float) -> None:
    folder = copy("sd")
    (file,) = (folder / part).glob("*.safetensors")
    state = load_file(file)
    name = next(key for key in state if key.endswith("weight"))
    state[name].view(-1)[0] = value
    save_file(state, file, {"format": "pt"})
    with pytest.raises(CorruptWeights, match=rf"{part} are not finite: '"):
        load_diffusion(folder)
    assert torch.isfinite(state[name]).sum() == state[name].numel() - 1
