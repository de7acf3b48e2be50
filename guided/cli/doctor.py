"""``guided doctor``: whether everything here works, and what to do about what does not."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from guided.cli.console import STATES, line
from guided.cli.options import watching_parameters
from guided.cli.watch import say

_NEEDED = (
    "torch", "torchvision", "diffusers", "transformers", "open_clip_torch", "accelerate", "lpips",
    "pillow", "numpy", "safetensors", "pydantic", "click", "rich",
)  # fmt: skip
_OPTIONAL = {"av": "reads video files", "faiss-cpu": "searches millions of pictures"}
_FREE_GIB = 2.0

Finding = dict[str, Any]


def _finding(name: str, state: str, told: str, repair: str = "") -> Finding:
    return {"check": name, "state": state, "told": told, "repair": repair}


def _packages() -> Iterator[Finding]:
    yield _finding("python", "ok", platform.python_version())
    for name in _NEEDED:
        try:
            yield _finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield _finding(name, "broken", "not installed", f"python -m pip install {name}")
    for name, use in _OPTIONAL.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield _finding(name, "ok", importlib.metadata.version(name))
            continue
        yield _finding(name, "optional", f"not installed; {use}", f"python -m pip install {name}")


def _devices() -> Iterator[Finding]:
    try:
        from guided.core.device import available

        told = ", ".join(available())
    except (ImportError, OSError, RuntimeError) as error:
        yield _finding("devices", "broken", f"torch does not load: {error}", _reinstall())
        return
    yield _finding("devices", "ok", told)


def _reinstall() -> str:
    return "python -m pip install --force-reinstall torch torchvision"


def _operators() -> Iterator[Finding]:
    """The compiled part of torchvision, which must fit the installed torch."""
    try:
        torch = importlib.import_module("torch")
        nms = importlib.import_module("torchvision.ops").nms
        boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.1]])
        kept = nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist()
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        told = f"does not fit torch: {str(error).partition(chr(10))[0]}"
        yield _finding("torchvision.ops.nms", "broken", told, _reinstall())
        return
    state = "ok" if kept == [0] else "broken"
    yield _finding("torchvision.ops.nms", state, "works" if state == "ok" else f"gave {kept}")


def _models() -> Iterator[Finding]:
    from guided.errors import GuidedError
    from guided.zoo.resolve import catalogue, find

    for card, found in catalogue():
        if found is None:
            continue
        try:
            find(card.name)
        except GuidedError as error:
            yield _finding(f"model {card.name}", "broken", error.message, error.hint)
        else:
            yield _finding(f"model {card.name}", "ok", f"{found.place}, unchanged")


def _kits() -> Iterator[Finding]:
    from guided.zoo.kits import kit_names, load_kit
    from guided.zoo.resolve import catalogue

    here = {card.name for card, found in catalogue() if found is not None}
    for name in kit_names():
        roles = load_kit(name)
        missing = sorted({model for model in roles.values() if model not in here})
        if not missing:
            yield _finding(f"kit {name}", "ok", "complete")
            continue
        told = f"not here: {', '.join(missing)}"
        yield _finding(f"kit {name}", "optional", told, "guided models list")


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    state = "ok" if free >= _FREE_GIB else "broken"
    repair = "" if state == "ok" else "Make room, or work in a folder on another disk."
    yield _finding("free disk", state, f"{free:.1f} GiB in {Path.cwd()}", repair)


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _packages, _devices, _operators, _models, _kits, _disk,
)  # fmt: skip


def _doctor(**values: Any) -> int:
    """Look whether everything works.

    Packages, devices, model files, room on the disk. Every fault comes with the command that
    repairs it; the exit status is 1 if there is any.
    """
    findings = []
    for check in CHECKS:
        for finding in check():
            findings.append(finding)
            if not values["as_json"]:
                state = finding["state"]
                text = f"  {finding['check']}: {finding['told']}"
                line(text, STATES[state], head=f"{state:>8}")
                if finding["repair"] and state == "broken":
                    line(finding["repair"], "bold", head="          repair: ")
    broken = [finding for finding in findings if finding["state"] == "broken"]
    if values["as_json"]:
        answer = {"ok": not broken, "executable": sys.executable, "findings": findings}
        say(answer, as_json=True)
    elif broken:
        names = ", ".join(finding["check"] for finding in broken)
        line(f" {len(broken)} of {len(findings)} checks: {names}", STATES["broken"], head="broken:")
    else:
        line(f" {len(findings)} checks", STATES["ok"], head="all is well:")
    return 1 if broken else 0


doctor = click.Command(
    "doctor", callback=_doctor, help=_doctor.__doc__, params=[*watching_parameters()]
)
