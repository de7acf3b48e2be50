"""CPU offload of whole models: weights are on the accelerator only while their model computes.

The weights rest in CPU memory.  Before any module of a model runs, all of that model's weights are
copied to the device, and every other model that is not needed leaves it: its copies are dropped,
and the originals in CPU memory stand again.  A model whose output a gradient may still go back
through is needed until that graph is gone, so that under guidance the decoder and the scorer stay
for the whole of a step and no loop has to say when it ends.

The hooks of accelerate (``cpu_offload_with_hook``) do the same for a fixed sequence of models in
inference; they know neither loops over that sequence, nor backward, nor ``vae.decode``.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_KEY = "_guided_offload"


class _Graph:
    """Lives as long as the autograd node that holds it."""

    __slots__ = ("__weakref__",)


class Offload:
    """The models of a run that take turns on a device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.models: list[OffloadedModel] = []

    def manage(self, module: nn.Module) -> None:
        """Let a frozen model, whose weights are in CPU memory, take turns; a second call is none's.

        Its weights must be used by its own modules' calls, or after ``bring``.
        """
        if _KEY not in vars(module):
            model = OffloadedModel(module, self)
            vars(module)[_KEY] = model
            self.models.append(model)

    def make_room(self, wanted: OffloadedModel) -> None:
        """Take every other model off the device that is not needed there."""
        for model in self.models:
            if model is not wanted and not model.needed:
                model.leave()

    def __deepcopy__(self, memo: Any) -> Offload:
        """A copy of a model takes turns with the others."""
        return self


class OffloadedModel:
    """One model: where its weights are, and what still needs them on the device."""

    def __init__(self, module: nn.Module, offload: Offload) -> None:
        self.module, self.offload = module, offload
        self._originals: list[tuple[Tensor, Tensor]] = []
        self._depth = 0
        self._graphs: weakref.WeakSet[_Graph] = weakref.WeakSet()
        for part in module.modules():
            part.register_forward_pre_hook(self._before)
            part.register_forward_hook(self._after, always_call=True)

    @property
    def resident(self) -> bool:
        """Whether the weights are on the device."""
        return bool(self._originals)

    @property
    def needed(self) -> bool:
        """Whether the model computes at this moment, or a gradient may go back through it."""
        return self._depth > 0 or len(self._graphs) > 0

    def bring(self) -> None:
        """Put the weights on the device, and take off what is not needed there."""
        self.offload.make_room(self)
        if self.resident:
            return
        tensors = {id(t): t for t in (*self.module.parameters(), *self.module.buffers())}.values()
        self._originals = [(tensor, tensor.data) for tensor in tensors]
        for tensor, original in self._originals:
            tensor.data = original.to(self.offload.device)

    def leave(self) -> None:
        """Drop the device's copies of the weights: they are frozen, so the originals still hold."""
        for tensor, original in self._originals:
            tensor.data = original
        self._originals = []

    def _before(self, module: nn.Module, args: Any) -> None:
        if self._depth == 0:
            self.bring()
        self._depth += 1

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        self._depth -= 1
        if torch.is_grad_enabled():
            for tensor in _tensors(output):
                if tensor.grad_fn is not None:
                    graph = _Graph()
                    self._graphs.add(graph)
                    held: Any = tensor.grad_fn.metadata  # a property, whatever its stub says
                    held[id(self)] = graph

    def __deepcopy__(self, memo: Any) -> OffloadedModel:
        """That of a copy of the model, or of a part of it, whose hooks are copied with it."""
        return self


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def execution_device(module: nn.Module) -> torch.device:
    """Where a model computes: not where its weights rest, if it is offloaded."""
    model = vars(module).get(_KEY)
    device: torch.device = (
        next(module.parameters()).device if model is None else model.offload.device
    )
    return device


def bring(module: nn.Module) -> None:
    """Put an offloaded model on its device, for those who use its weights without calling it."""
    model = vars(module).get(_KEY)
    if model is not None:
        model.bring()
