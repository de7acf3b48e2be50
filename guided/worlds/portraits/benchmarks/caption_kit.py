"""What captions cost with the shipped kit: one picture, and a folder against one by one.

scripts/bench caption_kit [--count 100] [--batch 16] [--threads N] [--scorer S] [--language L]
    [--device cpu|cuda|mps]

Seconds are of the wall and of the CPU (on a GPU, of the wall alone), after loading; pictures one
by one are given to the same loaded models in calls of their own, and, loading included, to commands
of their own.  Prints a note where the kit's weights are not there.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from guided.core.device import Device
from guided.errors import MissingWeights
from guided.tasks._caption_kit import CaptionKit
from guided.tasks._caption_options import CaptionOptions, Options
from guided.tasks.base import TaskContext
from guided.worlds.portraits import draw, sample
from guided.worlds.portraits.benchmarks._machine import (
    ROOT,
    arguments,
    clock,
    headline,
    on_cpu,
    unit,
)
from guided.worlds.portraits.tools import tool_parser
from guided.zoo.kits import load_kit

FIRST_SEED = 4_000_000


def write(kit: CaptionKit, targets: torch.Tensor) -> tuple[list[str], float, float]:
    """The best captions, seconds on the wall and those of the clock."""
    begun, wall = clock(kit.ctx.device), time.perf_counter()
    steps = kit.decoder.write(targets, kit.config, kit.captioner, kit.objective)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            texts = [several[0].text for several in end.value]
            spent = clock(kit.ctx.device) - begun
            return texts, time.perf_counter() - wall, spent


def childrens_clock(device: Device) -> float:
    """CPU seconds of all commands that have ended; on a GPU, seconds on the wall."""
    if not on_cpu(device):
        return time.perf_counter()
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def command(options: CaptionOptions, device: Device, count: int = 3) -> float:
    """Seconds of ``guided caption`` for one picture, imports and loading included."""
    with tempfile.TemporaryDirectory() as room:
        file = Path(room) / "one.png"
        draw(sample(FIRST_SEED, "val"), 128).save(file)
        words = [sys.executable, "-m", "guided", "caption", str(file), "--method", options.method,
                 "--device", device.name, "--json"]  # fmt: skip
        for name in ("scorer", "language"):
            if given := getattr(options, name):
                words += [f"--{name}", given]
        before = childrens_clock(device)
        for _ in range(count):
            subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
        return (childrens_clock(device) - before) / count


def main() -> None:
    """Print seconds for each captioner."""
    parser = tool_parser("bench caption_kit", __doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--scorer", default="")
    parser.add_argument("--language", default="")
    given, device = arguments(parser)
    if given.threads:
        torch.set_num_threads(given.threads)
    print(headline(device))
    seconds = unit(device)
    people = [sample(FIRST_SEED + place, "val") for place in range(given.count)]
    ctx = TaskContext(kit=load_kit("portraits"), device_name=device.name)
    for mode in ("zerocap", "fuse"):
        options = Options(
            images=[Path("x")], method=mode, scorer=given.scorer, language=given.language
        )
        try:
            kit = CaptionKit.open(options, ctx)
        except MissingWeights as error:
            print(f"caption_kit: {error}")
            return
        targets = torch.stack([kit.target(draw(person, 128)) for person in people])
        write(kit, targets[:1])
        alone = [write(kit, target[None]) for target in targets]
        walls, cpus = [wall for _, wall, _ in alone], [spent for *_, spent in alone]
        folder = [write(kit, some) for some in torch.split(targets, given.batch)]
        texts = [text for row in folder for text in row[0]]
        same = sum(one[0][0] == text for one, text in zip(alone, texts, strict=True))
        each = sum(row[2] for row in folder) / given.count
        print(
            f"{mode}: {torch.get_num_threads()} threads, {kit.config.beams} beams; alone median "
            f"{sorted(walls)[len(walls) // 2]:.2f} s wall, {sum(cpus) / len(cpus):.2f} {seconds}; "
            f"in batches of {given.batch} {each:.2f} {seconds} each "
            f"({sum(cpus) / len(cpus) / each:.1f}x cheaper); {same} of {given.count} texts equal"
        )
        whole = command(options, device)
        print(
            f"    as a command of its own {whole:.2f} {seconds} ({whole / each:.1f}x)", flush=True
        )


if __name__ == "__main__":
    main()
