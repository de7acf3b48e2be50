"""Linear layers for fast inference on a CPU: float32, bf16 with packed weights, and int8.

All compute ``act(norm(x) @ weight.T + bias) (+ onto)``, the affine part of a norm being folded
into the weights.  The int8 layer keeps a scale for each output channel of the weights, and fixed
scales of its inputs that were balanced against the weights' columns (the idea of SmoothQuant,
Xiao et al. 2022, arXiv 2211.10438, eq. 4 with alpha = 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from guided.errors import CannotDo

Act = Literal["none", "gelu", "gelu_tanh", "silu"]
_POST = {
    "none": ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "silu": ("swish", ""),
}


@dataclass(frozen=True)
class Affine:
    """``act(norm(x) @ weight.T + bias)``: weight [N, K] and bias [N], float32.

    ``eps`` is that of a layer norm without parameters that comes first; None: no norm.
    """

    weight: Tensor
    bias: Tensor
    eps: float | None = None
    act: Act = "none"

    def norm(self, x: Tensor) -> Tensor:
        """The input of the product: x [M, K], normalised where there is a norm."""
        return x if self.eps is None else functional.layer_norm(x, x.shape[-1:], eps=self.eps)


class Layer(Protocol):
    """One product of a tower."""

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """[M, N] of x [M, K]; ``onto`` [M, N] is added, and may be overwritten by the sum."""
        ...


@dataclass(frozen=True)
class Span:
    """The least and the greatest value [K] that each channel of a product's input takes."""

    low: Tensor
    high: Tensor


class Plain:
    """The layer in float32; with ``watch`` it notes the span of its inputs."""

    def __init__(self, affine: Affine, *, watch: bool = False) -> None:
        self.affine = affine
        self._span: Span | None = None
        self._watch = watch

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """See ``Layer``; everything is float32."""
        affine = self.affine
        x = affine.norm(x)
        if self._watch:
            low, high = x.amin(0), x.amax(0)
            if self._span is not None:
                low, high = low.minimum(self._span.low), high.maximum(self._span.high)
            self._span = Span(low, high)
        y = functional.linear(x, affine.weight, affine.bias)
        if affine.act in ("gelu", "gelu_tanh"):
            y = functional.gelu(y, approximate="tanh" if affine.act == "gelu_tanh" else "none")
        elif affine.act == "silu":
            y = functional.silu(y)
        return y if onto is None else onto + y

    def seen(self) -> Span:
        """The span of the inputs so far.

        Raises:
            CannotDo: nothing was watched.
        """
        if self._span is None:
            raise CannotDo("This layer has not watched any input.")
        return self._span


class Bf16:
    """The layer in bf16, weights packed once in the order the processor's kernel reads."""

    def __init__(self, affine: Affine, rows: int) -> None:
        self._eps = affine.eps
        self._width = affine.weight.shape[1]
        self._bias = affine.bias.bfloat16()
        self._post = _POST[affine.act]
        weight = affine.weight.bfloat16().contiguous()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """See ``Layer``; ``onto`` and the result are bf16."""
        x = x.bfloat16()
        if self._eps is not None:
            x = functional.layer_norm(x, (self._width,), eps=self._eps)
        run = torch.ops.mkldnn._linear_pointwise
        if onto is not None:
            y: Tensor = run.binary(x, onto, self._weight, self._bias, "add")
            return y
        kind, how = self._post
        y = run(x, self._weight, self._bias, kind, [], how)
        return y


@dataclass(frozen=True)
class Grid:
    """The values a byte q stands for, by channel: ``center + step * (q - 128)``, each [K]."""

    center: Tensor
    step: Tensor


def balanced(span: Span, weight: Tensor, margin: float) -> Grid:
    """The grid [K] that shares the difficulty between inputs and weight [N, K] by channel.

    Steps are proportional to sqrt(half span / largest weight) and such that no value seen in
    calibration, times ``margin``, is cut.
    """
    center = (span.low + span.high) / 2
    half = (span.high - span.low) / 2 * margin
    half = half.clamp_min(1e-3 * float(half.mean()) + 1e-12)
    largest = weight.abs().amax(0)
    largest = largest.clamp_min(1e-3 * float(largest.mean()) + 1e-12)
    share = (half / largest).sqrt()
    return Grid(center, share * float((half / share).amax()) / 127)


def hidden_grid(span: Span, margin: float) -> tuple[float, int]:
    """Step and zero point of one grid for all channels, with 0 among its values."""
    low = min(0.0, float(span.low.amin()) * margin)
    high = max(0.0, float(span.high.amax()) * margin)
    step = max(high - low, 1e-12) / 255
    return step, round(-low / step)


class Int8:
    """The layer as a product of 8-bit inputs and weights, summed in int32.

    ``affine`` takes inputs in levels of ``grid`` (see ``in_levels``), for bytes q the value
    ``levels[0] * (q - levels[1])``.  A norm's output is put on ``grid``; an input without a norm
    is in levels already, as bytes or as floats around 0.  The result has the precision ``dtype``
    or, with ``output`` (step, zero point), is bytes.
    """

    def __init__(
        self,
        affine: Affine,
        rows: int,
        *,
        grid: Grid | None = None,
        levels: tuple[float, int] = (1.0, 128),
        dtype: torch.dtype = torch.bfloat16,
        output: tuple[float, int] | None = None,
    ) -> None:
        self._eps, self._in = affine.eps, levels
        if grid is not None:
            self._scale = 1 / grid.step
            self._shift = 128.5 - grid.center * self._scale
        self._post = _POST[affine.act]
        self._out = (1.0, 0) if output is None else output
        self._dtype = dtype if output is None else torch.uint8
        self._scales = affine.weight.abs().amax(1).clamp_min(1e-12) / 127
        rounded = (affine.weight / self._scales[:, None]).round_().to(torch.int8)
        shape = [rows, affine.weight.shape[1]]
        self._weight = torch.ops.onednn.qlinear_prepack(rounded, shape)
        self._zeros = torch.zeros(len(rounded), dtype=torch.int64)
        self._bias = affine.bias

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """See ``Layer``; a sum is written into ``onto``, in its precision."""
        q = x if x.dtype == torch.uint8 else self._rounded(x)
        run, (step, zero) = torch.ops.onednn.qlinear_pointwise, self._in
        if onto is not None:
            y: Tensor = run.binary(
                q, step, zero, self._weight, self._scales, self._zeros, onto, self._bias,
                1.0, 0, onto.dtype, 1.0, 0, "sum", 1.0, "none", [], "",
            )  # fmt: skip
            return y
        kind, how = self._post
        y = run(
            q, step, zero, self._weight, self._scales, self._zeros, self._bias,
            *self._out, self._dtype, kind, [], how,
        )  # fmt: skip
        return y

    def _rounded(self, x: Tensor) -> Tensor:
        """Levels as bytes; a conversion to bytes cuts off the fraction, so half is added."""
        x = x.float()
        if self._eps is None:
            levels = x + 128.5
        else:
            shape = x.shape[-1:]
            levels = functional.layer_norm(x, shape, self._scale, self._shift, self._eps)
        return levels.clamp_(0, 255).to(torch.uint8)


def in_levels(affine: Affine, grid: Grid) -> Affine:
    """The affine whose inputs are given in levels of a grid: (x - center) / step."""
    bias = affine.bias + affine.weight @ grid.center
    return replace(affine, weight=affine.weight * grid.step, bias=bias)


def to_levels(affine: Affine, grid: Grid, rows: slice) -> Affine:
    """The affine whose outputs ``rows`` are given in levels of a grid."""
    weight, bias = affine.weight.clone(), affine.bias.clone()
    weight[rows] = weight[rows] / grid.step[:, None]
    bias[rows] = (bias[rows] - grid.center) / grid.step
    return replace(affine, weight=weight, bias=bias)
