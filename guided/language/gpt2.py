"""GPT-2 of any size, through transformers, with a key/value context that can be edited."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

from guided.core.device import Device, widened
from guided.core.language_model import LanguageModelOutput
from guided.core.protocols import Latent
from guided.core.shapes import expect
from guided.errors import CannotDo, CorruptWeights, MissingWeights, library_message
from guided.language.vocabulary import Vocabulary
from guided.zoo.gate import inspect, read_settings
from guided.zoo.packing import load_weights

#: Files of a model folder, as transformers saves it.
MODEL_FILES = ("config.json", "model.safetensors")


class Gpt2:
    """A frozen GPT-2 whose context is a dict of leaves ``key_00``, ``value_00``, ``key_01``, ...

    Every leaf is [B, heads, positions, width], and like the logits float32 whatever the precision
    of the weights, so that what is searched and compared is exact.  All rows of a batch have the
    same number of tokens, so nothing is ever padded and a row does not depend on its neighbours.

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
        self.model = self.device.prepare(model)
        self.words = vocabulary
        self.name = name
        self.vocabulary = int(model.config.vocab_size)
        self.positions = int(model.config.n_positions)
        vocabulary.rows = self.vocabulary
        _check_vocabulary(vocabulary, self.vocabulary, name)
        self.begin = _begin(model.config, self.vocabulary, name)
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
        folder = inspect(folder)
        _check_kind(folder)
        vocabulary = Vocabulary.load(folder)
        try:
            model = _built(folder)
        except (
            OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError
        ) as error:  # fmt: skip
            raise CorruptWeights(
                f"The files in {folder} do not make a GPT-2: {library_message(error)}.",
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
        """The token ids of a text, without the begin token.

        Raises:
            CannotDo: a token that the tokenizer has and the model's embedding has not.
        """
        ids = self.words.encode(text)
        beyond = next((token for token in ids if token >= self.vocabulary), None)
        if beyond is not None:
            raise CannotDo(
                f"The text {text[:60]!r} holds the token {self.words.piece(beyond)!r} (id {beyond})"
                f", but the embedding of {self.name!r} has {self.vocabulary} rows.",
                hint="Leave that token out of the text.",
            )
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids; bytes that are no UTF-8 become U+FFFD."""
        return self.words.decode(tokens)

    def read(self, tokens: Tensor, context: Latent | None = None) -> LanguageModelOutput:
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
        cache = _cache(context, self.layers, self.model.dtype)
        # The cache by its place: releases of transformers differ in what they call it.
        hidden = self.model.transformer(
            tokens.to(self.device.torch), cache, use_cache=True
        ).last_hidden_state
        return LanguageModelOutput(widened(self.model.lm_head(hidden[:, -1])), _leaves(cache))

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
    """The model of a folder, float32, its output layer the embedding or its own."""
    config = read_settings(folder / "config.json")
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config(**config))
    found: dict[str, Tensor] = {}
    for name, tensor in load_weights(folder / "model.safetensors").items():
        inner = name.startswith(("transformer.", "lm_head."))
        whole = name if inner else f"transformer.{name}"
        if not whole.endswith((".attn.bias", ".attn.masked_bias")):
            found[whole] = tensor.float()
    tied = found["transformer.wte.weight"]
    if config.get("tie_word_embeddings", True) is not False:
        found["lm_head.weight"] = tied
    elif "lm_head.weight" not in found:
        raise ValueError("tie_word_embeddings is false, but there is no lm_head.weight")
    model.load_state_dict(found, assign=True)
    model.tie_weights()  # as its settings say
    return model


def _check_kind(folder: Path) -> None:
    """Accept the settings of a GPT-2.

    Raises:
        CannotDo: a model of another kind.
    """
    config = read_settings(folder / "config.json")
    kind = config.get("model_type", "gpt2") if isinstance(config, dict) else "gpt2"
    if kind != "gpt2":
        raise CannotDo(
            f"{folder} holds a language model of the kind {str(kind)[:40]!r}; only GPT-2 is "
            "supported.",
            hint="Take a GPT-2, for example --language openai-community/gpt2-medium.",
        )


def _check_vocabulary(vocabulary: Vocabulary, rows: int, name: str) -> None:
    """Accept a tokenizer whose own tokens all have a row; added ones may have none.

    Raises:
        CorruptWeights: the tokenizer of another model.
    """
    if vocabulary.learned_size > rows:
        raise CorruptWeights(
            f"The tokenizer of {name!r} has {vocabulary.learned_size} tokens, but the model's "
            f"embedding has {rows} rows.",
            hint="Put the tokenizer of the same model into the folder.",
        )


def _begin(config: Any, rows: int, name: str) -> int:
    """The token before the first: ``bos_token_id``, or ``eos_token_id`` where that is null.

    Raises:
        CorruptWeights: neither is the number of a row of the embedding.
    """
    token = config.eos_token_id if config.bos_token_id is None else config.bos_token_id
    if type(token) is not int or not 0 <= token < rows:
        raise CorruptWeights(
            f"The config.json of {name!r} has bos_token_id = {config.bos_token_id!r} and "
            f"eos_token_id = {config.eos_token_id!r}; the first token must be a whole number from "
            f"0 to {rows - 1}, the rows of the embedding.",
            hint="Write the id of the tokenizer's end-of-text token as bos_token_id.",
        )
    return token


def context_length(context: Latent | None) -> int:
    """The number of positions a context holds."""
    return next(iter(context.values())).shape[2] if context else 0


def _cache(context: Latent | None, layers: int, dtype: torch.dtype) -> Any:
    cache = DynamicCache()
    if context and context_length(context):
        for layer in range(layers):
            key, value = (context[f"{kind}_{layer:02}"].to(dtype) for kind in ("key", "value"))
            cache.update(key, value, layer)
    return cache


def _leaves(cache: Any) -> Latent:
    leaves: Latent = {}
    for number, layer in enumerate(cache.layers):
        leaves[f"key_{number:02}"] = widened(layer.keys)
        leaves[f"value_{number:02}"] = widened(layer.values)
    return leaves
