"""Network pickles of StyleGAN2-ADA and its relatives, read without running them.

Such a file (``ffhq.pkl``) carries the Python source of its networks and, when unpickled the usual
way, executes it.  Here its instructions, its names and what it would cost are checked first
(guided.zoo.structure); then an allow-list of constructors, each a stand-in of ours
(guided.zoo.pickle_stubs), reads it.  Nothing that the file names is ever imported, and its source
text is dropped unread.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

from guided.errors import CorruptWeights, GuidedError, MissingWeights, UnsafeWeights
from guided.zoo.pickle_stubs import CONSTRUCTORS, DTYPES, Constructor, NvidiaRecord, settled
from guided.zoo.structure import check_network, check_network_name

__all__ = ["NvidiaRecord", "load_nvidia_pickle"]

#: What Python's pickle machinery raises on damaged input.
_DAMAGE = (
    pickle.UnpicklingError, ValueError, TypeError, LookupError, AttributeError, EOFError,
    ArithmeticError, RuntimeError, MemoryError, OSError, ImportError, AssertionError,
)  # fmt: skip


def load_nvidia_pickle(path: Path) -> dict[str, Any]:
    """The content of a network pickle: usually ``G``, ``D`` and ``G_ema`` -> NvidiaRecord.

    Tensors come on the CPU, numbers and texts as plain Python values, arrays as numpy arrays.

    Raises:
        MissingWeights: no such file.
        UnsafeWeights: it asks for anything that is not on the lists.
        CannotDo: a TensorFlow network.
        CorruptWeights: a damaged file, or another kind of file.

    Source: the object layout of torch_utils/persistence.py (version 6) in
    NVlabs/stylegan2-ada-pytorch.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingWeights(f"There is no weight file {path}.", hint="Check the path.")
    check_network(path)
    content = _read(path)
    if not isinstance(content, dict):
        raise CorruptWeights(f"{path} holds {type(content).__name__}, not a table of networks.")
    return content


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return settled(_Reader(file).load(), {})
    except GuidedError as error:
        raise type(error)(f"{path} was not loaded: {error.message}", hint=error.hint) from error
    except RecursionError as error:
        raise CorruptWeights(f"{path} nests its data too deeply.") from error
    except pickle.UnpicklingError as error:
        if wants_code(error):
            raise UnsafeWeights(
                f"{path} was not loaded: a storage in it holds more than numbers.",
                hint="Get the file from NVIDIA, or ask its author for safetensors.",
            ) from error
        raise _damaged(path, error) from error
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def wants_code(error: pickle.UnpicklingError) -> bool:
    """Whether torch refused a file for what it asks for, not for being damaged."""
    text = str(error)
    return any(sign in text for sign in ("GLOBAL", "global", "reduce", "build", "instantiate"))


def _damaged(path: Path, error: Exception) -> CorruptWeights:
    broken = isinstance(error, pickle.UnpicklingError)  # torch's text recommends to load unsafely
    lines = ["its pickle is broken"] if broken else str(error).splitlines()
    reason = lines[0][:160].rstrip(".") if lines else type(error).__name__
    return CorruptWeights(
        f"{path} is damaged or not a network pickle ({reason}).",
        hint="Get the file again from its source.",
    )


class _Reader(pickle.Unpickler):
    """An unpickler that knows the allowed constructors and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        check_network_name(module, name)
        if (module, name) == ("dnnlib.util", "EasyDict"):
            return dict
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        function = CONSTRUCTORS.get((module, name))
        if function is not None:
            return Constructor(function)
        raise UnsafeWeights(f"it asks for {module[:80]}.{name[:80]}, which no network needs.")

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafeWeights("it refers to objects outside the file.")
