"""What captions cost with the shipped kit: one picture, and a folder against one by one.

scripts/bench caption_kit [--count 100] [--batch 16] [--threads N] [--scorer S] [--language L]

Seconds are of the wall and of the CPU, after loading; pictures one by one are given to the same
loaded models in calls of their own, and, loading included, to commands of their own.  Prints a
note where the kit's weights are not there.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from guided.errors import MissingWeights  # noqa: E402
from guided.portraits import draw, sample  # noqa: E402
from guided.tasks._caption_kit import CaptionKit  # noqa: E402
from guided.tasks.base import Workbench  # noqa: E402
from guided.tasks.caption import Options  # noqa: E402
from guided.zoo.kits import load_kit  # noqa: E402

FIRST_SEED = 4_000_000


def write(kit: CaptionKit, targets: torch.Tensor) -> tuple[list[str], float, float]:
    """The best captions, wall seconds and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    steps = kit.narrator.write(targets, kit.manner, kit.objective)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            texts = [several[0].text for several in end.value]
            return texts, time.perf_counter() - wall, time.process_time() - cpu


def command(options: Options, count: int = 3) -> float:
    """CPU seconds of ``guided caption`` for one picture, imports and loading included."""
    with tempfile.TemporaryDirectory() as room:
        file = Path(room) / "one.png"
        draw(sample(FIRST_SEED, "val"), 128).save(file)
        words = [sys.executable, "-m", "guided", "caption", str(file), "--mode", options.mode,
                 "--device", "cpu", "--json"]  # fmt: skip
        for name in ("scorer", "language"):
            if given := getattr(options, name):
                words += [f"--{name}", given]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for _ in range(count):
            subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent / count


def main() -> None:
    """Print seconds for each mode."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--scorer", default="")
    parser.add_argument("--language", default="")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    people = [sample(FIRST_SEED + place, "val") for place in range(given.count)]
    for mode in ("optimise", "fuse"):
        options = Options(
            images=[Path("x")], mode=mode, scorer=given.scorer, language=given.language
        )
        try:
            kit = CaptionKit.open(options, Workbench(kit=load_kit("portraits"), device_name="cpu"))
        except MissingWeights as error:
            print(f"caption_kit: {error}")
            return
        targets = torch.stack([kit.target(draw(person, 128)) for person in people])
        write(kit, targets[:1])
        alone = [write(kit, target[None]) for target in targets]
        walls, cpus = ([row[place] for row in alone] for place in (1, 2))
        folder = [write(kit, some) for some in targets.split(given.batch)]
        texts = [text for row in folder for text in row[0]]
        same = sum(one[0][0] == text for one, text in zip(alone, texts, strict=True))
        each = sum(row[2] for row in folder) / given.count
        print(
            f"{mode}: {torch.get_num_threads()} threads, {kit.manner.beams} beams; alone median "
            f"{sorted(walls)[len(walls) // 2]:.2f} s wall, {sum(cpus) / len(cpus):.2f} CPU s; "
            f"in batches of {given.batch} {each:.2f} CPU s each "
            f"({sum(cpus) / len(cpus) / each:.1f}x cheaper); {same} of {given.count} texts equal"
        )
        whole = command(options)
        print(f"    as a command of its own {whole:.2f} CPU s ({whole / each:.1f}x)", flush=True)


if __name__ == "__main__":
    main()
