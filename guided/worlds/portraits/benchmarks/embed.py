"""Embedding speed of a full-size random ViT-B-32 against the plain open_clip loop, in one run.

    scripts/bench embed [--images N] [--rounds N] [--threads 1] [--device cpu|cuda|mps]

Pictures: JPEGs of 640 x 427; the plain way opens each with Pillow, runs open_clip's transform and
encodes it alone in float32.  All ways take turns, and the ratios are medians over the rounds.
Texts: 14 tokens; the plain way encodes all 77 places.  On the CPU the figures are processor
seconds of this process, so that other work on the machine does not count; on a GPU they are
seconds on the wall, and int8, which is for CPUs, is left out.
"""

from __future__ import annotations

import copy
import json
import logging
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from guided.core.device import Device, Precision
from guided.fast.linear import Affine, Int8
from guided.scorers.clip import ClipScorer
from guided.worlds.portraits.benchmarks._machine import about, arguments, on_cpu, once, timed
from guided.worlds.portraits.tools import tool_parser
from guided.zoo.gate_calls import create_clip, create_tokenizer

FIRST = ("red", "blue", "small", "large", "old", "young", "happy", "quiet")
SECOND = ("dogs", "cats", "birds", "cars")


def photos(folder: Path, count: int) -> list[Path]:
    """JPEG files of 640 x 427 with detail at every scale."""
    files = []
    for i in range(count):
        dice = torch.Generator().manual_seed(i)
        layers = [
            functional.interpolate(
                torch.rand(1, 3, 427 // s + 2, 640 // s + 2, generator=dice) * s**0.5,
                size=(427, 640), mode="bicubic", align_corners=False,
            )
            for s in (2, 4, 8, 16, 32, 64, 128)
        ]  # fmt: skip
        total = sum(layers[1:], layers[0])[0]
        pixels = (total - total.amin()) / (total.amax() - total.amin()) * 255
        files.append(folder / f"{i:04d}.jpg")
        image = Image.fromarray(pixels.byte().permute(1, 2, 0).numpy())
        image.save(files[-1], quality=90)
    return files


def peak(dtype: torch.dtype, device: Device) -> float:
    """Billions of operations a second of the model's own kind of matrix product."""
    a, b = torch.randn(1600, 768), torch.randn(3072, 768)
    a, b = a.to(device.torch, dtype), b.to(device.torch, dtype)
    seconds, _ = timed(lambda: functional.linear(a, b), device)
    return 2 * 1600 * 768 * 3072 / seconds / 1e9


def peak_int8() -> float:
    """The same of the 8-bit product that the int8 tower uses."""
    layer = Int8(Affine(torch.randn(3072, 768), torch.randn(3072)), 1600)
    levels = torch.randint(0, 256, (1600, 768), dtype=torch.uint8)
    seconds, _ = timed(lambda: layer(levels), Device())
    return 2 * 1600 * 768 * 3072 / seconds / 1e9


def pictures(
    plain: Any, scorers: dict[str, ClipScorer], files: list[Path], device: Device, rounds: int
) -> dict[str, Any]:
    """Milliseconds a picture, the ratio to the plain loop, and the least cosine to it.

    The ways take turns; milliseconds and ratios are medians over the rounds.
    """
    model, transform = plain
    threads, batch = (0, 32) if on_cpu(device) else (12, 256)

    def loop() -> Tensor:
        rows = [model.encode_image(transform(Image.open(f))[None].to(device.torch)) for f in files]
        return functional.normalize(torch.cat(rows), dim=1)

    def ours(scorer: ClipScorer) -> Tensor:
        parts = scorer.embed_files(files, batch=batch, threads=threads)
        return torch.cat([rows for _, rows in parts])

    ways: dict[str, Callable[[], Tensor]] = {
        "plain": loop,
        **{name: partial(ours, each) for name, each in scorers.items()},
    }
    results: dict[str, Tensor] = {}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for name, way in ways.items():
        _, results[name] = once(way, device)
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(once(way, device)[0])
    found: dict[str, Any] = {}
    for name, seconds in times.items():
        ratios = [base / own for base, own in zip(times["plain"], seconds, strict=True)]
        found[name] = {
            "ms": round(statistics.median(seconds) / len(files) * 1e3, 2),
            "ratio": round(statistics.median(ratios), 2),
            "ratios": [round(min(ratios), 2), round(max(ratios), 2)],
            "least_cosine": round(float((results[name] * results["plain"]).sum(1).min()), 6),
        }
    for name, scorer in scorers.items():
        found[name]["precision"] = scorer.bulk_precision
    return found


def breakdown(
    plain: Any, scorers: dict[str, ClipScorer], files: list[Path], device: Device
) -> dict[str, dict[str, float]]:
    """Where the milliseconds a picture go: reading, preparing, and the tower of each way."""
    model, transform = plain
    opened = [Image.open(f).convert("RGB") for f in files]
    inputs = torch.stack([transform(image) for image in opened]).to(device.torch)
    prepare = next(iter(scorers.values())).preprocess
    pixels = torch.stack([prepare.pixels(f) for f in files])

    def each(work: Callable[[], Any]) -> float:
        return round(timed(work, device)[0] / len(files) * 1e3, 2)

    return {
        "plain": {
            "decode": each(lambda: [Image.open(f).convert("RGB") for f in files]),
            "transform": each(lambda: [transform(image) for image in opened]),
            "tower": each(lambda: [model.encode_image(row[None]) for row in inputs]),
        },
        "ours": {
            "decode_and_resize": each(lambda: [prepare.pixels(f) for f in files]),
            **{
                f"tower_{name}": each(partial(scorer.embed_pixels, pixels))
                for name, scorer in scorers.items()
            },
        },
    }


def texts(plain: Any, scorers: dict[str, ClipScorer], device: Device) -> dict[str, Any]:
    """Milliseconds a text, the ratio to the plain way, and the largest difference from it."""
    model, tokenizer = plain
    prompts = [
        f"a photo of two {a} {b} on the green summer grass today" for a in FIRST for b in SECOND
    ]
    ids = tokenizer(prompts).to(device.torch)
    found: dict[str, Any] = {"tokens": int((ids != 0).sum(1).max())}
    whole, expected = timed(lambda: model.encode_text(ids, normalize=True), device)

    def loop() -> list[Tensor]:
        return [model.encode_text(tokenizer([p]).to(device.torch)) for p in prompts]

    alone, _ = timed(loop, device, repeats=1)
    found["plain_batch_ms"] = round(whole / len(prompts) * 1e3, 2)
    found["plain_loop_ms"] = round(alone / len(prompts) * 1e3, 2)
    for name, scorer in scorers.items():
        seconds, rows = timed(partial(scorer.embed_texts, prompts), device)
        found[name] = {
            "ms": round(seconds / len(prompts) * 1e3, 2),
            "ratio_to_batch": round(whole / seconds, 2),
            "ratio_to_loop": round(alone / seconds, 2),
            "largest_difference": float(f"{float((rows - expected).abs().max()):.2g}"),
        }
    return found


@torch.no_grad()
def main() -> None:
    """Print the figures as JSON."""
    parser = tool_parser("bench embed", __doc__)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options, device = arguments(parser)
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model, tokenizer = create_clip("ViT-B-32"), create_tokenizer("ViT-B-32")
    settings = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
    transform = open_clip.transform.image_transform_v2(settings, is_train=False)
    kinds: dict[str, tuple[Precision, Any]] = {"fp32": ("fp32", "same"), "bf16": ("bf16", "bf16")}
    if on_cpu(device):
        kinds["int8"] = ("fp32", "int8")
    else:
        print(f"embed: int8 is for CPUs and left out on {device.name}", file=sys.stderr)
    scorers = {
        name: ClipScorer(
            copy.deepcopy(model), tokenizer, name=name, fingerprint=str,
            device=replace(device, precision=precision), bulk=bulk,
        )
        for name, (precision, bulk) in kinds.items()
    }  # fmt: skip
    model = model.to(device.torch).eval()
    with tempfile.TemporaryDirectory() as folder:
        files = photos(Path(folder), options.images)
        plain = (model, transform)
        figures = {
            **about(device),
            "torch": torch.__version__,
            "threads": options.threads,
            "gflops_fp32": round(peak(torch.float32, device)),
            "gflops_bf16": round(peak(torch.bfloat16, device)),
            "gops_int8": round(peak_int8()) if "int8" in scorers else None,
            "pictures": pictures(plain, scorers, files, device, options.rounds),
            "breakdown_ms": breakdown(plain, scorers, files, device),
            "texts": texts(
                (model, tokenizer), {name: scorers[name] for name in ("fp32", "bf16")}, device
            ),
        }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
