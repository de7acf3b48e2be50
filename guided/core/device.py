"""The only place that decides where tensors live and in which precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from guided.errors import UsageError

Precision = Literal["fp32", "bf16"]
ModuleT = TypeVar("ModuleT", bound=nn.Module)

Dtype = torch.dtype  # inside Device the name torch is a property
_DTYPES: dict[str, Dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def available() -> list[str]:
    """Names of the devices of this computer, the preferred one first."""
    names = ["cpu"]
    if torch.backends.mps.is_available():
        names.insert(0, "mps")
    if torch.cuda.is_available():
        names[0:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return names


def multiplies_bf16(device: torch.device) -> bool:
    """Whether bf16 is quick there: a CPU without such products takes tens of times fp32's time."""
    if device.type != "cpu":
        return True
    known = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(known and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def quickest(device: torch.device, precision: Precision) -> Precision:
    """That precision, or fp32 where bf16 would be slower than it."""
    return precision if multiplies_bf16(device) else "fp32"


@dataclass(frozen=True)
class Device:
    """Where and in which precision models run.

    fp32 is used wherever a number is compared; bf16 means pure bf16 weights (throughput), never
    autocast: on a CPU that re-casts the weights at every call.
    """

    name: str = "cpu"
    precision: Precision = "fp32"

    @classmethod
    def pick(cls, name: str | None = None, precision: Precision = "fp32") -> Device:
        """The named device, or the best there is: cuda, then mps, then cpu.

        Raises:
            UsageError: a device this computer does not have.
        """
        names = available()
        if name is None:
            return cls(names[0], precision)
        if name not in names:
            raise UsageError(
                f"There is no device {name!r} here; there are: {', '.join(names)}.",
                hint="Leave --device out to take the best one.",
            )
        return cls(name, precision)

    @property
    def torch(self) -> torch.device:
        """The device as torch knows it."""
        return torch.device(self.name)

    @property
    def dtype(self) -> Dtype:
        """float32 or bfloat16."""
        return _DTYPES[self.precision]

    def settle(self, module: ModuleT) -> ModuleT:
        """The module on this device and precision, frozen and in evaluation mode."""
        return module.to(self.torch, self.dtype).eval().requires_grad_(False)

    def move(self, tensor: Tensor) -> Tensor:
        """A tensor on this device; floating point tensors also in its precision."""
        if tensor.is_floating_point():
            return tensor.to(self.torch, self.dtype)
        return tensor.to(self.torch)
