"""Checks of tensor shapes and ranges at public boundaries."""

from __future__ import annotations

from torch import Tensor

from guided.errors import ShapeError


def expect(tensor: Tensor, pattern: str, name: str) -> dict[str, int]:
    """The sizes of a tensor by the letters of a pattern such as ``"b 3 h w"``.

    A number must match exactly, the same letter must have the same size everywhere, and ``...``
    (first only) stands for any leading axes.

    Raises:
        ShapeError: another shape; the message names the tensor, the pattern and the shape given.

    >>> import torch
    >>> expect(torch.zeros(2, 3, 8, 9), "b 3 h w", "images")
    {'b': 2, 'h': 8, 'w': 9}
    """
    axes = pattern.split()
    shape = tuple(tensor.shape)
    if axes and axes[0] == "...":
        axes = axes[1:]
        fits = len(shape) >= len(axes)
        shape_tail = shape[len(shape) - len(axes) :] if fits else shape
    else:
        fits = len(shape) == len(axes)
        shape_tail = shape
    sizes: dict[str, int] = {}
    if fits:
        for axis, size in zip(axes, shape_tail, strict=True):
            wanted = int(axis) if axis.isdigit() else sizes.setdefault(axis, size)
            fits = fits and wanted == size
    if not fits:
        raise ShapeError(
            f"{name} must have the shape [{', '.join(pattern.split())}], not {list(tensor.shape)}."
        )
    return sizes
