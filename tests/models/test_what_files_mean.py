"""Model files whose parts disagree, are not finite, or say what decides the result."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer

from guided.core.seeds import Seeds
from guided.errors import CannotDo, CorruptWeights
from guided.generators.diffusion.folder import _variant
from guided.generators.diffusion.schedulers import check_terminal_snr
from guided.language.gpt2 import Gpt2
from guided.language.sampling import sample_tokens
from guided.scorers.clip import load_clip
from guided.scorers.clip_files import find
from guided.zoo.packing import load_weights
from tests.helpers.tiny_clip import write_clip
from tests.helpers.tiny_language import write_language


def configure(folder: Path, **changes: object) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_language(tmp_path / "language")


def test_an_added_token_has_no_row_and_is_never_asked_for(folder: Path) -> None:
    file = folder / "tokenizer.json"
    words = Tokenizer.from_file(str(file))
    words.add_special_tokens([AddedToken("[PAD]", special=True)])
    words.save(str(file))
    language = Gpt2.load(folder)
    assert max(language.words.non_word_tokens) < language.vocabulary
    with pytest.raises(CannotDo, match=r"\[PAD\].*embedding"):
        language.encode("a [PAD]")


def test_rows_without_a_token_are_no_words(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    name = next(key for key in state if key.endswith("wte.weight"))
    rows = len(state[name])
    state[name] = torch.cat([state[name], torch.zeros(5, state[name].shape[1])])
    save_file(state, folder / "model.safetensors")
    language = Gpt2.load(configure(folder, vocab_size=rows + 5))
    assert set(range(rows, rows + 5)) <= set(language.words.non_word_tokens)
    assert language.words.phantom_tokens == tuple(range(rows, rows + 5))
    language.model.lm_head.weight = torch.nn.Parameter(language.model.lm_head.weight.clone())
    with torch.no_grad():  # the rows without a token are the likeliest by far
        hidden = language.model.transformer(torch.tensor([[language.begin]])).last_hidden_state
        language.model.lm_head.weight[rows:] = 1e3 * hidden[0, -1]
    drawn = sample_tokens(language, Seeds.of(0, 8), prompt=[language.begin], end=0, length=6)
    assert max(token for row in drawn for token in row) < rows


def test_the_first_token_may_be_null_and_must_have_a_row(folder: Path) -> None:
    end = json.loads((folder / "config.json").read_text())["eos_token_id"]
    assert Gpt2.load(configure(folder, bos_token_id=None)).begin == end
    with pytest.raises(CorruptWeights, match="bos_token_id = 99999"):
        Gpt2.load(configure(folder, bos_token_id=99999))


def test_an_untied_output_layer_is_used(folder: Path) -> None:
    tokens = torch.tensor([[1, 2, 3]])
    before = Gpt2.load(folder).read(tokens).logits
    state = load_file(folder / "model.safetensors")
    name = next(key for key in state if key.endswith("wte.weight"))
    save_file({**state, "lm_head.weight": 2 * state[name]}, folder / "model.safetensors")
    language = Gpt2.load(configure(folder, tie_word_embeddings=False))
    assert torch.allclose(language.read(tokens).logits, 2 * before, atol=1e-4)


def test_another_kind_of_language_model_is_named(folder: Path) -> None:
    with pytest.raises(CannotDo, match=r"'llama'.*only GPT-2"):
        Gpt2.load(configure(folder, model_type="llama"))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip")
    file = clip / "open_clip_model.safetensors"
    state = load_file(file)
    state["visual.proj"].fill_(float("nan"))
    save_file(state, file)
    with pytest.raises(CorruptWeights, match=r"not finite: 'visual\.proj'"):
        load_clip(f"local-dir:{clip}")
    with pytest.raises(CorruptWeights, match="not finite"):
        load_weights(file)


@pytest.mark.parametrize(
    ("name", "mean", "quick", "warned"),
    [
        ("ViT-B-16-SigLIP/mine.pt", [0.5, 0.5, 0.5], False, False),
        ("ViT-B-32/openai.pt", None, True, False),
        ("ViT-B-32/ViT-B-32.pt", None, True, False),
        ("ViT-B-32/mine.pt", None, False, True),
    ],
)
def test_a_weight_file_by_path_means_what_its_tag_means(
    tmp_path: Path, name: str, mean: list[float] | None, quick: bool, warned: bool
) -> None:
    model, _, file = name.partition("/")
    (tmp_path / file).touch()
    found = find(f"{model}/{tmp_path / file}")
    assert (found.quick_gelu, bool(found.warnings)) == (quick, warned)
    if mean is not None:
        assert list(found.preprocess["mean"]) == mean
    if warned:
        assert "QuickGELU" in found.warnings[0]


def test_the_options_of_a_training_are_inert(tmp_path: Path) -> None:
    options = argparse.Namespace(size=32, path="data")
    torch.save({"g_ema": {"a": torch.ones(2)}, "args": options}, tmp_path / "100.pt")
    assert list(load_weights(tmp_path / "100.pt")) == ["g_ema.a"]


def test_zero_terminal_snr_wants_another_prediction_than_epsilon() -> None:
    config = {"rescale_betas_zero_snr": True, "prediction_type": "epsilon"}
    with pytest.raises(CannotDo, match=r"zero terminal SNR.*epsilon"):
        check_terminal_snr(config)
    check_terminal_snr({**config, "prediction_type": "v_prediction"})


def test_a_variant_counts_where_a_part_has_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    parts = {"unet": ("diffusers", "UNet2DConditionModel")}
    (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").touch()
    assert _variant(tmp_path, parts) == "fp16"
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").touch()
    assert _variant(tmp_path, parts) is None
