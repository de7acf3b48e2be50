"""Network pickles of StyleGAN2-ADA and its relatives, read without running them.

Such a file (``ffhq.pkl``) carries the Python source of its networks and, when unpickled the usual
way, executes it.  Here two allow-lists stand in between: one of pickle instructions, one of
constructors, each a stand-in of ours (guided.zoo.inert).  Nothing that the file names is ever
imported, and its source text is dropped unread.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path
from typing import Any

from guided.errors import CannotDo, CorruptWeights, GuidedError, MissingWeights, UnsafeWeights
from guided.zoo.inert import CONSTRUCTORS, DTYPES, Constructor, NvidiaRecord, settled

__all__ = ["NvidiaRecord", "load_nvidia_pickle"]

MAX_BYTES = 4 << 30
MAX_INSTRUCTIONS = 5_000_000

INSTRUCTIONS = frozenset(
    (
        *(
            "PROTO",
            "FRAME",
            "STOP",
            "MARK",
            "POP",
            "POP_MARK",
            "DUP",
            "NONE",
            "NEWTRUE",
            "NEWFALSE",
        ),
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
        *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("EMPTY_LIST", "APPEND", "APPENDS", "LIST", "EMPTY_SET", "ADDITEMS", "FROZENSET"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"),
        *("BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
        *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NEWOBJ"),
    )
)
"""The pickle instructions that data, calls of allowed constructors and their states need."""

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
    if path.stat().st_size > MAX_BYTES:
        raise CorruptWeights(f"{path} is larger than {MAX_BYTES >> 30} GiB.")
    data = path.read_bytes()
    if data[:2] == b"PK":
        raise CorruptWeights(
            f"{path} is a torch archive, not a network pickle.",
            hint="Give it the ending .pt; it is then read as torch weights.",
        )
    if data[:1] != b"\x80":
        raise CorruptWeights(
            f"{path} is not a network pickle.", hint="Get the file again from its source."
        )
    content = _read(path, data)
    if not isinstance(content, dict):
        raise CorruptWeights(f"{path} holds {type(content).__name__}, not a table of networks.")
    return content


def _read(path: Path, data: bytes) -> Any:
    try:
        _check_instructions(data)
        return settled(_Reader(io.BytesIO(data)).load(), {})
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


def _check_instructions(data: bytes) -> None:
    """Refuse instructions beyond the list, and memo numbers that would fill the memory."""
    for count, (instruction, argument, position) in enumerate(pickletools.genops(data), 1):
        if instruction.name not in INSTRUCTIONS:
            raise UnsafeWeights(
                f"the pickle instruction {instruction.name} at byte {position} is not allowed.",
                hint="No network pickle of StyleGAN2-ADA needs it.",
            )
        if instruction.name == "LONG_BINPUT" and isinstance(argument, int) and argument > count:
            raise CorruptWeights(f"the memo number {argument} at byte {position} is impossible.")
        if count > MAX_INSTRUCTIONS:
            raise CorruptWeights(f"it has more than {MAX_INSTRUCTIONS} instructions.")


class _Reader(pickle.Unpickler):
    """An unpickler that knows the allowed constructors and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("dnnlib.util", "EasyDict"):
            return dict
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        function = CONSTRUCTORS.get((module, name))
        if function is not None:
            return Constructor(function)
        if "tflib" in module.split(".") or module.partition(".")[0] == "tensorflow":
            raise CannotDo(
                "it is a TensorFlow network, which TensorFlow 1 rebuilds by running code it holds.",
                hint="Convert it with NVIDIA's stylegan2-ada-pytorch, or get the PyTorch weights.",
            )
        raise UnsafeWeights(
            f"it asks for {module[:80]}.{name[:80]}, which no network needs.",
            hint="Get the file from NVIDIA, or ask its author for safetensors.",
        )

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafeWeights("it refers to objects outside the file.")
