"""The only place that decides where tensors live and in which precision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from guided.core.offload import Offload
from guided.core.precision import DtypeName
from guided.errors import UsageError

Precision = Literal["fp32", "bf16"]
ModuleT = TypeVar("ModuleT", bound=nn.Module)

Dtype = torch.dtype  # inside Device the name torch is a property
Home = torch.device
CPU = torch.device("cpu")
_DTYPES: dict[str, Dtype] = {
    "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16,
}  # fmt: skip


def available() -> list[str]:
    """Names of the devices of this computer, the preferred one first."""
    names = ["cpu"]
    if torch.backends.mps.is_available():
        names.insert(0, "mps")
    if torch.cuda.is_available():
        names[0:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return names


def multiplies_bf16(device: torch.device) -> bool:
    """Whether bf16 is quick there: a CPU without such products takes tens of times fp32's time,
    and a GPU from before Ampere emulates them.
    """
    if device.type == "cuda" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return True
    known = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(known and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def fastest_precision(device: torch.device, precision: Precision) -> Precision:
    """That precision, or fp32 where bf16 would be slower than it."""
    return precision if multiplies_bf16(device) else "fp32"


def widened(tensor: Tensor) -> Tensor:
    """A tensor in fp32 where it is bf16 or fp16; a wider one as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@dataclass(frozen=True)
class Device:
    """Where and in which precision models run.

    fp32 is used wherever a number is compared; bf16 and fp16 mean weights in it throughout, never
    autocast: on a CPU that re-casts the weights at every call.  With ``offload`` the weights rest
    in CPU memory and are on the device only while their model computes.
    """

    name: str = "cpu"
    precision: DtypeName = "fp32"
    offload: Offload | None = field(default=None, compare=False)

    @classmethod
    def pick(cls, name: str | None = None, precision: DtypeName = "fp32") -> Device:
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
        """float32, bfloat16 or float16."""
        return _DTYPES[self.precision]

    @property
    def home(self) -> Home:
        """Where weights lie while their model does not compute."""
        return self.torch if self.offload is None else CPU

    def prepare(self, module: ModuleT) -> ModuleT:
        """The module on this device and precision, frozen and in evaluation mode."""
        return self.place(module, self.dtype).eval().requires_grad_(False)

    def place(self, module: ModuleT, dtype: Dtype | None = None) -> ModuleT:
        """The module on this device, or offloaded from it; in its own precision without ``dtype``.

        diffusers' own ``to`` warns of every change of precision, whether something is wrong or not.
        """
        nn.Module.to(module, self.home, dtype)
        if self.offload is not None:
            self.offload.manage(module)
        return module

    def move(self, tensor: Tensor) -> Tensor:
        """A tensor on this device; floating point tensors also in its precision."""
        if tensor.is_floating_point():
            return tensor.to(self.torch, self.dtype)
        return tensor.to(self.torch)
