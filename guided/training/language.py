"""Trains our small GPT-2 on text alone: captions of people of every kind alike, plain English."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from pydantic import Field
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from guided.language.bpe import END_OF_TEXT, learn_vocabulary
from guided.language.corpus import document
from guided.language.profile import PROFILE_FILE
from guided.training.objective import (
    Metric,
    Objective,
    ObjectiveSettings,
    Parts,
    Product,
    Share,
)

#: The corpus of the monitor and of the card, apart from every training's.
HELD_OUT_SEED, HELD_OUT_TEXTS = 7_000_003, 2_000

#: How the trained model wants to be asked; ``captions.toml`` beside its weights.
PROFILE = f"""end = "{END_OF_TEXT}"
length = 40
shortest = 20
end_bonus = 1.0
candidates = 32
iterations = 2
rate = 0.7
temperature = 0.05
prior = 1.0
fluency = 0.2

[prompts]
caption = "a portrait of"
ocr = "a person in a shirt that says"
world = "This person has"

[weight]
optimise = 5.0
fuse = 5.0

[presets.ocr]
length = 3
shortest = 1
"""


class LanguageSettings(ObjectiveSettings):
    """The ``[settings]`` of a language model's recipe."""

    vocabulary: int = Field(1280, ge=300, description="entries of the byte-level vocabulary")
    corpus: int = Field(30_000, ge=100, description="texts the vocabulary is learnt from")
    positions: int = Field(96, ge=16, description="the most tokens the model can read")
    width: int = Field(160, ge=8, description="features of a token")
    layers: int = Field(4, ge=1, description="transformer blocks")
    heads: int = Field(5, ge=1, description="attention heads")


@dataclass(frozen=True)
class LanguageBatch:
    """Rows of texts end to end [n, positions + 1], int64; each begins with the begin token."""

    tokens: Tensor


class LanguageObjective(Objective[LanguageBatch]):
    """Cross entropy of the next token.  Source: Radford et al. 2019."""

    name = "language"
    Settings = LanguageSettings
    own_data = "texts made by grammar"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary, learnt from the first texts of the corpus."""
        texts = (document(self.around.seed, index) for index in range(self.settings.corpus))
        return learn_vocabulary(texts, self.settings.vocabulary)

    @cached_property
    def config(self) -> GPT2Config:
        """The architecture, with the vocabulary's true size."""
        s, size = self.settings, self.tokenizer.get_vocab_size()
        end = self.tokenizer.token_to_id(END_OF_TEXT)
        return GPT2Config(
            vocab_size=size, n_positions=s.positions, n_embd=s.width, n_layer=s.layers,
            n_head=s.heads, bos_token_id=end, eos_token_id=end,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )  # fmt: skip

    def build(self) -> nn.Module:
        """A fresh GPT-2 with tied embeddings."""
        model: nn.Module = GPT2LMHeadModel(self.config)
        return model

    def batch(self, share: Share) -> LanguageBatch:
        """Rows of new texts: a text is read once and never again."""
        length = self.settings.positions + 1
        first = share.position * share.size
        rows = [self._row(self.around.seed, first + row, length)
                for row in range(share.size)[share.rows]]  # fmt: skip
        return LanguageBatch(torch.tensor(rows))

    def _row(self, seed: int, row: int, length: int) -> list[int]:
        """Texts end to end from a begin token on; texts of different rows differ."""
        end = self.config.bos_token_id
        tokens = [end]
        place = 0
        while len(tokens) < length:
            text = document(seed + 1_000_000_007, row * 64 + place)
            tokens += [*self.tokenizer.encode(text).ids, end]
            place += 1
        return tokens[:length]

    def loss(self, model: nn.Module, batch: LanguageBatch, share: Share) -> tuple[Tensor, Parts]:
        """The mean cross entropy in nats of each token after the first."""
        logits = model(input_ids=batch.tokens[:, :-1], use_cache=False).logits.float()
        loss = functional.cross_entropy(logits.flatten(0, 1), batch.tokens[:, 1:].flatten())
        return loss, {"perplexity": loss.detach().exp()}

    @torch.no_grad()
    def monitor(self, model: nn.Module) -> dict[str, float]:
        """The cross entropy in nats a token on texts no training reads."""
        device = next(model.parameters()).device
        rows = [
            self._row(HELD_OUT_SEED, row, self.settings.positions + 1)
            for row in range(HELD_OUT_TEXTS // 20)
        ]
        tokens = torch.tensor(rows, device=device)
        total = 0.0
        for start in range(0, len(tokens), 20):
            part = tokens[start : start + 20]
            logits = model(input_ids=part[:, :-1], use_cache=False).logits.float()
            picked = functional.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten())
            total += float(picked) * len(part)
        return {"held_out_nats": total / len(tokens)}

    def product(self, model: nn.Module) -> Product:
        """Role ``language``, kind ``gpt2``, in transformers' folder layout."""
        held_out = self.monitor(model)["held_out_nats"]
        floor = float(torch.tensor(float(self.config.vocab_size)).log())
        tensors = {
            name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"
        }
        return Product(
            role="language",
            kind="gpt2",
            metrics={"held_out_nats": Metric(held_out, floor=floor)},
            notes="Trained on text alone; attributes drawn uniformly.",
            tensors=tensors,
            files={
                "config.json": (self.config.to_json_string() + "\n").encode(),
                "tokenizer.json": self.tokenizer.to_str(pretty=True).encode(),
                PROFILE_FILE: PROFILE.encode(),
            },
        )

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put shipped tensors back; the output layer shares the embedding.

        Raises:
            RuntimeError: names or shapes that do not fit.
        """
        shared = {"lm_head.weight": tensors["transformer.wte.weight"]}
        model.load_state_dict({**tensors, **shared})

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Weight decay on matrices, but not on embeddings."""
        return parameter.ndim > 1 and "wte" not in name and "wpe" not in name
