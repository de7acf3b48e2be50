"""Embedding speed of a full-size random ViT-B-32 against the plain open_clip loop, in one run.

    python scripts/benchmarks/embed.py [--images N] [--threads 1] [--device cpu|cuda]

Pictures: JPEGs of 640 x 427; the plain way opens each with Pillow, runs open_clip's transform and
encodes it alone in float32.  Texts: 14 tokens; the plain way encodes all 77 places.  On the CPU
the figures are processor seconds of this process, so that other work on the machine does not
count; on a GPU they are seconds of the clock.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from guided.core.device import Device
from guided.scorers.clip import ClipScorer

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


def timed(work: Callable[[], Any], device: str, repeats: int = 3) -> tuple[float, Any]:
    """The least time of some runs after a first one, in seconds, and the last result."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    work()
    best, result = float("inf"), None
    for _ in range(repeats):
        start = clock()
        result = work()
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, clock() - start)
    return best, result


def peak(dtype: torch.dtype, device: torch.device) -> float:
    """Billions of operations a second of the model's own kind of matrix product."""
    a, b = torch.randn(1600, 768), torch.randn(3072, 768)
    a, b = a.to(device, dtype), b.to(device, dtype)
    seconds, _ = timed(lambda: functional.linear(a, b), device.type)
    return 2 * 1600 * 768 * 3072 / seconds / 1e9


def pictures(plain: Any, scorers: dict[str, ClipScorer], files: list[Path], device: str) -> dict:
    """Milliseconds a picture, the ratio to the plain loop, and the least cosine to it."""
    model, transform, place = plain

    def loop() -> Tensor:
        rows = [model.encode_image(transform(Image.open(f))[None].to(place)) for f in files]
        return functional.normalize(torch.cat(rows), dim=1)

    base, expected = timed(loop, device, repeats=2)
    found: dict[str, Any] = {"plain_ms": round(base / len(files) * 1e3, 2)}
    for name, scorer in scorers.items():
        threads = 0 if device == "cpu" else 12
        batch = 32 if device == "cpu" else 256

        def ours(scorer: ClipScorer = scorer, threads: int = threads, batch: int = batch) -> Tensor:
            parts = scorer.embed_files(files, batch=batch, threads=threads)
            return torch.cat([rows for _, rows in parts])

        seconds, rows = timed(ours, device)
        found[name] = {
            "ms": round(seconds / len(files) * 1e3, 2),
            "ratio": round(base / seconds, 2),
            "least_cosine": round(float((rows * expected).sum(1).min()), 6),
        }
    return found


def texts(plain: Any, scorers: dict[str, ClipScorer], device: str) -> dict:
    """Milliseconds a text, the ratio to the plain way, and the largest difference from it."""
    model, tokenizer, place = plain
    prompts = [
        f"a photo of two {a} {b} on the green summer grass today" for a in FIRST for b in SECOND
    ]
    ids = tokenizer(prompts).to(place)
    found: dict[str, Any] = {"tokens": int((ids != 0).sum(1).max())}
    whole, expected = timed(lambda: model.encode_text(ids, normalize=True), device)
    alone, _ = timed(
        lambda: [model.encode_text(tokenizer([p]).to(place)) for p in prompts], device, repeats=1
    )
    found["plain_batch_ms"] = round(whole / len(prompts) * 1e3, 2)
    found["plain_loop_ms"] = round(alone / len(prompts) * 1e3, 2)
    for name, scorer in scorers.items():
        seconds, rows = timed(lambda scorer=scorer: scorer.embed_texts(prompts), device)
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    place = torch.device(options.device)
    model, _, transform = open_clip.create_model_and_transforms("ViT-B-32")
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    scorers = {
        name: ClipScorer(
            copy.deepcopy(model), tokenizer, name=name, fingerprint=str,
            device=Device(options.device, name),
        )
        for name in ("fp32", "bf16")
    }  # fmt: skip
    model = model.to(place).eval()
    with tempfile.TemporaryDirectory() as folder:
        files = photos(Path(folder), options.images)
        figures = {
            "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
            "torch": torch.__version__,
            "threads": options.threads,
            "device": torch.cuda.get_device_name() if place.type == "cuda" else "cpu",
            "gflops_fp32": round(peak(torch.float32, place)),
            "gflops_bf16": round(peak(torch.bfloat16, place)),
            "pictures": pictures((model, transform, place), scorers, files, place.type),
            "texts": texts((model, tokenizer, place), scorers, place.type),
        }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
