"""What a weight file claims, checked against its bytes before torch is imported.

``check_structure`` is the first thing that happens to a foreign file.  It reads headers, the
directory of an archive and the instructions of a pickle, makes no tensor, and refuses what would
run code, what does not describe the bytes behind it, and what would take more time or memory than
a file of that size has use for (the budgets of guided.zoo.pickle_machine).
"""

from __future__ import annotations

import io
import math
import mmap
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from guided.errors import CannotDo, CorruptWeights, GuidedError, UnsafeWeights
from guided.zoo.accepted import accepted_once
from guided.zoo.archives import content, read_directory
from guided.zoo.arrays import read_array_header
from guided.zoo.headers import read_header
from guided.zoo.pickle_machine import SPARE, Blob, Global, Made, Rules
from guided.zoo.pickle_opcodes import INSTRUCTIONS, follow

TORCH_SUFFIXES = frozenset({".pt", ".pth", ".bin", ".ckpt"})
SUFFIXES = TORCH_SUFFIXES | {".safetensors", ".pkl", ".npy"}
CLIP_WEIGHTS = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth", "model.safetensors",
    "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip
"""The weight files of a CLIP's folder in the order in which open_clip looks for them."""
MAX_PICKLE = 64 << 20
"""Bytes of the table of tensors in an archive."""
MAX_NETWORK = 4 << 30
"""Bytes of a network pickle."""
SHARED = 8
"""How many times its stored bytes the tensors of a file may claim (shared and expanded ones)."""

_MAGIC = 0x1950A86A20F9469CFC6C
_SAFER = "Ask its author for a safetensors file. There is no switch to load it anyway."
_WIDTHS = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1,
    "Byte": 1, "Bool": 1, "ComplexDouble": 16, "ComplexFloat": 8, "QUInt8": 1, "QInt8": 1,
    "QInt32": 4, "QUInt4x2": 1, "QUInt2x4": 1, "Untyped": 1,
}  # fmt: skip
_TENSORS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
_PARAMETERS = ("_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_sparse_tensor")
_PLAIN_CALLS = {
    ("collections", "OrderedDict"), ("collections", "Counter"), ("torch", "Size"),
    ("torch", "device"), ("torch.nn.parameter", "Parameter"), ("_codecs", "encode"),
    ("torch.serialization", "_get_layout"), ("builtins", "set"), ("__builtin__", "set"),
    ("builtins", "complex"), ("__builtin__", "complex"), ("argparse", "Namespace"),
    *(("torch._utils", name) for name in (*_TENSORS, *_PARAMETERS)),
}  # fmt: skip

NETWORK_NAMES = frozenset({
    ("dnnlib.util", "EasyDict"), ("collections", "OrderedDict"),
    ("torch_utils.persistence", "_reconstruct_persistent_obj"),
    ("torch.storage", "_load_from_bytes"), ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"), ("torch", "device"), ("numpy", "dtype"), ("numpy", "ndarray"),
    ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
})  # fmt: skip
"""What a network pickle may name, besides torch's element types."""
DTYPE_NAMES = frozenset({
    "float16", "bfloat16", "float32", "float64",
    "uint8", "int8", "int16", "int32", "int64", "bool",
})  # fmt: skip


@accepted_once
def check_structure(path: Path) -> None:
    """Accept a weight file whose claims fit its bytes; files of other kinds are not looked at.

    Raises:
        CorruptWeights: damaged, or claims beyond its bytes or the budgets.
        UnsafeWeights: it asks for anything but tensors and plain values.
        CannotDo: a TensorFlow network.
    """
    if path.suffix == ".safetensors":
        read_header(path)
    elif path.suffix in TORCH_SUFFIXES:
        check_torch(path)
    elif path.suffix == ".pkl":
        check_network(path)
    elif path.suffix == ".npy":
        read_array_header(path)


def check_weights(path: Path) -> None:
    """Accept the weights of a public model: safetensors or a torch file, as ``check_structure``.

    Raises:
        CorruptWeights: also for files of other kinds.
        UnsafeWeights: it asks for anything but tensors and plain values.
    """
    if path.suffix not in TORCH_SUFFIXES | {".safetensors"}:
        raise CorruptWeights(
            f"{path} has the ending {path.suffix or 'none'!r}, which no weight file has.",
            hint=f"Known: .safetensors, {', '.join(sorted(TORCH_SUFFIXES))}.",
        )
    check_structure(path)


@contextmanager
def _opened(path: Path, again: str) -> Iterator[tuple[BinaryIO, memoryview]]:
    """The file and its bytes, mapped; errors get its name and what to do."""
    try:
        with path.open("rb") as file:
            empty = path.stat().st_size == 0
            data = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            yield file, memoryview(data)
    except GuidedError as error:
        hint = error.hint or again
        raise type(error)(f"{path} was not loaded: {error.message}", hint=hint) from error
    except (OSError, ValueError) as error:
        raise CorruptWeights(f"{path} cannot be read: {error}.", hint=again) from error


# --------------------------------------------------------------------------- torch files


def check_torch(path: Path) -> None:
    """Accept a torch file (archive or older form) whose tensors fit its bytes; see above."""
    with _opened(path, "Get the file again from its source.") as (file, data):
        _check_torch(file, data)


def check_torch_bytes(content: memoryview) -> None:
    """Accept the content of a torch file that stands inside another file; as ``check_torch``.

    Raises:
        UnsafeWeights: it asks for anything but tensors and plain values.
        CorruptWeights: its tensors do not fit its bytes, or it is damaged.
    """
    try:
        _check_torch(io.BytesIO(content), content)
    except (OSError, ValueError) as error:
        raise CorruptWeights(f"it cannot be read: {error}.") from error


def _check_torch(file: BinaryIO, data: memoryview) -> None:
    if bytes(data[:4]) == b"PK\x03\x04":
        _check_archive(file, len(data))
    else:
        _check_older(data)


def _check_archive(file: BinaryIO, size: int) -> None:
    entries = read_directory(file, size)
    if any(name.endswith("/constants.pkl") for name in entries):
        raise UnsafeWeights(
            "it is a TorchScript archive, which is a program.",
            hint="Use a file that holds the weights alone (a state dict or safetensors).",
        )
    top = next(iter(entries), "").partition("/")[0]
    table = entries.get(f"{top}/data.pkl")
    if table is None:
        raise CorruptWeights("it is damaged or not a torch weight file (it has no data.pkl).")

    def stored(key: str, nbytes: int) -> None:
        entry = entries.get(f"{top}/data/{key}")
        if entry is None or nbytes > entry.size:
            there = "but nothing is" if entry is None else f"but only {entry.size} bytes are"
            raise CorruptWeights(
                f"its storage {key[:40]!r} has {nbytes} bytes, but {there} stored."
            )

    follow(content(file, table, MAX_PICKLE), torch_rules(size, stored))


def _check_older(data: memoryview) -> Made | None:
    """The form before archives: five pickles, then the storages; what the fourth one holds."""
    claims: dict[str, int] = {}

    def stored(key: str, nbytes: int) -> None:
        claims[key] = max(nbytes, claims.get(key, 0))

    rules = torch_rules(len(data), stored)
    magic, at = follow(data, rules)
    if magic != _MAGIC:
        raise CorruptWeights("it is damaged or not a torch weight file.")
    _, at = follow(data, rules, at)
    _, at = follow(data, rules, at)
    root, at = follow(data, rules, at)
    _, at = follow(data, rules, at)
    if at + sum(claims.values()) + 8 * len(claims) > len(data):
        raise CorruptWeights("its storages claim more bytes than the file has.")
    return root if isinstance(root, Made) else None


def torch_rules(size: int, stored: Callable[[str, int], None]) -> Rules:
    """What the pickle in a torch file of ``size`` bytes may hold.

    ``stored`` is told the key and the bytes of each storage that is asked for.
    """
    claims = _Claims(SPARE + SHARED * size)

    def name(module: str, name: str) -> None:
        if not _is_torch_name(module, name):
            raise UnsafeWeights(f"it asks for {module[:80]}.{name[:80]}.", hint=_SAFER)

    def call(made: Made) -> None:
        function, arguments = made.function, made.arguments
        if function is None:
            raise CorruptWeights("a call in its pickle is malformed.")
        if function.name == "_rebuild_from_type_v2" and len(arguments) > 2:
            function, arguments = arguments[0], arguments[2]
            if not isinstance(function, Global) or function.module != "torch._utils":
                raise UnsafeWeights("it calls functions that make no tensor.", hint=_SAFER)
        empty = function.name.endswith("Tensor") and arguments == ()
        raw = function.name == "bytearray" and not (arguments and isinstance(arguments[0], int))
        if not empty and not raw and (function.module, function.name) not in _PLAIN_CALLS:
            what = f"it calls {function.module[:80]}.{function.name[:80]}"
            raise UnsafeWeights(f"{what}, which makes no tensor.", hint=_SAFER)
        if function.name in _TENSORS:
            claims.add(arguments)

    def persistent(given: Any) -> Made:
        made = _storage(given)
        stored(str(given[2]), made.nbytes)
        return made

    return Rules("a torch weight file", INSTRUCTIONS, name, call, persistent, size, _SAFER)


def _is_torch_name(module: str, name: str) -> bool:
    """Whether torch may be asked for it; which of torch's own names are safe, torch knows."""
    if module in ("torch", "torch.cuda", "torch.storage"):
        return name.isidentifier()
    if module == "torch._utils":
        return name.startswith("_rebuild_") and name.isidentifier()
    others = {("torch._tensor", "_rebuild_from_type_v2"), ("builtins", "bytearray")}
    return (module, name) in _PLAIN_CALLS | others | {("__builtin__", "bytearray")}


def _storage(given: Any) -> Made:
    """A storage from its persistent id: ("storage", type, key, place, elements, ...)."""
    if not isinstance(given, tuple) or len(given) < 5 or given[0] != "storage":
        raise CorruptWeights("a storage in it is malformed.")
    kind, key, count = given[1], given[2], given[4]
    if not isinstance(kind, Global) or not isinstance(key, (str, int)):
        raise CorruptWeights("a storage in it is malformed.")
    width = _WIDTHS.get(kind.name.removesuffix("Storage"))
    if width is None or type(count) is not int or not 0 <= count < 1 << 48:
        raise CorruptWeights("a storage in it is malformed.")
    return Made(kind, nbytes=count * width, width=width)


class _Claims:
    """The bytes that the tensors of a file would take if each were made, against a limit."""

    def __init__(self, limit: int) -> None:
        self.limit, self.total = limit, 0

    def add(self, arguments: tuple[Any, ...]) -> None:
        """Put a tensor on the books: a storage, offset, shape, ..."""
        if len(arguments) < 4 or not isinstance(arguments[0], Made):
            return  # what is malformed is refused by the loader
        storage, shape = arguments[0], arguments[2]
        if storage.nbytes < 0 or not isinstance(shape, tuple) or len(shape) > 64:
            return
        width = storage.width
        if len(arguments) > 6 and isinstance(arguments[6], Global):
            bits = re.search(r"\d+", arguments[6].name)
            width = max(1, int(bits[0]) // 8) if bits else 1
        count = math.prod(max(n, 0) for n in shape if isinstance(n, int))
        self.total += count * width
        if self.total > self.limit:
            raise CorruptWeights(
                f"a tensor in it claims more elements than are stored: {count} from "
                f"{storage.nbytes} bytes."
            )


# --------------------------------------------------------------------------- network pickles


def check_network(path: Path) -> None:
    """Accept a network pickle of NVIDIA's kind whose tensors fit its bytes; see above."""
    with _opened(path, "Get the file again from its source.") as (_, data):
        if len(data) > MAX_NETWORK:
            raise CorruptWeights(f"it is larger than {MAX_NETWORK >> 30} GiB.")
        if bytes(data[:2]) == b"PK":
            raise CorruptWeights(
                "it is a torch archive, not a network pickle.",
                hint="Give it the ending .pt; it is then read as torch weights.",
            )
        if bytes(data[:1]) != b"\x80":
            raise CorruptWeights("it is not a network pickle.")
        follow(data, _network_rules(data))


def check_network_name(module: str, name: str) -> None:
    """Accept a name that a network needs.

    Raises:
        CannotDo: that of a TensorFlow network.
        UnsafeWeights: any other.
    """
    if (module, name) in NETWORK_NAMES or (module == "torch" and name in DTYPE_NAMES):
        return
    if "tflib" in module.split(".") or module.partition(".")[0] == "tensorflow":
        raise CannotDo(
            "it is a TensorFlow network, which TensorFlow 1 rebuilds by running code it holds.",
            hint="Convert it with NVIDIA's stylegan2-ada-pytorch, or get the PyTorch weights.",
        )
    raise UnsafeWeights(
        f"it asks for {module[:80]}.{name[:80]}, which no network needs.",
        hint="Get the file from NVIDIA, or ask its author for safetensors.",
    )


def _network_rules(data: memoryview) -> Rules:
    claims = _Claims(SPARE + SHARED * len(data))

    def call(made: Made) -> None:
        function = made.function
        if function is None:
            return
        if function.name == "_load_from_bytes":
            blob = made.arguments[0] if made.arguments else None
            if isinstance(blob, Blob):
                inner = _check_inner(data[blob.start : blob.start + blob.length])
                if inner is not None:
                    made.nbytes, made.width = inner.nbytes, inner.width
        elif function.name in _TENSORS:
            claims.add(made.arguments)

    def persistent(given: Any) -> Any:
        raise UnsafeWeights("it refers to objects outside the file.")

    allowed = INSTRUCTIONS - {"BINPERSID"}
    hint = "No network pickle of StyleGAN2-ADA needs it."
    return Rules(
        "a network pickle",
        allowed,
        check_network_name,
        call,
        persistent,
        len(data),
        hint,
    )


def _check_inner(data: memoryview) -> Made | None:
    """A storage inside a network pickle, which is a torch file of the older form."""
    try:
        return _check_older(data)
    except UnsafeWeights as error:
        raise UnsafeWeights(
            "a storage in it holds more than numbers.",
            hint="Get the file from NVIDIA, or ask its author for safetensors.",
        ) from error
    except CorruptWeights as error:
        raise CorruptWeights(f"a storage in it is damaged: {error.message}") from error
