"""The user's own scorer: an open_clip model, or any object that embeds images and texts."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided.core.device import Device
from guided.core.long_texts import Cut, LongText
from guided.core.shapes import expect
from guided.errors import CannotDo
from guided.scorers.clip import ClipScorer
from guided.scorers.preprocess import Preprocess

#: What the fingerprint of an object is taken of, besides an image of noise.
_PROBES = ("a photo", "a red hat", "two dogs in the snow")


class ObjectScorer(ClipScorer):
    """An object with ``embed_images`` ([B, 3, H, W] in [0, 1] to [B, D]) and ``embed_texts`` (texts
    to [N, D]) as a scorer.

    Embeddings are brought to unit length and float32.  Its attributes ``size`` (of the images it
    gets from files, 224), ``scale`` (of logits, 100) and ``name`` are used where it has them.  Its
    fingerprint is taken of what it says of some texts and an image, to three digits.
    """

    def __init__(self, given: Any, name: str, device: Device) -> None:
        self.name = str(getattr(given, "name", "") or name)
        self.device = device
        self._given, self._wanted, self._tower = given, None, None
        self.bulk_precision, self.bulk_cosine = "fp32", 1.0
        size = getattr(given, "size", 224)
        sides = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        self.preprocess = Preprocess(sides, (0.0,) * 3, (1.0,) * 3)
        self.scale, self.bias = float(getattr(given, "scale", 100.0)), 0.0
        self.width = int(self.embed_texts(_PROBES[:1]).shape[1])
        self._fingerprint = self._probed

    def embed_images(self, images: Tensor) -> Tensor:
        """Unit vectors [B, width], float32, of images [B, 3, H, W] in [0, 1]."""
        expect(images, "b 3 h w", "images")
        vectors = self._unit(self._given.embed_images(images.to(self.device.torch)), len(images))
        if bool(images.isfinite().all()):  # else the image is at fault
            self._check(vectors, "an image")
        return vectors

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, width], float32, of texts."""
        vectors = self._unit(self._given.embed_texts(list(texts)), len(texts))
        self._check(vectors, f"one of the texts {list(texts)[:3]}")
        return vectors

    def reading(self, long_text: LongText) -> ClipScorer:
        """The object, where texts are cut; it alone knows its context.

        Raises:
            CannotDo: windows.
        """
        if long_text == "windows":
            raise CannotDo(
                f"The scorer {self.name!r} is an object that encodes texts by itself, so they "
                "cannot be read in windows.",
                hint="Leave long_text out, or give (model, tokenizer) of open_clip.",
            )
        return self

    def cuts(self, texts: Sequence[str]) -> list[Cut]:
        """None: only the object knows what it cuts."""
        return []

    def _embed_pixels(self, pixels: Tensor) -> Tensor:
        return self.embed_images(pixels.float() / 255)

    def _unit(self, vectors: Any, rows: int) -> Tensor:
        if not isinstance(vectors, Tensor) or vectors.ndim != 2 or len(vectors) != rows:
            shape = list(getattr(vectors, "shape", ())) or type(vectors).__name__
            raise CannotDo(
                f"The scorer {self.name!r} gave {shape} for {rows} inputs.",
                hint=f"embed_images and embed_texts must give a tensor [{rows}, D].",
            )
        return F.normalize(vectors.float(), dim=1)

    def _check(self, vectors: Tensor, what: str) -> None:
        if not bool(vectors.isfinite().all()):
            raise CannotDo(
                f"The scorer {self.name!r} gave an embedding of {what} that is not finite.",
                hint="embed_images and embed_texts must give finite numbers.",
            )

    def _probed(self) -> str:
        noise = torch.rand(1, 3, *self.preprocess.size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            seen = torch.cat([self.embed_texts(_PROBES), self.embed_images(noise)])
        numbers = (seen.cpu() * 1000).round().int().numpy().tobytes()
        return hashlib.sha256(numbers).hexdigest()


def scorer_of(given: Any, device: Device, name: str) -> ClipScorer:
    """A scorer made of the user's own object; the object itself stays as it is.

    Accepted are a ``ClipScorer``, a pair of an open_clip model and its tokenizer, an open_clip
    model alone that reads CLIP's own 49408 tokens, and objects as ``ObjectScorer`` describes.

    Raises:
        CannotDo: anything else.
    """
    if isinstance(given, ClipScorer):
        return given
    if callable(getattr(given, "embed_images", None)) and callable(
        getattr(given, "embed_texts", None)
    ):
        return ObjectScorer(given, name, device)
    model, tokenizer = (
        given if isinstance(given, (tuple, list)) and len(given) == 2 else (given, None)
    )
    if isinstance(model, nn.Module) and hasattr(model, "encode_image"):
        if tokenizer is None and getattr(model, "vocab_size", 0) == 49408:
            from open_clip import SimpleTokenizer

            tokenizer = SimpleTokenizer(context_length=int(getattr(model, "context_length", 77)))
        if callable(tokenizer) and hasattr(getattr(model, "visual", None), "preprocess_cfg"):
            return ClipScorer(copy.deepcopy(model), tokenizer, name=name, device=device)
    raise CannotDo(
        f"A {type(given).__name__} is no scorer.",
        hint="Give (model, tokenizer) of open_clip, or what has embed_images and embed_texts.",
    )
