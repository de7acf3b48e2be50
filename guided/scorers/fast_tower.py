"""Fast image towers of an open_clip vision transformer on a CPU: bf16 or int8, checked when made.

The model is read into plain matrices (``guided.fast.vision_tower``), packed for the processor's
kernels and compared with the model itself.  Where that cannot be done, or the result is not near
enough, the caller is told why and keeps the model as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from guided.core.device import Device, multiplies_bf16
from guided.core.seeds import Seeds
from guided.errors import CannotDo, UsageError, library_message
from guided.fast import SWITCH, enabled
from guided.fast.linear import Act, Affine
from guided.fast.vision_tower import (
    Block,
    FastVisionTower,
    Frame,
    Weights,
    bf16_tower,
    int8_tower,
    spans,
)
from guided.scorers.attention import SelfAttention, plain_attention
from guided.scorers.preprocess import Preprocess

Bulk = Literal["same", "bf16", "int8"]
Kind = Literal["bf16", "int8"]
BOUND = 0.998  # the least cosine to the model that is accepted
_CHECKED_FROM = 1000
#: What torch raises where an operation is missing or takes other arguments.
_REFUSALS = (RuntimeError, AttributeError, TypeError, ValueError)


def bulk_kind(bulk: Bulk, device: Device) -> Kind | None:
    """The fast tower for a device; None: the model itself.

    Raises:
        UsageError: int8 for another device than a CPU in fp32, bf16 for a GPU in fp32.
    """
    if bulk == "same" or (bulk == device.precision and device.name != "cpu"):
        return None
    if device.name != "cpu" or (bulk == "int8" and device.precision != "fp32"):
        raise UsageError(
            f"{bulk} pictures are for a CPU"
            + (" and a model in fp32" if bulk == "int8" else "")
            + f", not {device.name} in {device.precision}.",
            hint="Use precision bf16 there.",
        )
    return bulk


@dataclass(frozen=True)
class Checked:
    """A fast tower and the least cosine [-1, 1] to its model on the pictures it was checked with.

    ``tower`` takes bytes [B, 3, H, W] and gives features [B, E], not normalised.
    """

    tower: FastVisionTower
    kind: Kind
    cosine: float


def fast_tower(
    model: nn.Module,
    preprocess: Preprocess,
    kind: Kind,
    embed: Callable[[Tensor], Tensor],
    sample: Tensor,
) -> Checked:
    """The image tower of an open_clip model in bf16 or int8, on the CPU.

    ``embed`` gives the model's own unit vectors [B, E] of bytes; the tower is compared with it on
    drawn textures and on ``sample`` [B, 3, H, W], which has no influence on what is made.

    Raises:
        CannotDo: a processor, a tower or a result that does not allow it; the message says which.
    """
    _expect_processor(kind)
    visual: Any = model.visual
    try:
        weights = read_tower(visual, preprocess)
        if kind == "bf16":
            tower = bf16_tower(weights)
        else:
            tower = int8_tower(weights, spans(weights, calibration(weights.frame.size)))
        pixels = torch.cat([textures(Seeds.of(_CHECKED_FROM, 4), weights.frame.size), sample])
        cosine = float((functional.normalize(tower(pixels), dim=1) * embed(pixels)).sum(1).min())
    except _REFUSALS as error:
        raise CannotDo(
            f"This torch or processor does not run {kind} towers: {library_message(error)}."
        ) from error
    if not cosine >= BOUND:
        raise CannotDo(
            f"The {kind} tower is too far from the model: cosine {cosine:.5f}, "
            f"allowed is {BOUND} or more.",
        )
    return Checked(tower, kind, cosine)


def _expect_processor(kind: str) -> None:
    if not enabled():
        raise CannotDo(f"{SWITCH}=0 is set in the environment.")
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        raise CannotDo("This build of torch has no oneDNN.")
    if kind == "bf16" and not multiplies_bf16(torch.device("cpu")):
        raise CannotDo("This processor has no bf16 products.")
    if kind == "int8" and not torch.cpu._is_vnni_supported():
        raise CannotDo("This processor has no 8-bit products (VNNI).")


def textures(seeds: Seeds, size: tuple[int, int]) -> Tensor:
    """Random pictures [N, 3, *size] (uint8): noise at all scales, in many colours and contrasts."""
    dice = seeds.uniform((3, 1, 1, 1), "dice")
    total = torch.zeros(len(seeds), 3, *size)
    for cells in (2, 4, 8, 16, 32, 64, max(size)):
        layer = seeds.uniform((3, cells, cells), f"cells {cells}") - 0.5
        smooth = functional.interpolate(layer, size=size, mode="bicubic", align_corners=False)
        total += (2 / cells) ** (1.2 * dice[:, 0]) * smooth
    total /= total.flatten(1).std(1).view(-1, 1, 1, 1)
    total = torch.where(dice[:, 2] < 0.3, 1.7 * total.mean(1, keepdim=True), total)
    picture = seeds.uniform((3, 1, 1), "mean") + (0.05 + 0.5 * dice[:, 1]) * total
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8)


def calibration(size: tuple[int, int]) -> Tensor:
    """Pictures [24, 3, *size] (uint8) that show a tower's usual and its extreme values."""
    rows, columns = torch.arange(size[0])[:, None], torch.arange(size[1])[None]
    boards = torch.stack([(rows // side + columns // side) % 2 for side in (1, 2, 5, 12, 30, 70)])
    corners = torch.tensor([(0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)])
    drawn = [boards[:, None].expand(-1, 3, -1, -1), corners[..., None, None].expand(-1, -1, *size)]
    return torch.cat([textures(Seeds.of(0, 12), size), *((255 * d).to(torch.uint8) for d in drawn)])


def read_tower(visual: nn.Module, preprocess: Preprocess) -> Weights:
    """The float32 matrices of open_clip's ``VisionTransformer``.

    Raises:
        CannotDo: another tower, or one with parts that are not known here; it says which.
    """
    from open_clip.transformer import VisionTransformer

    if not isinstance(visual, VisionTransformer):
        raise CannotDo(f"The image tower is a {type(visual).__name__}, no VisionTransformer.")
    tower: Any = visual
    if tower.attn_pool is not None or tower.pool_type not in ("tok", "avg"):
        raise CannotDo("The image tower pools by attention.")
    if tower.output_tokens or tower.image_size != preprocess.size:
        raise CannotDo("The image tower gives tokens, or takes pictures of another size.")
    frame = _frame(tower)
    blocks = list(tower.transformer.resblocks)
    last = len(blocks) - 1 if tower.pool_type == "tok" else -1
    return Weights(
        frame,
        _patches(tower.conv1, preprocess),
        [_block(block, frame.heads, alone=i == last) for i, block in enumerate(blocks)],
    )


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu().clone()


def _norm(norm: Any) -> tuple[Tensor, Tensor, float]:
    if not isinstance(norm, nn.LayerNorm) or norm.weight is None or norm.bias is None:
        raise CannotDo(f"The image tower normalises with {type(norm).__name__}.")
    return _copy(norm.weight), _copy(norm.bias), norm.eps


def _frame(tower: Any) -> Frame:
    heads = {block.attn.num_heads for block in tower.transformer.resblocks}
    if len(heads) != 1:
        raise CannotDo("The image tower's blocks have different numbers of heads.")
    places = _copy(tower.positional_embedding)
    projection = tower.proj
    return Frame(
        size=tuple(tower.image_size),
        patch=tuple(tower.patch_size),
        heads=heads.pop(),
        first=_copy(tower.class_embedding) + places[0],
        places=places[1:],
        pre=None if isinstance(tower.ln_pre, nn.Identity) else _norm(tower.ln_pre),
        post=_norm(tower.ln_post),
        projection=None if projection is None else _copy(projection),
        pool=tower.pool_type,
        pooled_first=bool(tower.final_ln_after_pool),
    )


def _patches(conv: nn.Conv2d, preprocess: Preprocess) -> Affine:
    """The patch embedding of (byte - 128) / 255, normalisation included."""
    weight = _copy(conv.weight)
    mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
    weight = weight / std[:, None, None]
    bias = torch.einsum("ncij,c->n", weight, 128 / 255 - mean)
    return Affine(weight.flatten(1), bias if conv.bias is None else bias + _copy(conv.bias))


def _folded(norm: Any, weight: Tensor, bias: Tensor) -> Affine:
    gain, shift, eps = _norm(norm)
    return Affine(weight * gain, bias + weight @ shift, eps)


def _scaled(scale: nn.Module, linear: nn.Linear) -> Affine:
    weight, bias = _copy(linear.weight), _copy(linear.bias)
    if not isinstance(scale, nn.Identity):
        gain = _copy(scale.gamma)  # type: ignore[arg-type]
        weight, bias = weight * gain[:, None], bias * gain
    return Affine(weight, bias)


def _block(block: Any, heads: int, *, alone: bool) -> Block[Affine]:
    from open_clip.transformer import QuickGELU, ResidualAttentionBlock

    known = isinstance(block, ResidualAttentionBlock) and not hasattr(block, "ln_1_kv")
    attention = block.attn if known else None
    if not isinstance(attention, SelfAttention) and not plain_attention(attention):
        raise CannotDo(f"The image tower has blocks of another kind, {type(block).__name__}.")
    act = block.mlp.gelu
    if isinstance(act, QuickGELU):
        kind: Act = "silu"
        factor = 1.702
    elif isinstance(act, nn.GELU):
        kind, factor = ("gelu" if act.approximate == "none" else "gelu_tanh"), 1.0
    else:
        raise CannotDo(f"The image tower's activation is {type(act).__name__}.")
    packed = _folded(block.ln_1, _copy(attention.in_proj_weight), _copy(attention.in_proj_bias))
    width = packed.weight.shape[1]
    packed.weight[:width] *= (width // heads) ** -0.5
    packed.bias[:width] *= (width // heads) ** -0.5
    up = _folded(block.ln_2, _copy(block.mlp.c_fc.weight), _copy(block.mlp.c_fc.bias))
    down = _scaled(block.ls_2, block.mlp.c_proj)
    query, keys = packed, None
    if alone:
        query = replace(packed, weight=packed.weight[:width], bias=packed.bias[:width])
        keys = replace(packed, weight=packed.weight[width:], bias=packed.bias[width:])
    return Block(
        query,
        keys,
        _scaled(block.ls_1, attention.out_proj),
        replace(up, weight=up.weight * factor, bias=up.bias * factor, act=kind),
        replace(down, weight=down.weight / factor),
    )
