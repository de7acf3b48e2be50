"""How fast an editing step is, beside the common way of computing it: ratios from one run.

A full-width random StyleGAN2 and ViT-B/32, float32, one thread.  Prints a table and, with --json,
one object.  Equality of the pictures is asserted, so a ratio never compares different things.
Seconds are CPU seconds of this process; on a GPU (--device cuda), seconds on the wall.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided.core.boxes import box_resize
from guided.core.device import Device, Precision
from guided.core.objective import Candidate, LossContext, Objective
from guided.core.seeds import Seeds
from guided.generators.stylegan2 import StyleGan2
from guided.losses.clip import Clip
from guided.losses.latent_l2 import LatentL2
from guided.nets.stylegan2 import StyleGAN2, StyleGAN2Shape
from guided.worlds.portraits.benchmarks._machine import (
    about,
    arguments,
    headline,
    on_cpu,
    process_peak,
    timed,
)
from guided.worlds.portraits.benchmarks._text_diff import text_diff
from guided.worlds.portraits.tools import tool_parser
from guided.zoo.gate_calls import create_clip
from tests.references import stylegan2 as reference

WIDTHS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}


def full_width(size: int) -> StyleGAN2:
    """The published widths (config F) at a size, random weights, some noise."""
    torch.manual_seed(0)
    channels = tuple(width for side, width in WIDTHS.items() if side <= size)
    net = StyleGAN2(StyleGAN2Shape(size, 512, 512, 8, channels))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("noise.weight"):
                parameter.fill_(0.1)
    return net


class RandomClip:
    """A full-size random ViT-B/32 behind the scorer's interface; its text side is one vector."""

    name, width, scale = "random ViT-B/32", 512, 100.0

    def __init__(self, device: Device) -> None:
        logging.disable(logging.WARNING)
        torch.manual_seed(1)
        model = create_clip("ViT-B-32")
        self.visual: nn.Module = device.prepare(model.visual)
        self.preprocess = _Bare()
        self.dtype = device.dtype
        self.target = F.normalize(torch.randn(1, 512), dim=1).to(device.torch)

    def embed_images(self, images: Tensor) -> Tensor:
        """Unit vectors of pictures that are already prepared."""
        return F.normalize(self.visual(images.to(self.dtype)).float(), dim=-1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """The one vector for every text."""
        return self.target.expand(len(texts), -1)


class _Bare:
    size, mean, std = (224, 224), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def generator_of(size: int, device: Device) -> StyleGan2:
    """That net as a generator on a device, its values kept beyond [0, 1]."""
    return StyleGan2(full_width(size), average=torch.zeros(512), device=device, overshoot="keep")


def our_step(
    generator: StyleGan2, scorer: RandomClip, w: Tensor
) -> Callable[[], tuple[Tensor, Tensor]]:
    """Loss and gradient of one step the way guided does it; bound once, as in a run."""
    objective = Objective.of(Clip(preprocess="styleclip"), 0.008 * LatentL2())
    start = Candidate({"w": w}, generator.render)
    bound = objective.bind(LossContext(scorer, ("prompt",) * len(w), start))

    def step() -> tuple[Tensor, Tensor]:
        leaf = w.clone().requires_grad_()
        draft = Candidate({"w": leaf}, generator.render)
        total, _ = bound(draft)
        (gradient,) = torch.autograd.grad(total.sum(), leaf)
        return draft.image.detach(), gradient

    return step


def their_step(
    net: StyleGAN2, scorer: RandomClip, w: Tensor
) -> Callable[[], tuple[Tensor, Tensor]]:
    """The same loss and gradient the common way: every weight keeps its gradient."""

    def step() -> tuple[Tensor, Tensor]:
        leaf = w.clone().requires_grad_()
        image = reference.render(net, leaf)
        cosine = scorer.embed_images(reference.resize(image)) @ scorer.target.T
        loss = (1 - cosine).sum() + 0.008 * (leaf - w).square().sum()
        for module in (net, scorer.visual):
            module.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        return (image.detach() + 1) / 2, leaf.grad if leaf.grad is not None else w

    return step


def gap(pictures: Tensor, others: Tensor, device: Device) -> float:
    """The largest difference of pictures that must be equal up to rounding.

    A GPU is allowed ten times as much: it orders its sums by itself.
    """
    off = float((pictures - others).abs().max())
    assert off <= (1e-5 if on_cpu(device) else 1e-4), f"pictures differ by {off}"
    return off


def whole_step(size: int, device: Device, repeats: int) -> dict[str, float]:
    """One step at a size, both ways, with the differences of picture and gradient."""
    generator, scorer = generator_of(size, device), RandomClip(device)
    w = generator.start(Seeds.of(0), truncation=1.0)["w"]
    fast, (picture, gradient) = timed(our_step(generator, scorer, w), device, repeats)
    generator.net.requires_grad_(True)
    scorer.visual.requires_grad_(True)
    theirs = their_step(generator.net, scorer, w)
    slow, (other, other_gradient) = timed(theirs, device, repeats)
    off = gap(picture, other, device)
    return {
        "size": size,
        "reference_seconds": slow,
        "ours_seconds": fast,
        "ratio": slow / fast,
        "picture_difference": off,
        "gradient_difference": float((gradient - other_gradient).norm() / other_gradient.norm()),
    }


def resizing(size: int, device: Device, repeats: int) -> dict[str, float]:
    """Forward and backward of the resize alone, three channels; peak memory in own processes."""
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    image = device.move(image)

    def both_ways(resize: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            leaf = image.clone().requires_grad_()
            out = resize(leaf)
            torch.autograd.grad(out.square().sum(), leaf)
            return out.detach()

        return run

    ours, theirs = both_ways(lambda x: box_resize(x, 224)), both_ways(reference.resize)
    fast, small = timed(ours, device, 5 * repeats)
    slow, other = timed(theirs, device, repeats)
    off = gap(small, other, device)
    return {
        "size": size,
        "ratio": slow / fast,
        "reference_ms": 1e3 * slow,
        "ours_ms": 1e3 * fast,
        "difference": off,
        "reference_peak_mib": peak(f"resize:reference:{size}", device),
        "ours_peak_mib": peak(f"resize:ours:{size}", device),
    }


def batching(size: int, rows: int, device: Device, repeats: int) -> dict[str, float]:
    """One step of ``rows`` edits together, per edit, beside one alone; equal gradients."""
    generator, scorer = generator_of(size, device), RandomClip(device)
    w = generator.start(Seeds.of(0, rows), truncation=1.0)["w"]
    one, (_, alone) = timed(our_step(generator, scorer, w[:1]), device, repeats)
    many, (_, together) = timed(our_step(generator, scorer, w), device, repeats)
    off = float((together[:1] - alone).norm() / alone.norm())
    assert off <= 1e-3, f"gradients differ by {off}"
    return {
        "size": size, "rows": rows, "single_seconds": one, "batched_seconds_each": many / rows,
        "ratio": one * rows / many, "gradient_difference": off,
    }  # fmt: skip


def preview(size: int, device: Device, repeats: int) -> dict[str, float]:
    """The step in pure bf16 beside float32: a quick look, not the same numbers."""
    seconds = {}
    pictures = {}
    for precision in get_args(Precision):
        place = replace(device, precision=precision)
        generator = generator_of(size, place)
        shape = (1, generator.net.shape.rows, 512)
        w = 0.5 * torch.randn(shape, generator=torch.Generator().manual_seed(2))
        step = our_step(generator, RandomClip(place), w.to(device.torch))
        seconds[precision], (pictures[precision], _) = timed(step, device, repeats)
    off = float((pictures["fp32"] - pictures["bf16"]).abs().mean())
    return {
        "size": size, "ratio": seconds["fp32"] / seconds["bf16"], "bf16_seconds": seconds["bf16"],
        "mean_picture_difference": off,
    }  # fmt: skip


# ------------------------------------------------------------------ memory, in own processes


def peak(what: str, device: Device) -> float:
    """MiB by which the memory of a fresh process grows at most while it does ``what``."""
    words = [sys.executable, "-m", __spec__.name, "--measure", what, "--device", device.name]
    out = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(out.stdout.split()[-1])


def measure(what: str, device: Device) -> float:
    """Do one thing in this process and give the growth of its memory in MiB."""
    torch.set_num_threads(1)
    kind, way, size = what.split(":")
    side = int(size)
    if kind == "resize":
        image = device.move(torch.rand(1, 3, side, side)).requires_grad_()
        resize = reference.resize if way == "reference" else lambda x: box_resize(x, 224)
        small = device.move(torch.rand(1, 3, 32, 32)).requires_grad_()
        torch.autograd.grad(resize(small).square().sum(), small)  # loads what torch loads once
        return process_peak(
            lambda: torch.autograd.grad(resize(image).square().sum(), image), device
        )
    generator, scorer = generator_of(side, device), RandomClip(device)
    w = torch.zeros(1, generator.net.shape.rows, 512, device=device.torch)
    return process_peak(our_step(generator, scorer, w), device)


def main() -> None:
    """Run the asked-for parts and print what they found."""
    parser = tool_parser("bench edit", __doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", default="resize,step,batch,preview,memory,text-diff")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", default="")
    given, device = arguments(parser)
    torch.backends.cudnn.allow_tf32 = False  # or float32 convolutions are none on a GPU
    if given.measure:
        print(measure(given.measure, device))
        return
    torch.set_num_threads(1)
    parts: dict[str, Callable[[], object]] = {
        "resize": lambda: [resizing(size, device, given.repeats) for size in (256, 512, 1024)],
        "step": lambda: whole_step(256, device, given.repeats),
        "batch": lambda: batching(128, 8, device, given.repeats),
        "preview": lambda: preview(256, device, given.repeats),
        "text-diff": lambda: text_diff(device),
        "memory": lambda: {"size": 1024, "step_peak_mib": peak("step:ours:1024", device)},
    }
    if not given.json:
        print(headline(device))
    found: dict[str, object] = dict(about(device))
    for name in given.parts.split(","):
        found[name] = parts[name]()
        if not given.json:
            print(name, json.dumps(found[name], default=lambda x: round(x, 6)), flush=True)
    if given.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
