"""From a model reference to a loaded model, a function a role; device and precision are given.

The policy is in ``placement``.  int8 is only what a verb's own ``precision`` asks for: a tower for
image files on a CPU, beside a model in fp32.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from guided.core.device import Device, Precision, fastest_precision
from guided.errors import CorruptWeights
from guided.models.references import Located, Reference

if TYPE_CHECKING:
    from torch import Tensor

    from guided.generators.diffusion import Diffusion
    from guided.generators.e4e import StyleInverter
    from guided.generators.stylegan2 import Overshoot, StyleGan2
    from guided.generators.unclip import Prior
    from guided.language.load import LanguageModelBundle
    from guided.nets.delta import DeltaNet
    from guided.nets.e4e import Reading
    from guided.scorers.clip import ClipScorer
    from guided.scorers.fast_tower import Bulk
    from guided.scorers.trunk import Net, TrunkDistance

BulkPrecision = Literal["fp32", "bf16", "int8"]


def bulk_of(precision: BulkPrecision, *, many: bool) -> Bulk:
    """How image files are embedded: by the model, or ``many`` by a CPU's own tower."""
    return precision if precision == "int8" or (many and precision == "bf16") else "same"


def placed(device: torch.device, precision: Precision) -> Device:
    """That device for models a training leans on; in fp32 where bf16 would be slower."""
    return Device.pick(str(device), fastest_precision(device, precision))


def reference_of(given: Any, role: str) -> Reference:
    """A reference as it is, or the one that a text or an object makes for a role."""
    return given if isinstance(given, Reference) else Reference.parse(given, role)


def weight_file(given: Any, role: str) -> Path:
    """The weight file of a model, checked against its card where it has one.

    Raises:
        MissingWeights: not on this computer.
        CannotDo: a model made for another role.
    """
    return reference_of(given, role).locate(whole=True).main


def load_scorer(
    given: Any,
    device: Device,
    *,
    role: str = "scorer",
    online: bool = False,
    bulk: Bulk = "same",
) -> ClipScorer:
    """The CLIP of a reference; a judge is no scorer, and the user's own object is taken as it is.

    Raises:
        MissingWeights: files that are not on this computer.
        CannotDo: a model made for another role, or an object that embeds nothing.
    """
    from guided.scorers.clip import load_clip
    from guided.scorers.user_model import scorer_of

    reference = reference_of(given, role)
    if reference.kind == "object":
        return scorer_of(reference.given, device, reference.text)
    if reference.kind == "hub" and online:
        reference.locate(online=True)
    return load_clip(reference.library_name, device, role=role, online=online, bulk=bulk)


def load_generator(given: Any, device: Device, *, overshoot: Overshoot = "clip") -> StyleGan2:
    """The generator of a reference."""
    from guided.generators.stylegan2 import load_stylegan2

    return load_stylegan2(weight_file(given, "generator"), device, overshoot=overshoot)


def load_embedder(given: Any, device: Device) -> Any:
    """The identity embedder of a reference: ``embed_images`` to unit vectors."""
    from guided.scorers.identity import load_identity

    return load_identity(weight_file(given, "identity"), device)


def load_encoder(where: Located, average: Tensor, device: Device) -> StyleInverter:
    """An inversion encoder; ``average`` [style] is its generator's mean style."""
    from guided.generators.e4e import load_inverter

    psp = where.card is not None and where.card.kind == "psp"
    reading: Reading = "psp" if psp else "e4e"
    return load_inverter(where.main, average, device, reading=reading)


def load_distance(path: Path, device: Device) -> TrunkDistance:
    """The LPIPS distance in a file, whose name says by which trunk."""
    from guided.scorers.trunk import lpips_distance

    net: Net = "alex" if "alex" in path.name else "squeeze" if "squeeze" in path.name else "vgg"
    return lpips_distance(path, net, device)


def load_directions(path: Path, device: Device) -> Tensor:
    """What each channel of a generator does under a CLIP: [channels, D] float32.

    Raises:
        CorruptWeights: a file of another kind.
    """
    from guided.zoo.arrays import read_array
    from guided.zoo.packing import load_weights

    if path.suffix == ".npy":
        relevance = torch.from_numpy(read_array(path))
    else:
        relevance = load_weights(path).get("relevance", torch.empty(0))
    if relevance.ndim != 2:
        raise CorruptWeights(
            f"{path} is {list(relevance.shape)}; channel statistics are [channels, D]."
        )
    return relevance.float().to(device.torch)


def load_delta(path: Path, device: Device) -> DeltaNet:
    """The delta mapper in a file, frozen on the device."""
    from guided.nets.delta import build_delta
    from guided.zoo.packing import load_weights

    return device.prepare(build_delta(load_weights(path)))


def load_mapper(path: Path, device: Device) -> torch.nn.Module:
    """The StyleCLIP mapper in a file, frozen on the device."""
    from guided.nets.mappers import build_mapper
    from guided.zoo.checkpoint import read_checkpoint

    content = read_checkpoint(path)
    marks = [name for name in content.tensors if name.endswith("mapping.1.weight")]
    for prefix in ("state_dict.mapper.", "mapper."):
        if any(name.startswith(prefix) for name in marks):
            state = content.part([name.removeprefix(prefix) for name in marks], (prefix,))
            break
    else:
        state = dict(content.tensors)
    return device.prepare(build_mapper(state))


def load_language_model(given: Any, device: Device, *, online: bool = False) -> LanguageModelBundle:
    """The language model of a reference, with how it wants to be asked."""
    from guided.language.load import load_language

    reference = reference_of(given, "language")
    if reference.kind == "hub" and reference.revision != "main" and online:
        reference.locate(online=True)
    return load_language(reference.library_name, device, online=online)


def load_denoiser(folder: Path, scorer: Any, device: Device, *, name: str = "") -> Diffusion:
    """The diffusion model in a folder.

    One that shares its CLIP with others (``parts.json``) is read with that CLIP: ``scorer`` is
    called with its name.
    """
    from guided.generators.diffusion import load_diffusion, load_own, parts_of

    parts = parts_of(folder)
    if parts is None:
        return load_diffusion(folder, device, name=name)
    return load_own(folder, scorer(parts.scorer), device, name=name)


def load_image_prior(where: Located, scorer_sha256: str, device: Device) -> Prior:
    """The prior in a folder, of the CLIP with that hash ("": not known)."""
    from guided.generators.unclip import load_prior

    return load_prior(str(where.folder), scorer_sha256, device)
