"""How fast an editing step is, beside the common way of computing it: ratios from one run.

A full-width random StyleGAN2 and ViT-B/32, float32, one thread.  Prints a table and, with --json,
one object.  Equality of the pictures is asserted, so a ratio never compares different things.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
import _stylegan2_reference as reference

from guided.core.boxes import box_resize
from guided.core.device import Device
from guided.core.objective import Draft, Objective, Scene
from guided.core.seeds import Seeds
from guided.generators.stylegan2 import StyleGan2
from guided.losses.clip import Clip
from guided.losses.latent_l2 import LatentL2
from guided.nets.stylegan2 import StyleGAN2, StyleGAN2Shape

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

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        import open_clip

        logging.disable(logging.WARNING)
        torch.manual_seed(1)
        model = open_clip.create_model("ViT-B-32")
        self.visual: nn.Module = model.visual.to(dtype).eval().requires_grad_(False)
        self.preprocess = _Bare()
        self.dtype = dtype
        self.target = F.normalize(torch.randn(1, 512), dim=1)

    def embed_images(self, images: Tensor) -> Tensor:
        """Unit vectors of pictures that are already prepared."""
        return F.normalize(self.visual(images.to(self.dtype)).float(), dim=-1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        """The one vector for every text."""
        return self.target.expand(len(texts), -1)


class _Bare:
    size, mean, std = (224, 224), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def clocked(what: Callable[[], object], repeats: int) -> float:
    """The least CPU seconds of several runs, so that a busy machine counts little."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        what()
        best = min(best, time.process_time() - start)
    return best


def our_step(
    generator: StyleGan2, scorer: RandomClip, w: Tensor
) -> Callable[[], tuple[Tensor, Tensor]]:
    """Loss and gradient of one step the way guided does it; bound once, as in a run."""
    objective = Objective.of(Clip(preprocess="styleclip"), 0.008 * LatentL2())
    start = Draft({"w": w}, generator.render)
    bound = objective.bind(Scene(scorer, ("prompt",) * len(w), start))

    def step() -> tuple[Tensor, Tensor]:
        leaf = w.clone().requires_grad_()
        draft = Draft({"w": leaf}, generator.render)
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
        loss.backward()
        return (image.detach() + 1) / 2, leaf.grad if leaf.grad is not None else w

    return step


def whole_step(size: int, repeats: int) -> dict[str, float]:
    """One step at a size, both ways, with the differences of picture and gradient."""
    net, scorer = full_width(size), RandomClip()
    generator = StyleGan2(net, average=torch.zeros(512), overshoot="keep")
    w = generator.start(Seeds.of(0), truncation=1.0)["w"]
    ours = our_step(generator, scorer, w)
    picture, gradient = ours()
    fast = clocked(ours, repeats)
    net.requires_grad_(True)
    scorer.visual.requires_grad_(True)
    theirs = their_step(net, scorer, w)
    other, other_gradient = theirs()
    slow = clocked(theirs, repeats)
    off = float((picture - other).abs().max())
    assert off <= 1e-5, f"pictures differ by {off}"
    return {
        "size": size,
        "reference_seconds": slow,
        "ours_seconds": fast,
        "ratio": slow / fast,
        "picture_difference": off,
        "gradient_difference": float((gradient - other_gradient).norm() / other_gradient.norm()),
    }


def resizing(size: int, repeats: int) -> dict[str, float]:
    """Forward and backward of the resize alone, three channels; peak memory in own processes."""
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))

    def both_ways(resize: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            leaf = image.clone().requires_grad_()
            out = resize(leaf)
            torch.autograd.grad(out.square().sum(), leaf)
            return out.detach()

        return run

    ours, theirs = both_ways(lambda x: box_resize(x, 224)), both_ways(reference.resize)
    off = float((ours() - theirs()).abs().max())
    assert off <= 1e-5, f"resizes differ by {off}"
    fast, slow = clocked(ours, 5 * repeats), clocked(theirs, repeats)
    return {
        "size": size,
        "ratio": slow / fast,
        "reference_ms": 1e3 * slow,
        "ours_ms": 1e3 * fast,
        "difference": off,
        "reference_peak_mib": peak(f"resize:reference:{size}"),
        "ours_peak_mib": peak(f"resize:ours:{size}"),
    }


def batching(size: int, rows: int, repeats: int) -> dict[str, float]:
    """One step of ``rows`` edits together, per edit, beside one alone; equal gradients."""
    generator = StyleGan2(full_width(size), average=torch.zeros(512), overshoot="keep")
    scorer = RandomClip()
    w = generator.start(Seeds.of(0, rows), truncation=1.0)["w"]
    together, alone = our_step(generator, scorer, w), our_step(generator, scorer, w[:1])
    off = float((together()[1][:1] - alone()[1]).norm() / alone()[1].norm())
    assert off <= 1e-3, f"gradients differ by {off}"
    one, many = clocked(alone, repeats), clocked(together, repeats)
    return {
        "size": size, "rows": rows, "single_seconds": one, "batched_seconds_each": many / rows,
        "ratio": one * rows / many, "gradient_difference": off,
    }  # fmt: skip


def preview(size: int, repeats: int) -> dict[str, float]:
    """The step in pure bf16 beside float32: a quick look, not the same numbers."""
    seconds = {}
    pictures = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        device = Device("cpu", "bf16" if precision == "bf16" else "fp32")
        net = full_width(size)
        generator = StyleGan2(net, average=torch.zeros(512), device=device, overshoot="keep")
        w = torch.randn(1, net.shape.rows, 512, generator=torch.Generator().manual_seed(2)) * 0.5
        step = our_step(generator, RandomClip(dtype), w)
        pictures[precision] = step()[0]
        seconds[precision] = clocked(step, repeats)
    off = float((pictures["fp32"] - pictures["bf16"]).abs().mean())
    return {
        "size": size, "ratio": seconds["fp32"] / seconds["bf16"], "bf16_seconds": seconds["bf16"],
        "mean_picture_difference": off,
    }  # fmt: skip


# ------------------------------------------------------------------ memory, in own processes


def peak(what: str) -> float:
    """MiB by which the resident memory of a fresh process grows while it does ``what``."""
    out = subprocess.run(
        [sys.executable, __file__, "--measure", what], capture_output=True, text=True, check=True
    )
    return float(out.stdout.split()[-1])


def measure(what: str) -> float:
    """Do one thing in this process and give the growth of its resident memory in MiB."""
    torch.set_num_threads(1)
    kind, way, size = what.split(":")
    side = int(size)
    if kind == "resize":
        image = torch.rand(1, 3, side, side, requires_grad=True)
        resize = reference.resize if way == "reference" else lambda x: box_resize(x, 224)
        small = torch.rand(1, 3, 32, 32, requires_grad=True)
        torch.autograd.grad(resize(small).square().sum(), small)  # loads what torch loads once
        before = new_peak()
        torch.autograd.grad(resize(image).square().sum(), image)
    else:
        generator = StyleGan2(full_width(side), average=torch.zeros(512), overshoot="keep")
        scorer = RandomClip()
        step = our_step(generator, scorer, torch.zeros(1, generator.net.shape.rows, 512))
        before = new_peak()
        step()
    return resident("VmHWM") - before


def new_peak() -> float:
    """Forget the peak so far (Linux) and give the memory in use now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def resident(entry: str) -> float:
    """A memory figure of this process in MiB: VmRSS now, VmHWM at its peak (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(entry):
            return int(line.split()[1]) / 1024
    raise SystemExit("Memory figures need Linux's /proc/self/status.")


def main() -> None:
    """Run the asked-for parts and print what they found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", default="resize,step,batch,preview,memory")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", default="")
    given = parser.parse_args()
    if given.measure:
        print(measure(given.measure))
        return
    torch.set_num_threads(1)
    parts: dict[str, Callable[[], object]] = {
        "resize": lambda: [resizing(size, given.repeats) for size in (256, 512, 1024)],
        "step": lambda: whole_step(256, given.repeats),
        "batch": lambda: batching(128, 8, given.repeats),
        "preview": lambda: preview(256, given.repeats),
        "memory": lambda: {"size": 1024, "step_peak_mib": peak("step:ours:1024")},
    }
    found = {}
    for name in given.parts.split(","):
        found[name] = parts[name]()
        if not given.json:
            print(name, json.dumps(found[name], default=lambda x: round(x, 6)), flush=True)
    if given.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
