"""Published checkpoint files as one flat table of tensors, whatever they are nested in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from guided.zoo.nvidia import NvidiaRecord, load_nvidia_pickle
from guided.zoo.packing import check_finite, load_weights


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file by dotted name (``g_ema.conv1.conv.weight``), from ``path``."""

    path: Path
    tensors: Mapping[str, Tensor]

    def part(self, marks: Sequence[str], prefixes: Sequence[str] = ("",)) -> dict[str, Tensor]:
        """The entries under the first prefix that holds one of ``marks``, named without it.

        Empty when no prefix does.
        """
        for prefix in prefixes:
            if any(prefix + mark in self.tensors for mark in marks):
                return {
                    key[len(prefix) :]: value
                    for key, value in self.tensors.items()
                    if key.startswith(prefix)
                }
        return {}

    def get(self, name: str) -> Tensor | None:
        """The tensor of that name, if there is one."""
        return self.tensors.get(name)

    def summary(self) -> str:
        """The first names and how many more there are, for error messages."""
        names = sorted(self.tensors)
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        return (", ".join(names[:4]) + more) or "no tensor"


def read_checkpoint(path: str | Path) -> Checkpoint:
    """The tensors of a .safetensors, .pt, .pth or NVIDIA .pkl file; nothing in it is executed.

    Raises:
        MissingWeights: no such file.
        CorruptWeights: a damaged file, or weights that are not finite.
        UnsafeWeights: a file that would run code.
        CannotDo: a TensorFlow pickle.
    """
    path = Path(path)
    if path.suffix != ".pkl":
        return Checkpoint(path, load_weights(path))
    tensors: dict[str, Tensor] = {}
    for name, network in load_nvidia_pickle(path).items():
        if isinstance(network, NvidiaRecord):
            tensors |= {f"{name}.{key}": value for key, value in network.tensors().items()}
    check_finite(tensors, str(path))
    return Checkpoint(path, tensors)
