"""Text encoding for diffusion: stock pipelines' prompts, and our own CLIP as their text encoder.

The causal text tower of an open_clip model becomes the CLIPTextModelWithProjection of transformers
(the same function; its weights only have other names), so that a pipeline which reads with it saves
and loads like any other.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.long_texts import cut_of, is_longer, windows
from guided.core.offload import execution_device
from guided.errors import CannotDo, library_message
from guided.generators.diffusion.base import Conditioning, PromptBatch
from guided.generators.diffusion.sizes import check_tokens

logger = logging.getLogger(__name__)

_BLOCK = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip
_INPUTS = ("q_proj", "k_proj", "v_proj")
_ACTIVATIONS = {"GELU": "gelu", "QuickGELU": "quick_gelu"}


class TextFeatures(NamedTuple):
    """Texts as a tower reads them.

    ``states`` [N, L, W] after the last norm, ``mask`` [N, L] (1 is read), ``pooled`` [N, D] the
    unit embeddings, float32.
    """

    states: Tensor
    mask: Tensor
    pooled: Tensor


def text_encoder_of(model: Any, end: int) -> Any:
    """A CLIPTextModelWithProjection that equals the text tower of an open_clip model.

    ``end`` is the id of the end token, where texts are pooled.

    Raises:
        CannotDo: a tower of another kind.
    """
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    parts = getattr(model, "text", model)
    try:
        block = parts.transformer.resblocks[0]
        activation = _ACTIVATIONS[type(block.mlp.gelu).__name__]
        places, width = parts.positional_embedding.shape
        state = {name: value.detach().float() for name, value in parts.state_dict().items()}
        projection = state["text_projection"]
        config = CLIPTextConfig(
            vocab_size=len(state["token_embedding.weight"]), hidden_size=width,
            intermediate_size=len(state["transformer.resblocks.0.mlp.c_fc.weight"]),
            projection_dim=projection.shape[1], hidden_act=activation,
            num_hidden_layers=len(parts.transformer.resblocks),
            num_attention_heads=block.attn.num_heads, max_position_embeddings=places,
            bos_token_id=1, eos_token_id=end, pad_token_id=0,
        )  # fmt: skip
        encoder = CLIPTextModelWithProjection(config)
        encoder.load_state_dict(_renamed(state))
    except (AttributeError, KeyError, RuntimeError) as error:
        raise CannotDo(
            f"This CLIP's text tower cannot be read token by token: {library_message(error)}.",
            hint="Take a CLIP with open_clip's own causal text transformer.",
        ) from error
    return encoder.eval().requires_grad_(False)


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's tensors under the names of transformers."""
    found = {
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "text_model.final_layer_norm.weight": state["ln_final.weight"],
        "text_model.final_layer_norm.bias": state["ln_final.bias"],
        "text_projection.weight": state["text_projection"].T.contiguous(),
    }
    for name, value in state.items():
        if not name.startswith("transformer.resblocks."):
            continue
        number, _, rest = name.removeprefix("transformer.resblocks.").partition(".")
        place = f"text_model.encoder.layers.{number}"
        if rest.startswith("attn.in_proj_"):
            kind = rest.removeprefix("attn.in_proj_")
            for part, piece in zip(_INPUTS, value.chunk(3), strict=True):
                found[f"{place}.self_attn.{part}.{kind}"] = piece.contiguous()
            continue
        own, _, kind = rest.rpartition(".")
        found[f"{place}.{_BLOCK[own]}.{kind}"] = value
    return found


@torch.no_grad()
def encode_text(encoder: Any, tokenizer: Any, texts: Sequence[str]) -> TextFeatures:
    """Texts as tokens for a denoiser, padded to the longest; what is too long is cut."""
    device = execution_device(encoder)
    given = tokenizer(
        [" ".join(text.split()) for text in texts], padding=True, truncation=True,
        max_length=encoder.config.max_position_embeddings, return_tensors="pt",
    )["input_ids"].to(device)  # fmt: skip
    states = encoder(input_ids=given).last_hidden_state
    ends = (given == encoder.config.eos_token_id).int().argmax(1)
    mask = (torch.arange(given.shape[1], device=device) <= ends[:, None]).to(states.dtype)
    last = states[torch.arange(len(given), device=device), ends]
    pooled = F.normalize(encoder.text_projection(last).float(), dim=1)
    return TextFeatures(states, mask, pooled)


def stock_embeddings(
    pipe: Any, stock: Any, batch: PromptBatch, *, none: str | None = None, **settings: Any
) -> Any:
    """What the stock pipeline's ``encode_prompt`` gives; ``none`` stands for negatives all empty.

    ``stock`` is diffusers' own pipeline around the parts of ``pipe``.
    """
    check_tokens(pipe, dict.fromkeys([*batch.prompts, *batch.negatives]))
    report_truncation(pipe, [*batch.prompts, *batch.negatives])
    with torch.no_grad(), suppress_logging():
        return stock.encode_prompt(
            prompt=list(batch.prompts),
            device=pipe._execution_device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=bool(batch.negatives),
            negative_prompt=list(batch.negatives) if any(batch.negatives) else none,
            **settings,
        )


@contextlib.contextmanager
def suppress_logging() -> Iterator[None]:
    """Without what the libraries write about long texts: ``report_truncation`` says it shorter."""
    from diffusers.utils import logging as theirs
    from transformers.utils import logging as others

    levels = theirs.get_verbosity(), others.get_verbosity()
    theirs.set_verbosity_error()
    others.set_verbosity_error()
    try:
        yield
    finally:
        theirs.set_verbosity(levels[0])
        others.set_verbosity(levels[1])


def token_count(pipe: Any, text: str) -> int:
    """How many tokens a text has for a pipeline's tokenizer, as its family prepares texts."""
    with suppress_logging():
        return len(pipe.tokenizer(pipe.family.normalize_prompt(text))["input_ids"])


def expect_one_window(pipe: Any, texts: Sequence[str], reader: str) -> None:
    """Refuse texts beyond a pipeline's context for a ``reader`` ("The prior") of one alone.

    Raises:
        CannotDo: there is one.
    """
    limit = pipe.family.token_limit(pipe)
    if any(is_longer(text, partial(token_count, pipe), limit) for text in texts):
        raise CannotDo(
            f"{reader} reads one context of {limit} tokens, so a longer text cannot be read in "
            "windows.",
            hint="Leave --long-text out: the text is cut, and what is lost is named.",
        )


def report_truncation(pipe: Any, texts: Sequence[str]) -> None:
    """Log each text, once for each model, that is longer than it can read: the rest is cut."""
    if pipe.long_text == "windows":
        return
    count, limit = partial(token_count, pipe), pipe.family.token_limit(pipe)
    for text in dict.fromkeys(texts):
        cut = None if text in pipe.cut_texts else cut_of(text, count, limit, "model")
        if cut is not None:
            pipe.cut_texts.add(text)
            logger.warning("%s", cut)


def encode_windows(pipe: Any, batch: PromptBatch) -> Conditioning:
    """The conditioning of a batch whose texts are read in windows of the model's context.

    The hidden states of a text's windows follow one another; a row with fewer windows than others
    is masked behind its own, so that it does not depend on its batch.  What a family reads of a
    text as a whole (``pooled``) is that of the first window.

    Raises:
        CannotDo: a long text, and a family that reads one context alone.
        UsageError: a text of too many windows.
    """
    family = pipe.family
    count, limit = partial(token_count, pipe), family.token_limit(pipe)
    rows = [windows(text, count, limit) for text in (*batch.negatives, *batch.prompts)]
    most, apart = max(map(len, rows)), len(batch.negatives)
    if most == 1:
        return cast("Conditioning", family.encode_prompt(pipe, batch))
    if not family.joins_windows:
        expect_one_window(pipe, [*batch.negatives, *batch.prompts], f"The family {family.name}")
    parts: list[Conditioning] = []
    for number in range(most):
        texts = [row[number] if number < len(row) else "" for row in rows]
        column = replace(batch, prompts=texts[apart:], negatives=texts[:apart])
        parts.append(family.encode_prompt(pipe, column))
    masks = []
    for number, part in enumerate(parts):
        own = part.text.new_ones(part.text.shape[:2]) if part.mask is None else part.mask
        read = own.new_tensor([float(number < len(row)) for row in rows])
        masks.append(own * read[:, None])
    text = torch.cat([part.text for part in parts], 1)
    return replace(parts[0], text=text, mask=torch.cat(masks, 1))
