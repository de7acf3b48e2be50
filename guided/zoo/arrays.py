"""numpy arrays from files, without pickled objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from guided.errors import CorruptWeights, MissingWeights, UnsafeWeights


def read_array(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    """The array of numbers in a .npy file, such as StyleCLIP's ``fs3.npy``.

    Raises:
        MissingWeights: no such file.
        UnsafeWeights: it holds Python objects, which could run code.
        CorruptWeights: damaged, of another kind, or values that are not finite numbers.
    """
    if not path.is_file():
        raise MissingWeights(f"There is no array file {path}.", hint="Check the path.")
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        if "pickle" in str(error).lower() and "allow_pickle" in str(error):
            raise UnsafeWeights(
                f"{path} holds Python objects instead of numbers; it was not loaded."
            ) from error
        raise CorruptWeights(f"{path} is damaged or no .npy file ({error}).") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise CorruptWeights(f"{path} holds no array of numbers.")
    if not np.isfinite(found).all():
        raise CorruptWeights(f"{path} holds values that are not finite.")
    return found
