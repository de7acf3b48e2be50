"""Old against new: every verb and method of the shipped kit, run by two commits on one machine.

    python tests/differential.py BASE [--only NAME ...] [--keep DIR]

BASE is checked out as a worktree; both trees run the cases of differential.txt at the same time, a
process and a core each, and everything a user gets is compared bit by bit: exit status, answers,
pixels, text files, recipes and lineage (versions, seconds and folders set apart).  One line for
each case; the exit status is 0 only if all are equal.  A commit that means to change something
names the cases and says why.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHORT = {
    "F": ("people/test-000070-128.png",),
    "S": ("people/test-000071-128.png",),
    "FEW": ("--denoise-steps", "6"),
}
#: Lines of a card that differ between two runs of one program.
PASSING = r"(git_revision|core_hours|hours|seconds|trained) = "


def commands() -> Iterator[tuple[str, list[str]]]:
    """The cases of differential.txt: their names and the words of their commands."""
    for line in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines():
        name, colon, words = line.partition(": ")
        if colon and not line.startswith("#"):
            yield name, [word for w in shlex.split(words) for word in SHORT.get(w, (w,))]


def recipes(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Every shipped recipe that is not a training, with its loops cut."""
    cuts = {"steps": 3, "count": 2, "iterations": 2, "beams": 2, "denoise_steps": 4}
    for path in sorted(folder.rglob("*.toml")):
        name = f"recipes/{path.relative_to(folder).as_posix()}"
        if path.parent.name == "train":
            yield f"check {name}", ["check", name]
            continue
        text = path.read_text(encoding="utf-8")
        asked = {key: re.search(rf"^{key} = (\d+)", text, re.M) for key in cuts}
        more = [
            f"{key}={min(cuts[key], int(number[1]))}" for key, number in asked.items() if number
        ]
        yield (
            f"run {name}",
            ("run", name, *(w for m in more for w in ("--set", m)), "--out", "{out}"),
        )


def cases(recipe_folder: Path) -> dict[str, list[str]]:
    """All cases by name, in the order they are run."""
    return dict([*commands(), *recipes(recipe_folder)])


# ----------------------------------------------------------------------------- one tree


def run_all(names: list[str], place: Path, recipe_folder: Path) -> None:
    """Run the cases in this process, in a folder of their own; the report goes to report.json.

    Both trees read the recipes of the old one, whose keys the new one must still understand.
    """
    from PIL import Image

    place.mkdir(parents=True, exist_ok=True)
    os.chdir(place)
    (place / "recipes").symlink_to(recipe_folder)
    known = cases(recipe_folder)
    Path("README.md").write_text("no picture", encoding="utf-8")
    ramp = Image.linear_gradient("L").resize((128, 128))
    ramp.point(lambda value: 255 * (value > 127)).save("mask.png")
    Image.merge("RGB", [ramp, ramp.rotate(90), ramp.rotate(180)]).resize((200, 160)).save(
        "photo.png"
    )
    report = {}
    for name in names:
        out = Path("outputs") / re.sub(r"[^a-z0-9]+", "-", name)
        report[name] = run_one([word.replace("{out}", str(out)) for word in known[name]], place)
        print(f"{name}: exit {report[name]['exit']}", file=sys.__stderr__, flush=True)
    (place / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")


def run_one(words: list[str], place: Path) -> dict[str, Any]:
    """What one command gives: status, what it says, and every file that is new or changed."""
    from guided.cli import main

    before = {path: path.stat().st_mtime_ns for path in files_of(place)}
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    plain = words[0] in ("list", "models", "check", "run")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([*words, "--json"] if not plain or words[0] != "list" else words)
    made = [p for p in files_of(place) if before.get(p) != p.stat().st_mtime_ns]
    return {
        "exit": status,
        "out": said(text_of(out), place),
        "err": said(text_of(err), place),
        "files": {named(p, place): content(p, place) for p in sorted(made)},
    }


def files_of(place: Path) -> list[Path]:
    """The files below a folder, but for links and caches."""
    return [
        p for p in place.rglob("*") if p.is_file() and not p.is_symlink() and "home" not in p.parts
    ]


def named(path: Path, place: Path) -> str:
    """A file's name in the folder, without what is drawn at random for it."""
    return re.sub(r"-[0-9a-f]{8}\.f16$", ".f16", path.relative_to(place).as_posix())


def said(text: str, place: Path) -> Any:
    """What was printed: parsed where it is JSON, without folders, times and versions."""
    text = anywhere(text, place)
    with contextlib.suppress(ValueError):
        return lasting(json.loads(text))
    text = re.sub(r"\d+ s left|\d+\.\d+ s\b|\d{4}-\d\d-\d\d", "-", text)
    return [line for line in text.splitlines() if not re.search(r"\[[#.]+\]|\d+/\d+", line)]


def text_of(stream: io.TextIOWrapper) -> str:
    """What was printed into a stream, as text or as bytes."""
    stream.flush()
    buffer: Any = stream.buffer
    return buffer.getvalue().decode()


def anywhere(text: str, place: Path) -> str:
    """Text without the folders that belong to one of the two trees."""
    import guided

    tree = str(Path(guided.__file__).parents[1])
    return text.replace(tree, "{tree}").replace(str(place), "{place}")


def lasting(value: Any) -> Any:
    """Data without what differs between two runs of one program."""
    if isinstance(value, dict):
        passing = {"seconds", "started", "setting", "versions", "platform", "cpu", "version", "id"}
        passing |= {"signature"}  # each tree signs with a key of its own
        if "row" in value and "entry" in value:  # a line of a ledger: digests of signed images
            passing |= {"images", "files"}
        return {key: lasting(item) for key, item in value.items() if key not in passing}
    return [lasting(item) for item in value] if isinstance(value, list) else value


def content(path: Path, place: Path) -> Any:
    """What a file holds, comparable: pixels and notes of pictures, text, digests of the rest."""
    data = path.read_bytes()
    if path.suffix == ".png":
        from PIL import Image

        from guided.core import lineage

        with Image.open(io.BytesIO(data)) as image:
            pixels = hashlib.sha256(image.convert("RGBA").tobytes()).hexdigest()[:16]
            known = lineage.read(path)
            shape = [image.mode, *image.size]
        notes = [] if known is None else [[a.name, lasting(dict(a.note))] for a in known.chain]
        return [shape, pixels, json.loads(json.dumps(notes).replace(str(place), "{place}"))]
    if path.suffix in (".json", ".jsonl", ".toml", ".csv", ".txt", ".html"):
        text = anywhere(data.decode(), place)
        if path.suffix == ".html":
            return len(re.sub(r"data:image/png;base64,[^\"']+", "", text)) // 100
        with contextlib.suppress(ValueError):
            return lasting(json.loads(text))
        with contextlib.suppress(ValueError):
            return [lasting(json.loads(line)) for line in text.splitlines()]
        return [line for line in text.splitlines() if not re.match(PASSING, line)]
    if ".index" in path.as_posix() or path.suffix in (".npz", ".lock", ".sqlite", ".ckpt"):
        return "present"
    return hashlib.sha256(data).hexdigest()[:16]


# ----------------------------------------------------------------------------- two trees


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Where two reports differ, one line each."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if key not in old or key not in new:
                yield f"{where}/{key}: only in the {'new' if key in new else 'old'} tree"
            else:
                yield from differences(old[key], new[key], f"{where}/{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, two) in enumerate(zip(old, new, strict=True)):
            yield from differences(one, two, f"{where}[{number}]")
    elif old != new:
        yield f"{where}: {str(old)[:160]!r} -> {str(new)[:160]!r}"


def start(
    tree: Path, place: Path, names: list[str], recipe_folder: Path
) -> subprocess.Popen[bytes]:
    """The child that runs the cases of one tree."""
    env = {key: v for key, v in os.environ.items() if not key.startswith(("GUIDED_", "HF_"))}
    env |= {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    env |= {"HOME": str(place / "home"), "XDG_CACHE_HOME": str(place / "home" / "cache")}
    words = [sys.executable, __file__, "--child", str(place), "--recipes", str(recipe_folder)]
    words += ["--only", *names]
    return subprocess.Popen(words, env=env, cwd=tree)


@contextlib.contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Path]:
    """A worktree of a commit for a while."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def compare(base: str, names: list[str], room: Path) -> int:
    """Run both trees, print what differs; the exit status."""
    with checkout(base, room / "old-tree") as tree:
        trees = {"old": tree, "new": ROOT}
        children = [start(t, room / s, names, tree / "recipes") for s, t in trees.items()]
        for child in children:
            if child.wait():
                return 2
        old, new = (json.loads((room / s / "report.json").read_text()) for s in trees)
    changed = 0
    for name in names:
        lines = list(differences(old[name], new[name]))
        print(f"{'changed' if lines else 'equal  '} {name} (exit {old[name]['exit']})")
        for line in lines[:8]:
            print(f"    {line}")
        changed += bool(lines)
    print(f"{len(names) - changed} of {len(names)} cases are equal")
    return 1 if changed else 0


def main() -> int:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("base", nargs="?", default="HEAD", help="the commit to compare with")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="cases, by name or start"
    )
    parser.add_argument("--keep", type=Path, help="folder that keeps what both trees made")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--recipes", type=Path, default=ROOT / "recipes", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        run_all(asked.only, asked.child, asked.recipes)
        return 0
    names = [
        name
        for name in cases(asked.recipes)
        if not asked.only or name in ("portraits", "index") or name.startswith(tuple(asked.only))
    ]
    if asked.keep:
        return compare(asked.base, names, asked.keep.resolve())
    with tempfile.TemporaryDirectory() as room:
        return compare(asked.base, names, Path(room).resolve())


if __name__ == "__main__":
    sys.exit(main())
