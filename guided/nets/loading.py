"""Strict loading of state dicts, with errors that name what misses."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from guided.errors import CorruptWeights


def load_exactly(
    net: nn.Module, state: Mapping[str, Tensor], what: str, *, optional: str = r"(?!)"
) -> None:
    """Copy ``state`` into ``net`` in place, converted to the net's precision.

    Keys matching the regular expression ``optional`` may be absent; nothing else may be absent,
    left over, or of another shape.

    Raises:
        CorruptWeights: the message lists missing, unknown and misshapen entries.
    """
    own = net.state_dict()
    missing = [key for key in own if key not in state and not re.search(optional, key)]
    unknown = [key for key in state if key not in own]
    misshapen = [
        f"{key} {list(state[key].shape)} instead of {list(tensor.shape)}"
        for key, tensor in own.items()
        if key in state and state[key].shape != tensor.shape
    ]
    complaints = [
        f"{label}: {_listed(keys)}"
        for label, keys in (("missing", missing), ("unknown", unknown), ("misshapen", misshapen))
        if keys
    ]
    if complaints:
        raise CorruptWeights(
            f"The weights do not fit {what}; {'; '.join(complaints)}.",
            hint="Check that the file belongs to this kind of model.",
        )
    net.load_state_dict({key: state[key].to(own[key].dtype) for key in own if key in state}, False)


def _listed(keys: list[str], shown: int = 6) -> str:
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return ", ".join(keys[:shown]) + more
