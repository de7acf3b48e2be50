"""The end of a training: half-precision weights, their card, the curve; and the portable start."""

from __future__ import annotations

import copy
import hashlib
import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from guided.core.toml import dumps
from guided.errors import CorruptWeights, MissingWeights, library_message
from guided.training.loss_curve import picture, table
from guided.training.objective import Metric, Product, TrainingObjective
from guided.training.settings import TrainingSettings
from guided.training.state import State
from guided.zoo.cards import CARD_FILE, card_from, read_card
from guided.zoo.packing import load_weights, save_weights

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
_EFFORT = {
    "samples_seen": "samples_before",
    "core_hours": "core_hours_before",
    "gpu_minutes": "gpu_minutes_before",
}


def start_from(file: Path, objective: TrainingObjective[Any], state: State) -> str:
    """Put shipped weights into a fresh state and return what the card says about it.

    Raises:
        MissingWeights: no such file.
        CorruptWeights: its tensors do not fit the model.
    """
    if not file.is_file():
        raise MissingWeights(
            f"There are no weights {file} to start from.",
            hint=f"Train them first: guided train recipes/train/{file.parent.name}.toml; or set "
            "start to a file of yours.",
        )
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in load_weights(file).items()
    }
    try:
        objective.restore(state.model, tensors)
    except RuntimeError as error:
        raise CorruptWeights(
            f"The weights {file} do not fit this recipe's model: {library_message(error)}.",
            hint="Use the recipe named on their card.",
        ) from error
    state.ema.module.load_state_dict(state.model.state_dict())
    state.before = _cost(file)
    return f"{file.name} sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}"


def _cost(file: Path) -> dict[str, float]:
    """What weights cost by the card beside them or above, with all before; {} if not theirs."""
    places = [folder / CARD_FILE for folder in (file.parent, file.parent.parent)]
    place = next((each for each in places if each.is_file()), None)
    if place is None:
        return {}
    card = read_card(place)
    if card.sha256 != hashlib.sha256(file.read_bytes()).hexdigest():
        return {}
    found = {}
    for own, earlier in _EFFORT.items():
        spent = (getattr(card, own) or 0) + (getattr(card, earlier) or 0)
        if spent:
            found[earlier] = round(spent, 3)
    return found


def product_files(
    objective: TrainingObjective[Any], settings: TrainingSettings, state: State, seed: int
) -> tuple[dict[str, bytes], dict[str, float], str]:
    """The files of a finished training by name, its metrics, and its card's notes.

    The product is measured on the very weights that are shipped, in half precision.

    Raises:
        CannotDo: weights that are not finite, or too large for half precision.
        CorruptWeights: the objective's product does not make a complete card.
    """
    shipped = copy.deepcopy(state.ema.module)
    with torch.no_grad():
        for tensor in (*shipped.parameters(), *shipped.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())
    product = objective.product(shipped)
    tensors = product.tensors if product.tensors is not None else shipped.state_dict()
    weights = weight_bytes(tensors)
    files = dict(product.files)
    if product.settings:
        files[CONFIG] = (json.dumps(dict(product.settings), indent=1) + "\n").encode()
    card = card_from(
        {
            **_origin(settings, state, seed),
            "role": product.role,
            "kind": product.kind,
            "file": product.weights,
            "licence": product.licence,
            "size": len(weights),
            "sha256": hashlib.sha256(weights).hexdigest(),
            "parameters": sum(tensors[name].numel() for name in _trained(shipped, tensors)),
            "companions": {
                name: hashlib.sha256(content).hexdigest() for name, content in files.items()
            },
            "metrics": {name: _rounded(metric) for name, metric in product.metrics.items()},
            "notes": _notes(product, settings, state),
        },
        f"The card of {settings.title}",
    )
    table_of_card = card.model_dump(exclude_none=True, exclude_defaults=True)
    files |= {
        product.weights: weights,
        CARD_FILE: dumps({"name": card.name, **table_of_card}).encode(),
        "losses.csv": table(state.history),
        "curve.png": picture(state.history, f"{settings.title}: {state.samples:,} samples"),
    }
    return files, {name: metric.value for name, metric in product.metrics.items()}, card.notes


def weight_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a safetensors file, floating point ones in half precision.

    Raises:
        CannotDo: values that are not finite, or too large for half precision.
    """
    with tempfile.TemporaryDirectory() as folder:
        return save_weights(Path(folder) / WEIGHTS, tensors, "fp16").read_bytes()


def _trained(shipped: Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of shipped tensors that are parameters, not running figures."""
    buffers = {name.rpartition(".")[2] for name, _ in shipped.named_buffers()}
    return [name for name in tensors if name.rpartition(".")[2] not in buffers]


def _rounded(metric: Metric) -> dict[str, float]:
    return {key: round(value, 5) for key, value in vars(metric).items() if value is not None}


def _notes(product: Product, settings: TrainingSettings, state: State) -> str:
    notes = [product.notes]
    if settings.data is not None:
        lr = f"learning rate {settings.lr:g}"
        notes.append(f"Batches of {settings.batch}, {lr}, {round(state.seconds):,} s.")
    if state.started_from:
        notes.append(f"Started from {state.started_from} with a fresh optimiser.")
    notes += [f"Its length was {change}." for change in state.lengthened]
    if state.rollbacks:
        notes.append(f"Rolled back {state.rollbacks} times.")
    return " ".join(note for note in notes if note)


def _origin(settings: TrainingSettings, state: State, seed: int) -> dict[str, Any]:
    """The part of a card that the loop knows: what made the weights, and at what cost."""
    if next(state.model.parameters()).device.type == "cpu":
        effort = {"core_hours": round(state.core_seconds / 3600, 3), "grade": "cpu"}
    else:
        effort = {"gpu_minutes": round(state.seconds / 60, 2), "grade": "gpu"}
    return {
        "name": settings.title,
        "recipe": f"recipes/train/{settings.title}.toml",
        "data_seed": seed,
        "git_revision": revision() or "unknown",
        "samples_seen": state.samples,
        **effort,
        **state.before,
    }


def revision() -> str:
    """The git revision of the source tree, "-dirty" when it was changed, "" outside of git."""
    root = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--match="]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
