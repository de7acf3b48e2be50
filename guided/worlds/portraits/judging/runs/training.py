"""Measure shipped weights as the end of their training did: scripts/judge training NAME...

Each NAME is a recipe recipes/train/NAME.toml whose model is shipped.  The figures of its monitor
and of its product are taken again, of the file as it lies there: after it was packed, say.  They
go to the model's card unless --dry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from guided.judging.card import write_metrics
from guided.training.build import read_recipe
from guided.training.fit import parse
from guided.training.objective import TrainingContext, TrainingObjective
from guided.training.registry import find
from guided.worlds.portraits.tools import tool_parser
from guided.zoo.cards import CARD_FILE, read_card
from guided.zoo.folders import SHIPPED
from guided.zoo.packing import load_weights
from guided.zoo.recipes import shipped_recipes

TINY = "tiny/diffusion_pytorch_model.safetensors"


def restored(objective: TrainingObjective[Any], name: str) -> torch.nn.Module:
    """The objective's module with the shipped weights of a model, in evaluation mode."""
    folder = SHIPPED / name
    model = objective.build()
    tensors = load_weights(folder / read_card(folder / CARD_FILE).file)
    objective.restore(model, {k: t.float() if t.is_floating_point() else t
                              for k, t in tensors.items()})  # fmt: skip
    if (folder / TINY).is_file():
        tiny: Any = objective.inside(model).tiny
        tiny.load_state_dict(load_weights(folder / TINY))
    return model.eval().requires_grad_(False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures of every model beside those on its card."""
    parser = tool_parser("judge training", __doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help="shipped models, by recipe")
    parser.add_argument("--dry", action="store_true", help="leave the cards alone")
    given = parser.parse_args(arguments)
    for name in given.names:
        recipe = read_recipe(shipped_recipes() / "train" / f"{name}.toml", ())
        settings, seed, _ = parse(recipe)
        torch.manual_seed(seed)
        ctx = TrainingContext(seed, settings.data, settings.pools)
        objective = find(settings.objective, settings.settings, ctx)
        card = SHIPPED / name / CARD_FILE
        known = read_card(card).metrics
        try:
            figures = objective.card_figures(restored(objective, name))
        finally:
            objective.close()
        for key, metric in figures.items():
            before = f"  card {known[key].value:.5f}" if key in known else ""
            print(f"{name} {key:28s} {metric.value:.5f}{before}", flush=True)
        if not given.dry:
            rows = {
                key: {k: v for k, v in vars(metric).items() if v is not None}
                for key, metric in figures.items()
            }
            write_metrics(card, rows)
    return 0
