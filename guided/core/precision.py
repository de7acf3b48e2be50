"""Dtype and CPU offload as a recipe names them; what they mean for each model is in ``models``.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from guided.errors import RecipeError, nearest

DtypeName = Literal["fp32", "bf16", "fp16"]
#: What ``dtype`` and ``offload`` may say; the first of each is the default, which is not stored.
CHOICES: dict[str, tuple[str, ...]] = {
    "dtype": ("auto", "fp32", "bf16", "fp16"), "offload": ("none", "model"),
}  # fmt: skip
_TORCH = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}


def dtype_name(value: Any) -> Any:
    """A ``torch.dtype`` by its short name; anything else as it is."""
    return _TORCH.get(str(value), value)


def checked(common: Mapping[str, Any], source: str, *, keep: bool = False) -> dict[str, Any]:
    """A recipe's common keys with ``dtype`` and ``offload`` checked; a default is left out, or with
    ``keep`` None.

    Raises:
        RecipeError: a value that there is not; the nearest is named.
    """
    keys = dict(common)
    for key, allowed in CHOICES.items():
        value = keys.get(key)
        if value is not None and value not in allowed:
            raise RecipeError(
                f"{source}: {key} = {str(value)[:40]!r}: must be one of {', '.join(allowed)}.",
                hint=nearest(str(value), allowed),
            )
        if key in keys and value in (None, allowed[0]):
            keys[key] = None
            if not keep:
                del keys[key]
    return keys
