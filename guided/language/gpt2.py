"""GPT-2 of any size, through transformers, with a key/value context that can be edited."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

from guided.core.device import Device
from guided.core.protocols import Latent
from guided.core.shapes import expect
from guided.core.words import Reading
from guided.errors import CannotDo, CorruptWeights, MissingWeights
from guided.language.vocabulary import Vocabulary
from guided.zoo.packing import load_weights

#: Files of a model folder, as transformers saves it.
MODEL_FILES = ("config.json", "model.safetensors")


class Gpt2:
    """A frozen GPT-2 whose context is a dict of leaves ``key_00``, ``value_00``, ``key_01``, ...

    Every leaf is [B, heads, positions, width].  All rows of a batch have the same number of
    tokens, so nothing is ever padded and a row does not depend on its neighbours.

    Source: Radford et al. 2019.
    """

    def __init__(
        self,
        model: GPT2LMHeadModel,
        vocabulary: Vocabulary,
        device: Device | None = None,
        name: str = "gpt2",
    ) -> None:
        self.device = device or Device()
        self.model = self.device.settle(model)
        self.words = vocabulary
        self.name = name
        self.vocabulary = int(model.config.vocab_size)
        self.positions = int(model.config.n_positions)
        self.begin = int(model.config.bos_token_id)
        self.layers = int(model.config.n_layer)

    @classmethod
    def load(cls, folder: Path, device: Device | None = None, name: str = "") -> Gpt2:
        """The model of a folder in transformers' layout (safetensors and a tokenizer).

        Raises:
            MissingWeights: a file is not there; the message names it and the folder.
            CorruptWeights: files that do not make a GPT-2.
        """
        missing = [file for file in MODEL_FILES if not (folder / file).is_file()]
        if missing:
            raise MissingWeights(
                f"The language model {name or folder.name!r} needs {' and '.join(missing)} "
                f"in {folder}.",
                hint="Put them there, or fetch a model: guided models get gpt2 --online",
            )
        vocabulary = Vocabulary.load(folder)
        try:
            model = _built(folder)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise CorruptWeights(
                f"The files in {folder} do not make a GPT-2: {str(error).splitlines()[0]}",
                hint="Fetch or build the model again.",
            ) from error
        return cls(model, vocabulary, device, name or folder.name)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the weights: the identity of the model."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.transformer.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def encode(self, text: str) -> list[int]:
        """The token ids of a text, without the begin token."""
        return self.words.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids; bytes that are no UTF-8 become U+FFFD."""
        return self.words.decode(tokens)

    def read(self, tokens: Tensor, context: Latent | None = None) -> Reading:
        """The reading after tokens [B, T], int64, that follow a context of P positions.

        The returned context has P + T positions.  Differentiable in the context's leaves.

        Raises:
            ShapeError: tokens of another shape.
            CannotDo: more positions than the model has.
        """
        expect(tokens, "b t", "tokens")
        length = tokens.shape[1] + context_length(context)
        if length > self.positions:
            raise CannotDo(
                f"{self.name!r} reads at most {self.positions} tokens, not {length}.",
                hint="Give a shorter prompt or fewer words to write.",
            )
        cache = _cache(context, self.layers)
        # The cache by its place: releases of transformers differ in what they call it.
        hidden = self.model.transformer(
            tokens.to(self.device.torch), cache, use_cache=True
        ).last_hidden_state
        return Reading(self.model.lm_head(hidden[:, -1]), _leaves(cache))

    def losses(self, tokens: Tensor, start: int = 1) -> Tensor:
        """The mean negative log-probability [B] in nats of tokens [B, T] from ``start`` on.

        Raises:
            ShapeError: tokens of another shape.
            CannotDo: nothing to predict, or more positions than the model has.
        """
        expect(tokens, "b t", "tokens")
        if not 1 <= start < tokens.shape[1] <= self.positions:
            raise CannotDo(
                f"{self.name!r} can rate tokens from 1 to {self.positions - 1} after the first; "
                f"given {tokens.shape[1]} tokens and start {start}."
            )
        tokens = tokens.to(self.device.torch)
        with torch.no_grad():
            logits = self.model(input_ids=tokens[:, :-1], use_cache=False).logits
        spoken = torch.log_softmax(logits[:, start - 1 :].float(), dim=-1)
        return -spoken.gather(2, tokens[:, start:, None]).squeeze(2).mean(dim=1)


def _built(folder: Path) -> GPT2LMHeadModel:
    """The model of a folder, float32, its output layer tied to the embedding."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type", "gpt2") != "gpt2":
        raise ValueError(f"it is a {config['model_type']!r}")
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config(**config))
    found: dict[str, Tensor] = {}
    for name, tensor in load_weights(folder / "model.safetensors").items():
        whole = name if name.startswith("transformer.") else f"transformer.{name}"
        if not whole.endswith((".attn.bias", ".attn.masked_bias", "lm_head.weight")):
            found[whole] = tensor.float()
    found["lm_head.weight"] = found["transformer.wte.weight"]
    model.load_state_dict(found, assign=True)
    model.tie_weights()
    return model


def context_length(context: Latent | None) -> int:
    """The number of positions a context holds."""
    return next(iter(context.values())).shape[2] if context else 0


def _cache(context: Latent | None, layers: int) -> Any:
    cache = DynamicCache()
    if context and context_length(context):
        for layer in range(layers):
            cache.update(context[f"key_{layer:02}"], context[f"value_{layer:02}"], layer)
    return cache


def _leaves(cache: Any) -> Latent:
    leaves: Latent = {}
    for number, layer in enumerate(cache.layers):
        leaves[f"key_{number:02}"] = layer.keys
        leaves[f"value_{number:02}"] = layer.values
    return leaves
