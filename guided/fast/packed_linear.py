"""Packed linear layers: frozen models on a CPU, with weights in the order its kernels read.

The same function as ``nn.Linear``, to rounding, forward and back to the input; on processors that
the plain product does not know well it takes half the time.  Weights that learn, other devices and
other precisions than float32 and bf16 take the plain way.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from diffusers.models.activations import GELU
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from guided.core.device import multiplies_bf16
from guided.fast import enabled


@cache
def _operations_there() -> bool:
    return all(
        hasattr(torch.ops.mkldnn, each) for each in ("_linear_pointwise", "_reorder_linear_weight")
    )


def kernels_there(kind: torch.dtype) -> bool:
    """Whether this torch and processor have the kernels that read packed weights, switched on."""
    if not (enabled() and _operations_there()):
        return False
    if kind is torch.bfloat16:
        return multiplies_bf16(torch.device("cpu"))
    known = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return kind is torch.float32 and bool(known)


def pack_linears(module: nn.Module) -> None:
    """Put packed layers in the place of a module's linear ones; parameters and names stay."""
    for name, child in list(module.named_children()):
        pack_linears(child)
        if type(child) is nn.Linear:
            child.__class__ = PackedLinear
        elif type(child) is GELU and child.approximate == "tanh":
            setattr(module, name, PackedGelu(child))


class _Product(torch.autograd.Function):
    """x [M, K] to x @ weight.T + bias, differentiable by x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.layer.returned(gradient.contiguous()), None


class PackedLinear(nn.Linear):
    """A linear layer whose weight is packed at the first use, and again where it has changed."""

    _packed: dict[str, tuple[tuple[Any, ...], Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[..., N] of x [..., K]."""
        if not self.packs(x):
            return functional.linear(x, self.weight, self.bias)
        flat = x.reshape(-1, x.shape[-1])
        if x.requires_grad and torch.is_grad_enabled():
            found: Tensor = _Product.apply(flat, self)
        else:
            found = self.product(flat)
        return found.view(*x.shape[:-1], self.out_features)

    def packs(self, x: Tensor) -> bool:
        """Whether the packed way can take this input."""
        weight = self.weight
        return (
            x.device.type == "cpu"
            and x.dtype == weight.dtype
            and not weight.requires_grad
            and x.numel() > 0
            and kernels_there(x.dtype)
            and not torch.is_autocast_enabled("cpu")
        )

    def product(
        self, x: Tensor, act: str = "none", how: str = "", onto: Tensor | None = None
    ) -> Tensor:
        """act(x @ weight.T + bias), or x @ weight.T + bias + onto [M, N], for x [M, K]."""
        bias = None if self.bias is None else self.bias.detach()
        run, weight = torch.ops.mkldnn._linear_pointwise, self._weight("forth")
        if onto is not None:
            y: Tensor = run.binary(x.detach(), onto, weight, bias, "add")
            return y
        y = run(x.detach(), weight, bias, act, [], how)
        return y

    def returned(self, gradient: Tensor) -> Tensor:
        """gradient @ weight for a gradient [M, N]."""
        back = self._weight("back")
        y: Tensor = torch.ops.mkldnn._linear_pointwise(gradient, back, None, "none", [], "")
        return y

    def _weight(self, way: str) -> Tensor:
        """The weight, or its transpose, packed."""
        now = (self.weight.data_ptr(), self.weight._version, self.weight.dtype)
        kept = self._packed = {} if self._packed is None else self._packed
        if way not in kept or kept[way][0] != now:
            plain = self.weight.detach()
            plain = plain.clone() if way == "forth" else plain.t().contiguous()
            kept[way] = (now, torch.ops.mkldnn._reorder_linear_weight(plain, None))
        return kept[way][1]

    def __getstate__(self) -> dict[str, Any]:
        """Copies pack their own."""
        return {name: value for name, value in vars(self).items() if name != "_packed"}


class PackedGelu(nn.Module):
    """gelu(x @ weight.T + bias) in one go where nothing has to be remembered."""

    def __init__(self, plain: GELU) -> None:
        super().__init__()
        self.proj = plain.proj

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[..., N] of [..., K]; the activation is the one by tanh."""
        x, proj = hidden_states, self.proj
        if (torch.is_grad_enabled() and x.requires_grad) or not proj.packs(x):
            return functional.gelu(proj(x), approximate="tanh")
        found: Tensor = proj.product(x.reshape(-1, x.shape[-1]), "gelu", "tanh")
        return found.view(*x.shape[:-1], proj.out_features)
