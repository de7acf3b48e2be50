"""A small CLIP of one's own as an open_clip bundle: tokenizer, configuration, folder.

The bundle is what ``open_clip`` loads under the name ``local-dir:FOLDER``: a configuration, a
``safetensors`` file and a fast tokenizer, so no loading code of our own is needed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from guided.nets.clip_text import encode_trimmed

PAD, START, END = "<pad>", "<start>", "<end>"
PAD_ID, START_ID, END_ID = 0, 1, 2
CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
MEAN = STD = (0.5, 0.5, 0.5)


def train_tokenizer(
    texts: Iterator[str] | Sequence[str],
    vocabulary: int,
    context: int,
    *,
    spelled: bool = True,
    seldom: int = 0,
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most ``vocabulary`` entries, padding id 0, start 1, end 2.

    Text is lower-cased; where ``spelled``, words in capitals are first spelled with hyphens ("OK"
    -> "o-k"), so the letters on a shirt stay apart from the same word in a sentence.  Bytes are the
    alphabet, so no text is unknown.  Pairs that occur less than ``seldom`` times are not merged,
    so that few texts make fewer entries.
    """
    tokenizer = Tokenizer(models.BPE())
    hyphens = [normalizers.Replace(Regex("(?<=[A-Z])(?=[A-Z])"), "-")] if spelled else []
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), *hyphens, normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=seldom,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, START_ID), (END, END_ID)]
    )
    return wrapped(tokenizer, context)


def wrapped(tokenizer: Tokenizer, context: int) -> PreTrainedTokenizerFast:
    """A tokenizer with this module's special tokens, for texts of up to ``context`` tokens."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
    )


def tokenizer_of(folder: Path, context: int) -> PreTrainedTokenizerFast | None:
    """The tokenizer of a bundle's folder, or None where it has none."""
    file = folder / "tokenizer.json"
    return wrapped(Tokenizer.from_file(str(file)), context) if file.is_file() else None


def tokenizer_files(tokenizer: PreTrainedTokenizerFast) -> dict[str, bytes]:
    """The files of a fast tokenizer by name."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def bundle_config(model: dict[str, Any]) -> bytes:
    """The text of ``open_clip_config.json`` for a model configuration."""
    preprocess = {
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    config = {"model_cfg": model, "preprocess_cfg": preprocess}
    return (json.dumps(config, indent=2) + "\n").encode()


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tensor:
    """Token ids int64 [N, L], padded to the longest text (at most the context)."""
    encoded = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    ids: Tensor = encoded["input_ids"]
    return ids


def normalized_pixels(pixels: Tensor) -> Tensor:
    """Images uint8 [B, 3, H, W] as the towers want them, float32."""
    mean = torch.tensor(MEAN, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(STD, device=pixels.device).view(3, 1, 1)
    return (pixels.float().div(255) - mean) / std


def embed_pixels(clip: Any, pixels: Tensor, batch: int = 128) -> Tensor:
    """Unit embeddings [N, D] of images uint8 [N, 3, H, W] of the towers' own size."""
    weight = next(clip.parameters())
    mean = torch.tensor(MEAN, device=weight.device).view(3, 1, 1)
    std = torch.tensor(STD, device=weight.device).view(3, 1, 1)
    parts = []
    for part in torch.split(pixels, batch):
        images = (part.to(weight.device).float().div(255) - mean) / std
        parts.append(F.normalize(clip.encode_image(images.to(weight.dtype)).float(), dim=1))
    return torch.cat(parts)


def embed_texts(clip: Any, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    """Unit embeddings [N, D] of texts."""
    device = next(clip.parameters()).device
    ids = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")["input_ids"]
    return F.normalize(encode_trimmed(clip, ids.to(device)).float(), dim=1)
