"""Trains a small GPT-2 language model on captions alone, for captioning with a CLIP.

Source: Radford et al. 2019.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from pydantic import Field
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from guided.language.bpe import END_OF_TEXT, learn_vocabulary
from guided.language.profile import PROFILE_FILE
from guided.training.folder_pairs import FolderPairs
from guided.training.objective import BatchContext, Metric, ObjectiveSettings, Parts, Product
from guided.training.pair_objective import PairObjective

#: Rows of held-out text that the monitor reads.
HELD_OUT_ROWS = 100
#: Captions a row is made of at most, so that rows of a batch differ.
_STRIDE = 64
#: How a model of a folder's captions is asked for one; ``captions.toml`` beside its weights.
PROFILE = """end = "{end}"
length = {length}
shortest = {shortest}
end_bonus = 1.0
candidates = 64
iterations = 2
rate = 0.7
temperature = 0.05
prior = 1.0
fluency = 0.2

[prompts]
caption = ""
ocr = ""
world = ""

[weight]
optimise = 5.0
fuse = 5.0
"""


class LanguageSettings(ObjectiveSettings):
    """The ``[settings]`` of a language model's recipe."""

    vocabulary: int = Field(1280, ge=300, description="entries of the byte-level vocabulary")
    positions: int = Field(96, ge=16, description="the most tokens the model can read")
    width: int = Field(160, ge=8, description="features of a token")
    layers: int = Field(4, ge=1, description="transformer blocks")
    heads: int = Field(5, ge=1, description="attention heads")


@dataclass(frozen=True)
class LanguageBatch:
    """Rows of texts end to end [n, positions + 1], int64; each begins with the begin token."""

    tokens: Tensor


class LanguageObjective(PairObjective[LanguageBatch]):
    """Cross entropy of the next token of captions end to end."""

    name = "language"
    Settings: ClassVar[type[ObjectiveSettings]] = LanguageSettings

    @property
    def size(self) -> int:
        """One pixel: nothing is seen."""
        return 1

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary, learnt from the texts that are trained on."""
        return learn_vocabulary(self.corpus(), self.settings.vocabulary)

    def corpus(self) -> Iterable[str]:
        """The texts of the vocabulary: every caption that is not held out."""
        return self.dataset.corpus()

    def text(self, number: int) -> str:
        """A text to train on, a function of its number: a caption drawn by chance."""
        return self._picked(self.captions, f"{self.ctx.seed}:{number}")

    def held_out_text(self, number: int) -> str:
        """A text of the monitor's: a caption of a held-out image, where there are any."""
        return self._picked(self.held_out, f"held out {number}")

    @cached_property
    def captions(self) -> list[str]:
        """The captions that are trained on."""
        return list(self.dataset.corpus())

    @cached_property
    def held_out(self) -> list[str]:
        """The captions of held-out images; where none are held out, those that are trained on."""
        assert isinstance(self.dataset, FolderPairs)
        held = [text for entry in self.dataset.held for text in entry.captions]
        return held or self.captions

    @staticmethod
    def _picked(texts: list[str], name: str) -> str:
        digest = hashlib.sha256(name.encode()).digest()
        return texts[int.from_bytes(digest[:8], "little") % len(texts)]

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

    def batch(self, share: BatchContext) -> LanguageBatch:
        """Rows of texts end to end."""
        first = share.position * share.size
        rows = [self._row(self.text, first + row) for row in range(share.size)[share.rows]]
        return LanguageBatch(torch.tensor(rows))

    def _row(self, text: Callable[[int], str], row: int) -> list[int]:
        """Texts end to end from a begin token on; texts of different rows have other numbers."""
        end, length = self.config.bos_token_id, self.settings.positions + 1
        tokens = [end]
        offset = 0
        while len(tokens) < length:
            encoded = self.tokenizer.encode(text(row * _STRIDE + offset))
            tokens += [*encoded.ids, end]
            offset += 1
        return tokens[:length]

    def loss(
        self, model: nn.Module, batch: LanguageBatch, share: BatchContext
    ) -> tuple[Tensor, Parts]:
        """The mean cross entropy in nats of each token after the first."""
        logits = model(input_ids=batch.tokens[:, :-1], use_cache=False).logits.float()
        loss = functional.cross_entropy(logits.flatten(0, 1), batch.tokens[:, 1:].flatten())
        return loss, {"perplexity": loss.detach().exp()}

    @torch.no_grad()
    def monitor(self, model: nn.Module) -> dict[str, float]:
        """The cross entropy in nats a token on texts no training reads."""
        device = next(model.parameters()).device
        rows = [self._row(self.held_out_text, row) for row in range(HELD_OUT_ROWS)]
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
            notes=self.notes(),
            licence=self.licence,
            tensors=tensors,
            files={
                "config.json": (self.config.to_json_string() + "\n").encode(),
                "tokenizer.json": self.tokenizer.to_str(pretty=True).encode(),
                PROFILE_FILE: self.profile().encode(),
            },
        )

    @property
    def licence(self) -> str:
        """That of what it was trained on."""
        return self.dataset.licence

    def notes(self) -> str:
        """What a card says."""
        return f"Trained on text alone. {self.origin()}"

    def profile(self) -> str:
        """How the model is asked for a caption: as long as those it knows."""
        lengths = sorted(len(self.tokenizer.encode(text).ids) for text in self.captions)
        longest, shortest = (lengths[int(q * (len(lengths) - 1))] for q in (0.95, 0.05))
        return PROFILE.format(
            end=END_OF_TEXT,
            length=max(3, min(longest, self.settings.positions // 2)) + 1,
            shortest=max(1, min(shortest, self.settings.positions // 2)),
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
