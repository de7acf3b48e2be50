"""Any open_clip model as a scorer: public names, hub repositories, folders and shipped bundles."""

from __future__ import annotations

import copy
import hashlib
import logging
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from guided.core.device import Device
from guided.core.long_texts import Cut, LongText
from guided.core.shapes import expect
from guided.errors import (
    CannotDo,
    CorruptWeights,
    GuidedError,
    UnsafeWeights,
    library_message,
)
from guided.fast.vision_tower import FastVisionTower
from guided.scorers.attention import patch_attention
from guided.scorers.clip_files import ClipFiles, find, hub
from guided.scorers.fast_tower import Bulk, Kind, bulk_kind, fast_tower
from guided.scorers.files import Pixels, read_batches
from guided.scorers.preprocess import Preprocess
from guided.scorers.text import TextTower, Tokenizer
from guided.zoo.gate_calls import create_clip, create_tokenizer
from guided.zoo.nvidia import wants_code
from guided.zoo.packing import check_finite

logger = logging.getLogger(__name__)

_BROKEN = (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError)


class ClipScorer:
    """Unit embeddings of pictures and texts by an open_clip model.

    ``width`` is the embedding's size, ``scale`` the learned factor that turns cosines into
    logits (``exp(logit_scale)``), ``bias`` what is added to them (0 without one).  The model is
    settled on ``device``: frozen, in evaluation mode and, for ``precision="bf16"``, with bf16
    weights throughout; embeddings are always float32.

    ``bulk`` is how prepared pictures (``embed_pixels``, ``embed_files``) are embedded: "same", by
    the model, or on a CPU by a tower of its own for many pictures, in "bf16" or "int8" (the
    quickest; beside a model in fp32).  That tower is made and checked against the model when first
    used; ``bulk_precision`` and ``bulk_cosine`` then say what came of it.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        *,
        name: str,
        device: Device | None = None,
        fingerprint: Callable[[], str] | None = None,
        bulk: Bulk = "same",
    ) -> None:
        self.name = name
        self.device = device or Device()
        self._wanted = bulk_kind(bulk, self.device)
        self.bulk_precision: str = self.device.precision
        self.bulk_cosine = 1.0
        self._tower: FastVisionTower | None = None
        visual: Any = model.visual
        self.preprocess = Preprocess.of(visual.preprocess_cfg)
        self._fingerprint = fingerprint or _content_of(model, self.preprocess)
        model_any: Any = model
        self.scale = float(model_any.logit_scale.detach().float().exp())
        bias = getattr(model_any, "logit_bias", None)
        self.bias = 0.0 if bias is None else float(bias.detach().float())
        patch_attention(model)
        self.model = self.device.prepare(model)
        self.texts = TextTower(self.model, tokenizer)
        self.context_length = self.texts.context_length
        self.width = self._width(visual)

    def _width(self, visual: Any) -> int:
        known = getattr(visual, "output_dim", None)
        if isinstance(known, int):
            return known
        with torch.no_grad():
            blank = torch.zeros(1, 3, *self.preprocess.size)
            return int(self.embed_images(blank).shape[1])

    @property
    def bulk(self) -> str:
        """How prepared pictures are embedded: "same" by the model, or the tower's precision."""
        return self._wanted or "same"

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the weights, configuration and tokenizer: the identity of the space."""
        return self._fingerprint()

    def embed_images(self, images: Tensor) -> Tensor:
        """Unit vectors [B, width], float32, of pictures [B, 3, H, W] in [0, 1]; differentiable.

        Raises:
            ShapeError: another shape.
        """
        expect(images, "b 3 h w", "images")
        return self._encode(self.preprocess.tensor(images.to(self.device.torch)))

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, width], float32, of texts; what is too long is cut, and logged.

        Raises:
            ShapeError: no text.
        """
        return self.texts(texts)

    def reading(self, long_text: LongText) -> ClipScorer:
        """This scorer as it treats long texts in that way; this one stays as it is.

        Raises:
            CannotDo: windows, of an object that encodes texts by itself.
        """
        if long_text == self.texts.long_text:
            return self
        other = copy.copy(self)
        other.texts = copy.copy(self.texts)
        other.texts.long_text = long_text
        return other

    def cuts(self, texts: Sequence[str]) -> list[Cut]:
        """The texts that are longer than the model can read, with their lengths."""
        return self.texts.cuts(texts)

    @torch.no_grad()
    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """Unit vectors [B, width] of prepared bytes [B, 3, *preprocess.size] (uint8).

        Raises:
            ShapeError: another size.
        """
        height, wide = self.preprocess.size
        expect(pixels, f"b 3 {height} {wide}", "pixels")
        pixels = pixels.to(self.device.torch)
        if self._wanted is not None:
            self._make_tower(self._wanted, pixels[:4])
        if self._tower is not None and pixels.dtype == torch.uint8:
            return functional.normalize(self._tower(pixels), dim=-1)
        return self._embed_pixels(pixels)

    def _embed_pixels(self, pixels: Tensor) -> Tensor:
        images = pixels.float() / 255
        return self._encode(self.preprocess.normalize(images))

    def _make_tower(self, kind: Kind, sample: Tensor) -> None:
        """Make the fast tower once; where it cannot be, say why and stay with the model."""
        self._wanted = None
        try:
            made = fast_tower(self.model, self.preprocess, kind, self._embed_pixels, sample)
        except CannotDo as error:
            level = logging.WARNING if kind == "int8" else logging.DEBUG
            stays = self.device.precision
            logger.log(level, "%s: pictures are embedded in %s. %s", self.name, stays, error)
            return
        self._tower, self.bulk_precision, self.bulk_cosine = made.tower, made.kind, made.cosine
        logger.info("%s: %s pictures, cosine >= %.5f", self.name, made.kind, made.cosine)

    def embed_files(
        self,
        files: Sequence[str | Path],
        *,
        batch: int = 32,
        threads: int = 2,
        exact: bool = False,
        given: Mapping[str, Image.Image] | None = None,
    ) -> Iterator[tuple[Pixels, Tensor]]:
        """Batches of files with their unit vectors [n, width], in the order given.

        Files are decoded by ``threads`` threads while the model works on the batch before.  A
        file that cannot be read is in ``Pixels.errors`` instead of a row.  ``exact`` switches off
        the reduced decoding of JPEG files.  ``given`` holds pictures in memory by the names that
        stand for them in ``files``.

        Raises:
            CannotDo: an embedding that is not finite; its file is named.
        """
        held = given or {}

        def decode(path: Path) -> Tensor:
            return self.preprocess.pixels(held.get(str(path), path), exact=exact)

        for pixels in read_batches(files, decode, batch=batch, threads=threads):
            if pixels.files:
                vectors = self.embed_pixels(torch.stack(pixels.rows))
                _check_embedded(self.name, pixels.files, vectors)
                yield pixels, vectors
            else:
                yield pixels, torch.empty(0, self.width)

    def _encode(self, prepared: Tensor) -> Tensor:
        model: Any = self.model
        features: Tensor = model.encode_image(prepared.to(self.device.dtype))
        return functional.normalize(features.float(), dim=-1)


def _check_embedded(scorer: str, files: Sequence[Path], vectors: Tensor) -> None:
    fine = vectors.isfinite().all(1).tolist()
    if not all(fine):
        raise CannotDo(
            f"The scorer {scorer!r} gave an embedding of {files[fine.index(False)]} that is not "
            "finite.",
            hint="Take precision = fp32; if that does not help, the model is unsound.",
        )


def _content_of(model: nn.Module, preprocess: Preprocess) -> Callable[[], str]:
    """The fingerprint of a model that was not loaded from files: its tensors, as they are now."""
    digest = hashlib.sha256(repr(sorted(asdict(preprocess).items())).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    result = digest.hexdigest()
    return lambda: result


def load_clip(
    name: str,
    device: Device | None = None,
    *,
    role: str = "scorer",
    online: bool = False,
    bulk: Bulk = "same",
) -> ClipScorer:
    """The scorer of that name; see ``clip_files.find`` for the names there are.

    Nothing is fetched unless ``online``.  A judge of the zoo loads with ``role="judge"`` alone.
    ``bulk`` is that of ``ClipScorer``.

    Raises:
        MissingWeights: files that are not on this computer.
        CannotDo: a model made for another role.
        CorruptWeights: files that open_clip cannot load.
        UnsafeWeights: settings or weights that would run code, or lead out of the folder.
        UsageError: an unknown name, or a ``bulk`` that the device does not have.
    """
    files = find(name, role=role, online=online)
    with hub(online=online):
        model = _load_model(files, online=online)
        tokenizer = _load_tokenizer(files, online=online)
    identity = files.fingerprint
    return ClipScorer(
        model, tokenizer, name=files.name, device=device, fingerprint=identity, bulk=bulk
    )


def _load_model(files: ClipFiles, *, online: bool) -> nn.Module:
    from safetensors import SafetensorError

    try:
        model: nn.Module = create_clip(
            files.model,
            files.weights,
            online=online,
            pretrained=files.tag,
            force_quick_gelu=files.quick_gelu,
            image_mean=files.preprocess.get("mean"),
            image_std=files.preprocess.get("std"),
            image_interpolation=files.preprocess.get("interpolation"),
            image_resize_mode=files.preprocess.get("resize_mode"),
        )
    except (SafetensorError, pickle.UnpicklingError, *_BROKEN) as error:
        raise _refused(files, error) from error
    check_finite(model.state_dict(), str(files.weights))
    for warning in files.warnings:
        logger.warning("%s", warning)
    return model


def _refused(files: ClipFiles, error: Exception) -> GuidedError:
    reason = library_message(error)
    if isinstance(error, pickle.UnpicklingError) and wants_code(error):
        return UnsafeWeights(
            f"{files.weights} holds more than tensors and plain values ({reason}); it was not "
            f"loaded.",
            hint="Ask its author for a safetensors file of the state dict.",
        )
    return CorruptWeights(
        f"The scorer {files.name!r} cannot be loaded from {files.weights}: {reason}.",
        hint="The file is damaged or belongs to another architecture.",
    )


def _load_tokenizer(files: ClipFiles, *, online: bool) -> Tokenizer:
    try:
        tokenizer: Tokenizer = create_tokenizer(files.model, online=online)
    except (*_BROKEN, ImportError) as error:
        raise CorruptWeights(
            f"The tokenizer of the scorer {files.name!r} cannot be loaded: "
            f"{library_message(error)}.",
            hint="Copy tokenizer.json and tokenizer_config.json of the same model again.",
        ) from error
    return tokenizer
