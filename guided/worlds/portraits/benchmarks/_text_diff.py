"""What ``edit --method text-diff`` costs with the shipped kit, beside version 0.1.0's ``turn``.

Both trees run in processes of their own on one thread; the clock starts when the models are loaded
and the picture is open.  Version 0.1.0 is checked out beside this tree for the while.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from guided.core.device import Device
from guided.worlds.portraits.benchmarks._machine import ROOT

#: The last commit of version 0.1.0, and what the method is called there.
FIRST = "341de8d"
STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25)
#: Seconds of one strength and of five; on a GPU, on the wall.
CHILD = """
import json, sys, time, torch
torch.set_num_threads(1)
import guided
method, device, steps, *strengths = sys.argv[1:]
strengths = [float(each) for each in strengths]
clock = time.process_time if device == "cpu" else time.perf_counter
def seconds(**more):
    begun, run = None, guided.edit("recipes/pictures/portrait-01.png", method=method,
                                   prompt=["a person with pink hair"], device=device, **more)
    for step in run:
        begun = clock() if begun is None else begun
    return clock() - begun
steps = {} if not int(steps) else {"denoise_steps": int(steps)}
seconds(denoise_steps=2)
print(json.dumps([min(seconds(**steps) for _ in range(2)),
                  seconds(strength=strengths[0], sweep=strengths[1:], **steps)]))
"""


def seconds_of(tree: Path, method: str, device: Device, steps: int = 0) -> tuple[float, float]:
    """Seconds of one strength and, for each, of five in a sweep."""
    words = [sys.executable, "-c", CHILD, method, device.name, str(steps), *map(str, STRENGTHS)]
    env = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    told = subprocess.run(words, cwd=tree, env=env, capture_output=True, text=True, check=True)
    one, five = json.loads(told.stdout.splitlines()[-1])
    return one, five / len(STRENGTHS)


def text_diff(device: Device, steps: int = 0) -> dict[str, float]:
    """One strength and a sweep of five, in seconds and as parts of 0.1.0's one strength."""
    ours = seconds_of(ROOT, "text-diff", device, steps)
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as room:
        tree = Path(room) / "first"
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), FIRST], check=True)
        try:
            theirs = seconds_of(tree, "turn", device, steps)
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    return {
        "one_seconds": ours[0], "swept_seconds_each": ours[1],
        "first_one_seconds": theirs[0], "first_swept_seconds_each": theirs[1],
        "one_ratio": ours[0] / theirs[0], "swept_ratio": ours[1] / theirs[0],
    }  # fmt: skip
