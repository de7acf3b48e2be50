"""The policy of dtype and CPU offload: where, and in which precision, a model of each role runs.

    role                              --dtype auto              fp32, bf16, fp16   --offload model
    denoiser (text encoders, VAEs)    CPU fp32, else bf16       as given           yes
    language                          CPU fp32, else bf16       as given           yes
    generator, text_gan               fp32                      as given           no
    scorer                            fp32                      fp32               yes
    all others                        fp32                      fp32               no

So what makes images and texts takes the dtype, and what compares stays in fp32: scorers, judges,
identity, losses, indexes, the prior (whose embeddings are compared) and the arithmetic of
schedulers, whose samples are fp32 under any denoiser.  Where a verb that only compares may be
quicker in bf16 it has a ``precision`` of its own.  An accelerator that does not multiply bf16 takes
fp16 for ``auto``; an autoencoder that overflows in fp16 (``force_upcast``) decodes in fp32.  GANs
have few weights and are inverted pixel by pixel, so they leave fp32 only when told.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from guided.errors import UsageError

if TYPE_CHECKING:
    from guided.core.device import Device, Precision
    from guided.core.offload import Offload
    from guided.core.precision import DtypeName

logger = logging.getLogger(__name__)

#: Roles whose models compute in the dtype that is given, and those of them that "auto" lowers.
GENERATIVE = frozenset({"denoiser", "generator", "language", "text_gan"})
LOWERED = frozenset({"denoiser", "language"})
#: Roles whose models take turns on the device.
OFFLOADED = frozenset({"denoiser", "language", "scorer"})


@dataclass
class Placement:
    """Where the models of one run are: ``dtype`` None is "auto", ``offload`` None is "none".

    ``placed`` are the devices that were handed out, by role.
    """

    device_name: str | None = None
    dtype: DtypeName | None = None
    offload: str | None = None
    placed: dict[str, Device] = field(default_factory=dict)
    _turns: Offload | None = None

    def of(self, role: str, precision: Precision = "fp32") -> Device:
        """The device of a role's model; ``precision`` is that of a verb's own option, for a model
        whose dtype is not given.

        Raises:
            UsageError: a device that this computer does not have, or a dtype that is of no use
                on it or to such a model.
        """
        from guided.core.device import Device, multiplies_bf16

        device = Device.pick(self.device_name)
        chosen: DtypeName = precision
        if role in GENERATIVE and self.dtype is not None:
            chosen = self.dtype
            check_dtype(chosen, device, role)
        elif role in LOWERED and device.torch.type != "cpu":
            chosen = "bf16" if multiplies_bf16(device.torch) else "fp16"
        turns = self._offload(device) if role in OFFLOADED else None
        self.placed[role] = Device(device.name, chosen, turns)
        return self.placed[role]

    def _offload(self, device: Device) -> Offload | None:
        """The turns on the device; None on a CPU, in whose memory all models are anyway."""
        if self.offload != "model" or device.torch.type == "cpu":
            return None
        from guided.core.offload import Offload

        if self._turns is None:
            self._turns = Offload(device.torch)
        return self._turns

    @property
    def told(self) -> dict[str, str]:
        """What a run's record says: the dtype of what was made with, and whether it took turns."""
        made = [self.placed[role].precision for role in sorted(GENERATIVE & self.placed.keys())]
        found: dict[str, str] = {"dtype": made[0]} if made else {}
        return found | ({} if self._turns is None else {"offload": "model"})


def check_dtype(dtype: DtypeName, device: Device, role: str) -> None:
    """Accept a dtype that was asked for; one that is right and slow is warned of.

    Raises:
        UsageError: fp16 on a CPU, or for a GAN.
    """
    from guided.core.device import multiplies_bf16

    if dtype == "fp16" and device.torch.type == "cpu":
        raise UsageError(
            "A CPU computes fp16 many times slower than fp32, and part of it not at all.",
            hint="Give --dtype fp32 (or leave it out), --dtype bf16, or an accelerator: --device.",
        )
    if dtype == "fp16" and role in ("generator", "text_gan"):
        raise UsageError(
            "A GAN's activations overflow in fp16.", hint="Give --dtype bf16, or leave it out."
        )
    if dtype == "bf16" and not multiplies_bf16(device.torch):
        quicker = "fp32" if device.torch.type == "cpu" else "fp16"
        logger.warning(
            "%s does not multiply bf16: it is computed correctly, but many times slower than in "
            "%s.", "This processor" if device.torch.type == "cpu" else device.name, quicker,
        )  # fmt: skip


def check_used(
    task: str, roles: Collection[str], dtype: str | None, offload: str | None, *, precision: bool
) -> None:
    """Refuse a dtype or offload that nothing takes in a run of models of some ``roles``.

    Raises:
        UsageError: it would be without effect.
    """
    if dtype is not None and not GENERATIVE & set(roles):
        raise UsageError(
            f"{task} makes nothing that dtype = {dtype} is for: what compares runs in fp32.",
            hint="Leave --dtype out; --precision bf16 is what makes the scorer quicker."
            if precision else "Leave --dtype out.",
        )  # fmt: skip
    if offload is not None and not OFFLOADED & set(roles):
        raise UsageError(
            f"{task} uses no model that could be offloaded ({', '.join(sorted(OFFLOADED))}).",
            hint="Leave --offload out.",
        )
