"""A student of a CLIP that looks at latents: guidance without decoding anything."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from guided.core.device import Device
from guided.core.reading import read_json
from guided.core.shapes import expect
from guided.errors import CorruptWeights, library_message
from guided.fast.packed_linear import pack_linears
from guided.nets.latent_scorer import LatentNet
from guided.zoo.belonging import check_same
from guided.zoo.packing import load_weights
from guided.zoo.resolve import find_folder

CONFIG = "config.json"


class LatentClip:
    """Embeds clean latents, as a denoiser predicts them, near the embeddings of their pictures.

    ``teacher`` is the fingerprint of the CLIP it learnt from, ``vae_sha256`` that of the latents'
    autoencoder.
    """

    def __init__(
        self, net: LatentNet, device: Device | None = None, teacher: str = "", vae_sha256: str = ""
    ) -> None:
        self.device = device or Device()
        self.net = self.device.prepare(net)
        pack_linears(self.net)
        self.teacher, self.vae_sha256 = teacher, vae_sha256

    def embed_latents(self, latents: Tensor, noise: Tensor) -> Tensor:
        """Unit vectors [B, D], float32, of clean latents [B, C, h, w] predicted at noise levels
        [B] in [0, 1]; differentiable.

        Raises:
            ShapeError: latents of another shape.
        """
        shape = self.net.shape
        expect(latents, f"b {shape['channels']} {shape['side']} {shape['side']}", "latents")
        given = latents.to(self.device.dtype)
        return F.normalize(self.net(given, noise).float(), dim=1)


def load_latent_scorer(name: str, teacher: str, device: Device | None = None) -> LatentClip:
    """The latent scorer of that name (or in that folder), a student of the CLIP ``teacher``.

    Raises:
        MissingWeights: there is none of that name here.
        CorruptWeights: files that do not fit together, or a student of another CLIP.
    """
    folder, _ = find_folder(name, "latent_scorer", CONFIG)
    try:
        table = read_json(folder / CONFIG)
        learnt, vae = str(table.pop("scorer_sha256")), str(table.pop("vae_sha256"))
        net = LatentNet(**table)
        state = {k: v.float() for k, v in load_weights(folder / "model.safetensors").items()}
        net.load_state_dict(state)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CorruptWeights(
            f"The latent scorer in {folder} does not fit this version: {library_message(error)}.",
            hint="Rebuild it with scripts/build latent_scorer.",
        ) from error
    check_same(
        f"The latent scorer in {folder} learnt from another CLIP than the one that guides",
        learnt, teacher,
        "Take --decode tiny, or rebuild it with scripts/build latent_scorer.",
    )  # fmt: skip
    return LatentClip(net, device, learnt, vae)
