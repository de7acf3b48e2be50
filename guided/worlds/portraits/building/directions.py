"""Measure what each StyleSpace channel of the kit's generator does under the kit's CLIP.

scripts/build directions [--portraits 8] [--out guided/zoo/shipped/directions]

The result serves `guided edit --method direction`.  It must be made anew for a new generator or a
new CLIP.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from guided.core.device import Device
from guided.core.seeds import Seeds
from guided.core.toml import dumps
from guided.generators.stylegan2 import StyleGan2
from guided.guidance.relevance import measured_relevance
from guided.models.loading import load_generator, load_scorer
from guided.training.build import write_files
from guided.training.finish import WEIGHTS, revision, weight_bytes
from guided.training.objective import LICENCE
from guided.worlds.portraits.tools import tool_parser
from guided.zoo.folders import SHIPPED
from guided.zoo.kits import load_kit

_SAMPLES = 4096


def statistics(generator: StyleGan2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Mean and deviation of every StyleSpace code over random portraits."""
    many = generator.start(Seeds.of(10**6, _SAMPLES), truncation=1.0)
    return [(code.mean(0), code.std(0)) for code in generator.in_space(many, "s").values()]


def measure(generator: StyleGan2, scorer: Any, portraits: int) -> torch.Tensor:
    """The relevance [channels, D], with a line for each code."""
    start = generator.in_space(generator.start(Seeds.of(0, portraits), truncation=0.7), "s")
    steps = measured_relevance(
        generator.render, scorer.embed_images, start, statistics(generator), generator.movable("s")
    )
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            found: torch.Tensor = end.value
            return found
        print(f"code {step.index} of {step.total}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the file and its card."""
    parser = tool_parser("build directions", __doc__)
    parser.add_argument("--portraits", type=int, default=8)
    parser.add_argument("--device", default=None)
    parser.add_argument("--generator", default=load_kit("portraits")["generator"])
    parser.add_argument("--scorer", default=load_kit("portraits")["scorer"])
    parser.add_argument("--out", type=Path, default=SHIPPED / "directions")
    given = parser.parse_args(arguments)
    device = Device.pick(given.device)
    spent = time.process_time()
    generator = load_generator(given.generator, device)
    relevance = measure(generator, load_scorer(given.scorer, device), given.portraits).cpu()
    weights = weight_bytes({"relevance": relevance})
    alike = relevance @ relevance.T
    alike.fill_diagonal_(0)
    card = {
        "name": given.out.name, "role": "directions", "kind": "fs3", "file": WEIGHTS,
        "licence": LICENCE, "size": len(weights), "parameters": relevance.numel(),
        "sha256": hashlib.sha256(weights).hexdigest(),
        "recipe": "scripts/build directions", "data_seed": 0,
        "git_revision": revision() or "unknown",
        "samples_seen": 2 * given.portraits * len(relevance),
        "core_hours": round((time.process_time() - spent) / 3600, 3),
        "grade": "cpu" if device.name == "cpu" else "gpu",
        "metrics": {"nearest": {"value": round(float(alike.amax(1).mean()), 5), "floor": 0.0,
                                "ceiling": 1.0}},
        "notes": "What each StyleSpace channel does to pictures of the generator "
        f"{given.generator} under the CLIP {given.scorer}: unit vectors. nearest: mean cosine of "
        "a channel with the one most like it.",
    }  # fmt: skip
    write_files({WEIGHTS: weights, "card.toml": dumps(card).encode()}, given.out)
    print(f"{len(relevance)} channels: {given.out}")
    return 0
