"""A tiny random GPT-2 in transformers' folder layout, with its own byte-level vocabulary."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file

from guided.core.seeds import Seeds
from guided.language.bpe import END_OF_TEXT, learn_vocabulary
from guided.language.gpt2 import Gpt2
from guided.language.vocabulary import Vocabulary
from guided.worlds.portraits.grammar.corpus import document

PROFILE = f"""end = "{END_OF_TEXT}"
length = 6
shortest = 2
end_bonus = 0.0
candidates = 48

[prompts]
caption = "a portrait of"
ocr = "a shirt that says"
world = "This person has"
"""


@cache
def vocabulary(size: int = 480) -> Vocabulary:
    """A vocabulary of caption words."""
    return Vocabulary(learn_vocabulary([document(0, index) for index in range(300)], size))


def tiny_gpt2(seed: int = 0, positions: int = 48) -> Gpt2:
    """A random GPT-2 of 2 layers whose words differ in likelihood."""
    from transformers import GPT2Config, GPT2LMHeadModel

    words = vocabulary()
    end = words.tokenizer.token_to_id(END_OF_TEXT)
    config = GPT2Config(
        vocab_size=words.size, n_positions=positions, n_embd=32, n_layer=2, n_head=2,
        bos_token_id=end, eos_token_id=end, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    with torch.device("meta"):
        model = GPT2LMHeadModel(config)
    model.to_empty(device="cpu")
    for number, (name, value) in enumerate(sorted(model.transformer.named_parameters())):
        drawn = 0.3 * Seeds.of(seed).normal(tuple(value.shape), f"{number} {name}")[0]
        value.data.copy_(1 + drawn if ".ln_" in f".{name}" and name.endswith("weight") else drawn)
    model.tie_weights()
    return Gpt2(model, words, name="tiny")


def write_language(folder: Path, seed: int = 0) -> Path:
    """Write a tiny GPT-2 into a folder, as a training leaves it; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    model = tiny_gpt2(seed)
    state = model.model.transformer.state_dict()
    save_file(
        {f"transformer.{name}": value.contiguous().clone() for name, value in state.items()},
        folder / "model.safetensors",
    )
    (folder / "config.json").write_text(model.model.config.to_json_string(), encoding="utf-8")
    model.words.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "captions.toml").write_text(PROFILE, encoding="utf-8")
    return folder
