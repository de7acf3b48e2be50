"""The wear and tear that a picture may have: blur, compression, noise, shifts, another light."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from guided.training.objective import BatchContext


def to_float(pictures: Tensor) -> Tensor:
    """Pictures [n, 3, H, W] uint8 as float32 in [0, 1]."""
    return pictures.to(torch.float32).mul_(1 / 255)


def jpeg(pictures: Tensor, quality: int) -> Tensor:
    """Pictures [n, 3, H, W] uint8 after JPEG compression of a quality from 1 to 95."""
    worn = []
    for picture in pictures.permute(0, 2, 3, 1).cpu().numpy():
        with io.BytesIO() as buffer:
            Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
            with Image.open(buffer) as image:
                worn.append(np.asarray(image.convert("RGB")))
    return torch.from_numpy(np.stack(worn)).permute(0, 3, 1, 2).to(pictures.device)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Images [B, C, H, W] after a Gaussian blur of ``sigma`` pixels, edges repeated."""
    radius = max(1, math.ceil(2.5 * sigma))
    places = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    padded = F.conv2d(padded, kernel, groups=images.shape[1])
    return F.conv2d(padded, kernel.transpose(2, 3), groups=images.shape[1])


def affine(images: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Images [B, C, H, W] moved by ``shift`` [B, 2] pixels (x, y) and grown by ``scale`` [B].

    What comes in from outside repeats the edge.
    """
    count, _, height, width = images.shape
    theta = torch.zeros(count, 2, 3, device=images.device, dtype=images.dtype)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
    theta[:, 0, 2] = -2 * shift[:, 0] / width / scale
    theta[:, 1, 2] = -2 * shift[:, 1] / height / scale
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _brightness(images: Tensor, gain: Tensor, lift: Tensor) -> Tensor:
    return images * gain[:, None, None, None] + lift[:, None, None, None]


def degrade(pictures: Tensor, share: BatchContext, clean: float) -> Tensor:
    """Pictures [n, 3, H, W] uint8 as images in [0, 1], a ``clean`` share of them untouched.

    The others are moved by up to 6 pixels and grown by up to 6 %; of these every fifth is
    compressed as JPEG, every fourth blurred, every fourth noisy and every second in another light.
    A function of ``share`` alone: rows are worn alike however many processes share the batch.
    """
    device = pictures.device
    stream = share.generator("wear")
    uniform = torch.rand(share.size, 8, generator=stream)[share.rows].to(device)
    qualities = torch.randint(25, 95, (4,), generator=stream).tolist()
    sigma = 0.4 + 1.2 * float(torch.rand((), generator=stream))
    worn = uniform[:, 0] >= clean
    pictures = pictures.clone()
    for band, quality in enumerate(qualities):
        rows = worn & (uniform[:, 1] >= 0.05 * band) & (uniform[:, 1] < 0.05 * (band + 1))
        if rows.any():
            pictures[rows] = jpeg(pictures[rows], int(quality))
    images = to_float(pictures)
    rows = worn
    if rows.any():
        scale = 1 + 0.12 * (uniform[rows, 4] - 0.5)
        images[rows] = affine(images[rows], 12 * (uniform[rows, 2:4] - 0.5), scale)
    rows = worn & (uniform[:, 5] < 0.25)
    if rows.any():
        images[rows] = blur(images[rows], sigma)
    rows = worn & (uniform[:, 6] < 0.5)
    if rows.any():
        gain = 1 + 0.3 * (2 * uniform[rows, 6] - 0.5)
        images[rows] = _brightness(images[rows], gain, 0.1 * (uniform[rows, 7] - 0.5))
    rows = worn & (uniform[:, 5] > 0.75)
    if rows.any():
        noise = share.generator(f"noise {share.rank}", device)
        grain = torch.randn(images[rows].shape, generator=noise, device=device)
        images[rows] += grain * (0.01 + 0.06 * uniform[rows, 7])[:, None, None, None]
    return images.clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def augment(pictures: Tensor, share: BatchContext, clean: float) -> Tensor:
    """Pictures [n, 3, H, W] uint8 as images in [0, 1], a ``clean`` share of them untouched.

    The others look as a generator may redraw them: in four lots, each blurred or compressed by its
    own amount, moved by up to 1.5 pixels, in another light, a little noisy.
    """
    stream = share.generator("soften")
    uniform = torch.rand(share.size, 6, generator=stream)[share.rows].to(pictures.device)
    amounts = torch.rand(4, generator=stream).tolist()
    images = to_float(pictures)
    worn = uniform[:, 0] >= clean
    for lot, amount in enumerate(amounts):
        rows = worn & (uniform[:, 1] >= lot / 4) & (uniform[:, 1] < (lot + 1) / 4)
        if not rows.any():
            continue
        if lot == 0:
            images[rows] = to_float(jpeg(pictures[rows], 40 + int(50 * amount)))
        elif lot < 3:
            images[rows] = blur(images[rows], 0.4 + 1.4 * amount)
    if worn.any():
        shift = 3 * (uniform[worn, 2:4] - 0.5)
        images[worn] = affine(images[worn], shift, torch.ones_like(shift[:, 0]))
        gain = 1 + 0.3 * (uniform[worn, 4] - 0.5)[:, None, None, None]
        noise = share.generator(f"noise {share.rank}", pictures.device)
        grain = torch.randn(images[worn].shape, generator=noise, device=pictures.device)
        images[worn] = images[worn] * gain + 0.03 * uniform[worn, 5, None, None, None] * grain
    return images.clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def recolor(
    images: Tensor, share: BatchContext, part: float, *, vivid: bool = False
) -> tuple[Tensor, Tensor]:
    """Images [n, 3, H, W] in [0, 1], a ``part`` of them in other colours, and which [n] they are.

    Their channels change places and fade towards grey (less so with ``vivid``), and their light
    changes: shapes stay, so what is named by its shape is learnt in any colour.
    """
    stream = share.generator("recolor")
    uniform = torch.rand(share.size, 4, generator=stream)[share.rows].to(images.device)
    order = torch.randperm(3, generator=stream).tolist()
    rows = uniform[:, 0] < part
    if rows.any():
        chosen = images[rows]
        grey = chosen.mean(1, keepdim=True)
        fade, gain, lift = uniform[rows, 1:].T[..., None, None, None]
        fade = fade.square() if vivid else fade
        mixed = fade * grey + (1 - fade) * chosen[:, order]
        images = images.clone()
        images[rows] = (mixed * (0.6 + 0.6 * gain) + 0.4 * (lift - 0.3)).clamp(0, 1)
    return images.contiguous(memory_format=torch.channels_last), rows


def _grain(images: Tensor, sigma: float) -> Tensor:
    stream = torch.Generator().manual_seed(20)
    return (images + sigma * torch.randn(images.shape, generator=stream).to(images)).clamp(0, 1)


def _moved(images: Tensor) -> Tensor:
    shift = torch.tensor([[5.0, -4.0], [-4.0, 5.0], [5.0, 5.0], [-5.0, -4.0]], device=images.device)
    rows = torch.arange(len(images), device=images.device) % 4
    return affine(images, shift[rows], torch.ones(len(images), device=images.device))


#: Fixed wear for measurements: uint8 pictures [n, 3, H, W] to images in [0, 1].
DEGRADATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "clean": to_float,
    "blur": lambda pictures: blur(to_float(pictures), 1.0),
    "jpeg": lambda pictures: to_float(jpeg(pictures, 50)),
    "noise": lambda pictures: _grain(to_float(pictures), 0.05),
    "shift": lambda pictures: _moved(to_float(pictures)),
}
