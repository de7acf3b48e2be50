"""What guidance costs while denoising: every gradient path beside an unguided run, in one run.

The shipped kit is timed where it is installed; until then, random weights in the shapes of its
training recipes.  A run goes from words to decoded pictures.  Seconds are CPU time of this process
on one thread, the least of some rounds in which all ways take turns, so that other work on the
machine counts little (on a GPU: seconds on the wall).  Memory is what tensors take at most beyond
those that were there before.  ``community`` is the public way: a third pass, the full decoder,
cutouts, and the gradient back through all of it, through the same weights as diffusers runs them.
``--flops`` counts a step of Stable Diffusion 1.5 at 512 px instead.  ``--json`` prints one object.
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from guided.core.objective import Objective
from guided.core.run import drain
from guided.core.seeds import Seeds
from guided.generators.diffusion.portrait import CFG
from guided.guidance.denoise import denoise
from guided.guidance.guided_denoiser import Guidance
from guided.losses.clip import Clip
from guided.tasks.generate import Options
from guided.worlds.portraits.benchmarks import _diffusion_flops as operations
from guided.worlds.portraits.benchmarks._diffusion_kit import Kit, kit
from guided.worlds.portraits.benchmarks._machine import about, arguments, clock, tensors_peak
from guided.worlds.portraits.tools import tool_parser
from tests.references import diffusion as reference

WORDS = "a portrait of a smiling person with curly pink hair, round glasses and a green hat"
UNGUIDED, DEFAULT, COMMUNITY = "unguided", "default", "community"


def default_path() -> dict[str, Any]:
    """The gradient path that ``guided generate`` takes when nobody names one."""
    known = Options.model_fields
    path = {key: known[key].default for key in ("jacobian", "decode", "every")}
    return {**path, "decode": path["decode"] or "latent"}  # the kit has a latent scorer


def paths(every: list[int]) -> dict[str, dict[str, Any]]:
    """Every gradient path by its name."""
    return {
        f"{jacobian}, {decode}, every {each}": {
            "jacobian": jacobian, "decode": decode, "every": each,
        }
        for jacobian in ("stop", "exact")
        for decode in ("latent", "preview", "tiny", "vae")
        for each in every
    }  # fmt: skip


class Ways:
    """The ways to make a batch of pictures of one text."""

    def __init__(self, parts: Kit, steps: int, batch: int) -> None:
        self.parts, self.steps = parts, steps
        self.texts, self.seeds = [WORDS] * batch, Seeds.of(0, batch)
        self.plain = reference.as_published(parts.model.pipe)

    def ours(self, path: dict[str, Any] | None) -> Tensor:
        """Pictures by our loop, unguided without a path."""
        model, parts = self.parts.model, self.parts
        guide = None
        if path:
            student = parts.student if path["decode"] == "latent" else None
            guide = Guidance(objective=Objective.of(Clip()), scorer=parts.scorer,
                             prompts=tuple(self.texts), latent_scorer=student, **path)  # fmt: skip
        stream = denoise(
            model.bound(self.texts, cfg=CFG), model.scheduler(), model.start(self.seeds)["noise"],
            self.seeds, self.steps, cfg=CFG, guidance=guide,
        )  # fmt: skip
        with torch.no_grad():
            return model.render({"x0": drain(stream)})

    def community(self) -> Tensor:
        """Pictures by the public way."""
        model, scorer = self.parts.model, self.parts.scorer
        words = model.bound(self.texts, cfg=CFG).words
        with torch.no_grad():
            latents = reference.sample(
                self.plain, words, model.scheduler(), model.start(self.seeds)["noise"], self.steps,
                CFG, scorer, scorer.embed_texts(self.texts), size=scorer.preprocess.size[0],
            )  # fmt: skip
            images: Tensor = self.plain.decode_latents(latents, "vae")
            return images


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without notes that diffusers writes about names of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def measured(
    parts: Kit, steps: int, batch: int, repeats: int, every: list[int]
) -> dict[str, dict[str, float]]:
    """Seconds a picture and memory of each way."""
    ways, device = Ways(parts, steps, batch), parts.model.device
    work: dict[str, Callable[[], Tensor]] = {
        UNGUIDED: lambda: ways.ours(None),
        DEFAULT: lambda: ways.ours(default_path()),
        COMMUNITY: ways.community,
    }
    for name, path in paths(every).items():
        work[name] = partial(ways.ours, path)
    for each in work.values():
        each()  # packs weights and fills caches
    memory = {name: tensors_peak(each, device) for name, each in work.items()}
    best = dict.fromkeys(work, float("inf"))
    for _ in range(repeats):
        for name, each in work.items():
            begun = clock(device)
            if not bool(torch.isfinite(each()).all()):
                raise SystemExit(f"{name} made pictures that are not finite.")
            best[name] = min(best[name], clock(device) - begun)
    return {
        name: {
            "seconds": best[name] / batch,
            "to_unguided": best[name] / best[UNGUIDED],
            "community_to_this": best[COMMUNITY] / best[name],
            "mebibytes": memory[name],
        }
        for name in work
    }


def shown(answer: dict[str, Any]) -> None:
    """The table, on stderr."""
    for key in ("machine", "device", "commit", "precision", "trained", "default"):
        print(f"{key}: {answer[key]}", file=sys.stderr)
    for batch, table in answer["batch"].items():
        for name, row in table.items():
            print(
                f"batch {batch}  {name:<24} {row['seconds']:8.3f} s a picture "
                f"{row['to_unguided']:6.2f} x unguided {row['community_to_this']:6.2f} x faster "
                f"than community {row['mebibytes']:8.1f} MiB", file=sys.stderr,
            )  # fmt: skip


def main() -> None:
    """Print the figures, as JSON with --json."""
    parser = tool_parser("bench diffusion", __doc__)
    parser.add_argument("--flops", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--every", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    asked, device = arguments(parser)
    if asked.flops:
        table = operations.flops()
        for name, value in table["tera"].items():
            print(f"{name:<50} {value:9.3f} TFLOP", file=sys.stderr)
        for name, value in table["ratio"].items():
            print(f"{name:<50} {value:9.2f} x unguided", file=sys.stderr)
        print(json.dumps(table)) if asked.json else None
        return
    torch.set_num_threads(1)
    with quietly():
        parts = kit(replace(device, precision=asked.precision))
        found = {
            str(batch): measured(parts, asked.steps, batch, asked.repeats, asked.every)
            for batch in asked.batch
        }
    answer = {
        **about(device), "precision": asked.precision, "steps": asked.steps,
        "trained": parts.trained, "default": default_path(), "batch": found,
    }  # fmt: skip
    shown(answer)
    print(json.dumps(answer)) if asked.json else None


if __name__ == "__main__":
    main()
