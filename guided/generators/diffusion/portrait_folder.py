"""Folders of the shipped diffusion model: its denoiser, and the parts it shares with other models.

A folder of diffusers' form that holds the denoiser and its scheduler; ``parts.json`` names the
autoencoder and the CLIP that it was trained with, which are models of their own, by name and hash:

    model_index.json   parts.json   scheduler/scheduler_config.json
    transformer/config.json   transformer/diffusion_pytorch_model.safetensors

Assembled, it is a pipeline like any other, and saved it is a whole folder.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from guided.core.device import Device
from guided.core.reading import read_json
from guided.errors import CorruptWeights, library_message
from guided.generators.diffusion.folder import INDEX
from guided.generators.diffusion.model import Diffusion
from guided.generators.diffusion.pipeline import GuidedPipeline
from guided.generators.diffusion.text import text_encoder_of
from guided.generators.diffusion.vae import (
    Autoencoder,
    find_autoencoder,
    load_autoencoder,
    prepare_vae,
)
from guided.nets.denoiser import PortraitDenoiser
from guided.zoo.belonging import check_same
from guided.zoo.gate import inspect
from guided.zoo.gate_calls import from_config, load_part

PARTS = "parts.json"
TRANSFORMER, SCHEDULER = "transformer", "scheduler"
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    # The cosine schedule ends in nothing but noise, where a solver in log-SNR would begin at -inf.
    "lambda_min_clipped": -5.1,
    "solver_order": 2,
    "clip_sample": False,  # for schedulers that would cut latents off at 1
}
"""The shipped model's schedule for DPM++ 2M; other schedulers take what they know of it."""


class WordReader(Protocol):
    """A CLIP whose text tower can be read token by token: a ``ClipScorer``."""

    model: Any
    texts: Any

    @property
    def fingerprint(self) -> str:
        """The identity of the space."""
        ...


@dataclass(frozen=True)
class Parts:
    """The models that a denoiser was trained with: names in the zoo, and hashes."""

    vae: str
    vae_sha256: str
    scorer: str
    scorer_sha256: str

    def json(self) -> bytes:
        """The content of parts.json."""
        return (json.dumps(vars(self), indent=1) + "\n").encode()


def parts_of(folder: Path) -> Parts | None:
    """What a folder's denoiser shares with other models; None for a folder that is whole.

    Raises:
        CorruptWeights: a parts.json that cannot be read.
    """
    path = folder / PARTS
    if not path.is_file():
        return None
    try:
        table = read_json(path)
        return Parts(**{key: str(value) for key, value in table.items()})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CorruptWeights(f"{path} cannot be read: {library_message(error)}.") from error


def scheduler() -> Any:
    """A fresh scheduler of the shipped model."""
    from diffusers import DPMSolverMultistepScheduler

    return from_config(DPMSolverMultistepScheduler, SCHEDULE)


def folder_files(denoiser: PortraitDenoiser, parts: Parts) -> dict[str, bytes]:
    """The folder's files beside the weights."""
    import diffusers

    index = {
        "_class_name": GuidedPipeline.__name__,
        "_diffusers_version": diffusers.__version__,
        SCHEDULER: ["diffusers", type(scheduler()).__name__],
        TRANSFORMER: [PortraitDenoiser.__module__, PortraitDenoiser.__name__],
    }
    return {
        INDEX: (json.dumps(index, indent=1) + "\n").encode(),
        PARTS: parts.json(),
        f"{SCHEDULER}/scheduler_config.json": str(scheduler().to_json_string()).encode(),
        f"{TRANSFORMER}/config.json": str(denoiser.to_json_string()).encode(),
    }


def assemble(
    denoiser: PortraitDenoiser,
    plan: Any,
    autoencoder: Autoencoder,
    reader: WordReader,
    device: Device | None = None,
    name: str = "denoiser",
) -> Diffusion:
    """A generator of a denoiser, its scheduler, its autoencoder and the CLIP it reads with.

    Raises:
        CannotDo: a CLIP whose text tower is of another kind.
    """
    place = device or Device()
    tokenizer = copy.deepcopy(reader.texts.tokenizer.tokenizer)
    encoder = text_encoder_of(reader.model, int(tokenizer.eos_token_id))
    pipe = GuidedPipeline(
        vae=autoencoder.vae, tiny=autoencoder.tiny, preview=autoencoder.preview, scheduler=plan,
        transformer=prepare_vae(denoiser, place), tokenizer=tokenizer,
        text_encoder=place.prepare(encoder),
    )  # fmt: skip
    return Diffusion(pipe, name=name, device=place)


def load_own(
    folder: Path, reader: WordReader, device: Device | None = None, *, name: str = ""
) -> Diffusion:
    """The model in a folder that has a parts.json, read with the CLIP ``reader``.

    Raises:
        MissingWeights: its autoencoder is not on this computer.
        CorruptWeights: files that do not fit together, or another autoencoder or CLIP than it was
            trained with.
        UnsafeWeights: settings that carry code or leave the folder.
    """
    from diffusers import DPMSolverMultistepScheduler

    parts = parts_of(folder)
    if parts is None:
        raise CorruptWeights(f"{folder} has no {PARTS}.")
    inspect(folder, (TRANSFORMER, SCHEDULER))
    place, sha256 = find_autoencoder(parts.vae)
    _same("autoencoder", parts.vae, parts.vae_sha256, sha256, folder)
    _same("CLIP", parts.scorer, parts.scorer_sha256, reader.fingerprint, folder)
    try:
        denoiser = load_part(PortraitDenoiser, folder / TRANSFORMER, use_safetensors=True)
        plan = load_part(DPMSolverMultistepScheduler, folder / SCHEDULER)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise CorruptWeights(f"{folder} cannot be loaded: {library_message(error)}.") from error
    autoencoder = load_autoencoder(place, device)
    return assemble(denoiser, plan, autoencoder, reader, device, name or folder.name)


def _same(what: str, name: str, wanted: str, found: str, folder: Path) -> None:
    """Raise unless a part is the one that the denoiser was trained with."""
    check_same(
        f"The denoiser in {folder} was trained with another {what} than {name!r} is here",
        wanted, found, "Train it again with this one: scripts/build denoiser.",
    )  # fmt: skip
