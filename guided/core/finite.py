"""Numbers that are NaN or infinite, found in plain data wherever they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from guided.errors import CannotDo


def not_finite(value: Any, place: str = "") -> str:
    """The first number in plain data that is NaN or infinite, after the keys that lead to it.

    >>> not_finite({"results": [{"score": 0.5}, {"score": float("nan")}]})
    'results 2.score = nan'
    """
    parts: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        parts = [(f"{place}.{key}" if place else str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        parts = [(f"{place} {number}", item) for number, item in enumerate(value, start=1)]
    elif isinstance(value, float) and not math.isfinite(value):
        return f"{place} = {value}"
    return next((found for name, item in parts if (found := not_finite(item, name))), "")


def check_answer(answer: Any) -> None:
    """Accept plain data whose numbers are all finite, as JSON holds them.

    Raises:
        CannotDo: NaN or infinity; the keys that lead to it are named.
    """
    if wrong := not_finite(answer):
        raise CannotDo(
            f"The result is not a finite number: {wrong}.",
            hint="Lower strengths and weights, or take --dtype fp32; if that does not help, the "
            "model or the input is unsound.",
        )
