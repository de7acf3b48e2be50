"""The autoencoder of a latent diffusion model as it is shipped: a folder of diffusers' parts.

    vae/config.json    vae/diffusion_pytorch_model.safetensors     FoldedAutoencoderKL
    tiny/config.json   tiny/diffusion_pytorch_model.safetensors    FoldedAutoencoderTiny
    preview.json                                                   C + 1 rows of 3 numbers

Its latents have mean 0 and deviation 1 in every channel: that is in the weights (``unit_latents``),
so that a scaling factor of 1 holds, in other programs too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.device import Device, widened
from guided.core.reading import read_json
from guided.errors import CorruptWeights, library_message
from guided.zoo.gate_calls import load_part
from guided.zoo.resolve import find_folder

VAE, TINY, PREVIEW = "vae", "tiny", "preview.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Autoencoder:
    """The autoencoder, its tiny decoder and its linear preview (C + 1 rows of 3 numbers).

    ``vae`` and ``tiny`` are modules in the form of diffusers', frozen; pictures are in [-1, 1]
    there.
    """

    vae: Any
    tiny: Any
    preview: list[list[float]]

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return int(self.vae.config.latent_channels)

    @property
    def factor(self) -> int:
        """How many pixels of a side one latent covers."""
        return factor_of(self.vae)

    def encode(self, images: Tensor) -> Tensor:
        """The likeliest latents [B, C, H / f, W / f] of pictures [B, 3, H, W] in [0, 1]."""
        dtype = next(self.vae.parameters()).dtype
        found: Tensor = self.vae.encode((2 * images - 1).to(dtype)).latent_dist.mode()
        latents: Tensor = found * self.vae.config.scaling_factor
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1] of latents; differentiable."""
        signed = decoded(self.vae, latents / self.vae.config.scaling_factor)
        return (signed / 2 + 0.5).clamp(0, 1)


def find_autoencoder(wanted: str) -> tuple[Path, str]:
    """The folder of an autoencoder, by name or by path, and the sha256 of its weights.

    Raises:
        MissingWeights: there is none of that name, and no such folder.
    """
    return find_folder(wanted, "vae", f"{VAE}/{WEIGHTS}")


def factor_of(vae: Any) -> int:
    """How many pixels of a side one latent of an autoencoder covers."""
    return int(getattr(vae, "fold", 1) * 2 ** (len(vae.config.block_out_channels) - 1))


def load_autoencoder(folder: Path, device: Device | None = None) -> Autoencoder:
    """The autoencoder in a folder of that layout, frozen on ``device``.

    Raises:
        CorruptWeights: files that are missing or do not fit together.
    """
    from guided.nets.folded_autoencoder import FoldedAutoencoderKL, FoldedAutoencoderTiny

    place = device or Device()
    try:
        parts = [
            prepare_vae(load_part(kind, folder / name, use_safetensors=True), place)
            for name, kind in ((VAE, FoldedAutoencoderKL), (TINY, FoldedAutoencoderTiny))
        ]
        table = read_json(folder / PREVIEW)
        preview = [[float(number) for number in row] for row in table]
        if [len(row) for row in preview] != [3] * (parts[0].config.latent_channels + 1):
            raise ValueError(f"{PREVIEW} does not fit the latents")
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = library_message(error)
        raise CorruptWeights(f"The autoencoder in {folder} cannot be loaded: {reason}.") from error
    return Autoencoder(parts[0], parts[1], preview)


def prepare_vae(module: Any, device: Device) -> Any:
    """A module of diffusers' on a device and in its precision, frozen."""
    return device.place(module, part_dtype(module, device)).eval().requires_grad_(False)


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """What a decoder makes of latents [B, C, h, w]: [B, 3, H, W] in about [-1, 1], float32."""
    signed: Tensor = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
    return widened(signed)


def part_dtype(module: Any, device: Device) -> torch.dtype:
    """The precision of a part of a pipeline on a device whose precision is the denoiser's.

    An autoencoder whose activations overflow in fp16 says ``force_upcast``: it computes in fp32.
    """
    overflows = device.precision == "fp16" and module.config.get("force_upcast", False)
    return torch.float32 if overflows else device.dtype


@torch.no_grad()
def unit_latents(vae: Any, tiny: Any, mean: Tensor, deviation: Tensor) -> None:
    """Change weights so that latents z become (z - mean) / deviation and pictures stay the same.

    ``mean`` and ``deviation`` [C] go into the 1 x 1 filters behind the encoder and before the
    decoder of an AutoencoderKL, exactly, and into the last layer of an AutoencoderTiny's encoder;
    its decoder is left alone, since it bounds what it is given.
    """
    count = len(mean)
    behind, before = vae.quant_conv, vae.post_quant_conv
    behind.weight[:count] /= deviation.view(-1, 1, 1, 1)
    behind.bias[:count] = (behind.bias[:count] - mean) / deviation
    behind.bias[count:] -= 2 * deviation.log()
    before.bias += before.weight[:, :, 0, 0] @ mean
    before.weight *= deviation.view(1, -1, 1, 1)
    last = tiny.encoder.layers[-1]
    last.weight /= deviation.view(-1, 1, 1, 1)
    last.bias.copy_((last.bias - mean) / deviation)


def preview_table(latents: Tensor, pictures: Tensor) -> tuple[list[list[float]], float]:
    """The linear map from latents to colours, and the share of the colours' variance it explains.

    Latents [N, C, h, w] and pictures [N, 3, f h, f w] in [-1, 1] of the same; ordinary least
    squares between each latent and the mean colour of the pixels it covers.  C + 1 rows of 3
    numbers, the last the constant.
    """
    factor = pictures.shape[-1] // latents.shape[-1]
    cells = F.avg_pool2d(pictures.float(), factor).permute(0, 2, 3, 1).reshape(-1, 3)
    flat = latents.float().permute(0, 2, 3, 1).reshape(len(cells), -1)
    inputs = torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1).double().cpu()
    wanted = cells.double().cpu()
    table = torch.linalg.lstsq(inputs, wanted).solution
    left = (inputs @ table - wanted).square().sum()
    whole = (wanted - wanted.mean(0)).square().sum().clamp_min(1e-12)
    return table.tolist(), float(1 - left / whole)
