"""Memory and tensors that building a foreign model may take, in proportion to its weight files.

A library builds a model as large as its settings say and only then compares it with the weights,
so that a few numbers in a JSON file could ask for any amount of memory.  Every parameter comes
from a weight file; what is built beside them (masks, positions, a copy in fp32) is in proportion.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from guided.errors import CorruptWeights
from guided.zoo.pickle_machine import SPARE
from guided.zoo.structure import SHARED, check_structure

_TENSOR = 128
"""Bytes of weight files for each tensor that may be made: the header alone takes about as many."""
_FEWEST = 4096
_MAKERS = frozenset({
    "empty", "empty_strided", "zeros", "ones", "full", "rand", "randn", "randint", "eye", "arange",
    "linspace", "new_empty", "new_zeros", "new_ones", "new_full",
})  # fmt: skip


def weights_in(*folders: Path) -> list[Path]:
    """The safetensors files directly in some folders, their headers checked.

    Raises:
        CorruptWeights: a header that does not describe the bytes behind it.
    """
    files = [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]
    weights = [path for path in files if path.is_file() and not path.name.startswith("._")]
    for path in weights:
        check_structure(path)
    return weights


@contextmanager
def building(source: str, weights: Sequence[Path]) -> Iterator[None]:
    """Within, torch makes no more than a model of these weight files has use for.

    Raises:
        CorruptWeights: more tensors or bytes; ``source`` names the model.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    stored = sum(path.stat().st_size for path in weights)
    most, tensors = SPARE + SHARED * stored, _FEWEST + stored // _TENSOR
    made = [0, 0]

    def count(size: Sequence[Any], width: int) -> None:
        made[0] += math.prod(size) * width
        made[1] += 1
        if made[0] > most or made[1] > tensors:
            raise CorruptWeights(
                f"The settings of {source} describe a model far larger than its weights "
                f"({stored} bytes).",
                hint="Settings and weights belong to different models; copy the folder again.",
            )

    class Allowance(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            options = kwargs or {}
            if func.overloadpacket.__name__ in _MAKERS:
                sizes = [item for item in args if isinstance(item, (list, tuple))]
                size = sizes[0] if sizes else args[:1]
                dtype = options.get("dtype")
                if all(type(n) is int for n in size):
                    count(size, dtype.itemsize if dtype is not None else 4)
            return func(*args, **options)

    with Allowance():  # type: ignore[no-untyped-call]
        yield
