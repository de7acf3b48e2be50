"""Ctrl-C and SIGTERM: every command ends in two seconds with 130 or 143, one line, nothing torn."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.tiny_clip import bundle  # noqa: F401
from tests.helpers.tiny_text_gan import write_gan

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")

SOON = 2.0
BOTH = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@dataclass
class Ended:
    """What an interrupted command left."""

    status: int
    seconds: float
    out: str
    err: str

    def check(self, status: int) -> str:
        """The one line, after everything that holds of every interruption."""
        assert self.status == status, self.err
        assert self.seconds < SOON
        assert self.out == ""
        (line,) = [each for each in self.err.splitlines() if each.startswith("guided:")]
        assert line.startswith("guided: interrupted")
        assert "Traceback" not in self.err
        assert "Exception ignored" not in self.err
        return line


def interrupted(
    words: list[str], number: int, when: Callable[[], bool] | float, code: str = "", times: int = 1
) -> Ended:
    """Start a command, send it a signal at a moment, wait for its end."""
    start = f"import sys\n{code}\nfrom guided.cli import main\nsys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", start, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 90
        if callable(when):
            while not when():
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < end, "the moment did not come"
                time.sleep(0.005)
        else:
            time.sleep(when)
        began = time.monotonic()
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.3 if times > 1 else 0)
        out, err = process.communicate(timeout=30)
        return Ended(process.returncode, time.monotonic() - began, out, err)
    finally:
        process.kill()
        process.wait()


def marked(path: Path, body: str) -> str:
    """Code that leaves a mark, then does what ``body`` says."""
    return f"import pathlib, time; mark = pathlib.Path({str(path)!r})\n" + textwrap.dedent(body)


@pytest.mark.parametrize(("number", "status"), BOTH)
def test_during_a_slow_import(tmp_path: Path, number: int, status: int) -> None:
    """The import of a library hangs in C, where no exception can be raised."""
    mark = tmp_path / "mark"
    code = marked(mark, """
        import threading, builtins, ctypes
        real = builtins.__import__
        def slow(name, *rest, **more):
            if name == "torch":
                mark.touch()
                ctypes.CDLL(None).sleep(30)
            return real(name, *rest, **more)
        builtins.__import__ = slow
    """)  # fmt: skip
    image = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(image)
    words = ["read", str(image), "--json"]
    interrupted(words, number, mark.exists, code).check(status)


def test_a_download_that_waits(tmp_path: Path) -> None:
    """The hub's threads end with the process; what is there of the file stays to be resumed."""
    mark, part = tmp_path / "mark", tmp_path / "model.incomplete"
    code = marked(mark, f"""
        import huggingface_hub
        from concurrent.futures import ThreadPoolExecutor
        def get(*given, **more):
            with ThreadPoolExecutor(2) as pool:
                pathlib.Path({str(part)!r}).write_bytes(b"half")
                mark.touch()
                list(pool.map(time.sleep, [30, 30]))
        huggingface_hub.snapshot_download = get
    """)  # fmt: skip
    code += "\nimport guided.zoo.resolve as finding\nfinding.cached = lambda card: None\n"
    words = ["models", "get", "openai/clip-vit-base-patch32", "--online", "--json"]
    from guided.zoo.resolve import catalogue

    words[2] = next(card.name for card, found in catalogue() if card.repository and not found)
    line = interrupted(words, signal.SIGINT, mark.exists, code).check(130)
    assert "the same command goes on" in line
    assert part.read_bytes() == b"half"


@pytest.mark.parametrize(("number", "status"), BOTH[:1])
def test_images_that_are_finished_stay(
    bundle: Path, tmp_path: Path, number: int, status: int  # noqa: F811
) -> None:  # fmt: skip
    out = tmp_path / "out"
    gan = write_gan(tmp_path / "gan", f"local-dir:{bundle}")
    words = ["generate", "a red hat", "--method", "gan", "--gan", str(gan), "--count", "4000",
             "--batch", "4", "--out", str(out), "--json", "--quiet"]  # fmt: skip
    lines = out / "results.jsonl"
    when = lambda: lines.is_file() and lines.stat().st_size > 2000  # noqa: E731
    line = interrupted(words, number, when).check(status)
    rows = [json.loads(row) for row in lines.read_text().splitlines()]
    assert f"{len(rows)} of 4000 done are in {out}; the same command goes on" in line
    for row in rows:
        with Image.open(out / row["entry"]["image"]) as image:
            image.load()
    for path in out.glob("*.png"):
        with Image.open(path) as image:
            image.load()
    assert not list(out.glob(".*"))
    assert not (out / "run.json").exists()


def test_a_second_signal_is_obeyed_at_once(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = marked(mark, """
        import guided.worlds.portraits.tasks.portraits as verb
        def run(options, ctx):
            try:
                mark.touch()
                time.sleep(30)
            finally:
                time.sleep(30)
            yield
        verb.run = run
    """)  # fmt: skip
    ended = interrupted(["portraits", "--json"], signal.SIGINT, mark.exists, code, times=2)
    ended.check(130)
    assert ended.seconds < 1.0


def test_training_while_its_workers_draw(tmp_path: Path) -> None:
    """The workers end too, whoever was signalled, and the training goes on from its checkpoint."""
    recipe = Path(__file__).parents[2] / "recipes" / "train" / "reader.toml"
    words = ["train", str(recipe), "--set", f"work={tmp_path / 'work'}", "--set",
             f"pools={tmp_path / 'pools'}", "--json", "--quiet"]  # fmt: skip
    locks = lambda: list((tmp_path / "pools").glob("*/.*.lock"))  # noqa: E731
    interrupted(words, signal.SIGTERM, lambda: bool(locks()) and not time.sleep(0.5)).check(143)
    end = time.monotonic() + 1
    while drawing(tmp_path) and time.monotonic() < end:
        time.sleep(0.02)
    assert not drawing(tmp_path)


def drawing(folder: Path) -> list[str]:
    """The command lines of processes that work on a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words and "draw_worker" in words:
            lines.append(words)
    return lines


@pytest.mark.soak
@pytest.mark.parametrize(("number", "status"), BOTH)
@pytest.mark.parametrize("verb", ["generate", "edit", "vary", "caption", "portraits", "index",
                                  "score", "read", "classify"])  # fmt: skip
@pytest.mark.parametrize("delay", [0.5, 1.5, 4.0, 9.0])
def test_every_verb_at_many_moments(
    tmp_path: Path, number: int, status: int, verb: str, delay: float
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    files = []
    for shade in range(40):
        files.append(str(folder / f"{shade}.png"))
        Image.new("RGB", (128, 128), (5 * shade, 90, 255 - 5 * shade)).save(files[-1])
    out = tmp_path / "out"
    words = {
        "generate": ["a smiling woman", "--count", "400"],
        "edit": [*files, "--prompt", "pink hair"],
        "vary": [*files, "--count", "8"],
        "caption": [str(folder)],
        "portraits": ["--count", "100000"],
        "index": [str(folder), "--index", str(tmp_path / "index")],
        "score": [*files * 100, "--text", "a hat"],
        "read": files * 100,
        "classify": [*files * 100, "--label", "a", "--label", "b"],
    }[verb]
    ended = interrupted([verb, *words, "--out", str(out), "--json", "--quiet"], number, delay)
    if ended.status != 0:
        ended.check(status)
    for path in tmp_path.rglob("*"):
        assert not path.name.endswith(".part")
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
