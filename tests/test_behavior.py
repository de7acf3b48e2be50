"""What a user gets from the shipped kit, on any machine: texts, ids, cosines, small thumbnails.

``tests/differential.py`` compares two commits bit by bit; this test holds one commit to what is
kept in ``golden/behavior.json``.  A change that is meant is written there anew by
``GUIDED_WRITE_GOLDEN=1 pytest tests/test_behavior.py``, and its commit says why.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guided.cli import main
from tests.differential import commands, text_of

pytestmark = pytest.mark.usefixtures("shared_models")

GOLDEN = Path(__file__).parent / "golden" / "behavior.json"
CASES = (
    "portraits", "read", "score", "classify", "index", "search", "caption-fuse", "edit-delta",
    "edit-turn", "gan", "diffusion", "vary",
)  # fmt: skip
#: What a cosine, and a pixel of a thumbnail (of 255), may differ by on another processor.
COSINE, PIXEL, SIDE = 1e-4, 2, 16
NUMBERS = frozenset({"clip", "clip_before", "clip_after", "clip_gain", "identity", "cosine"})


def thumbnail(file: str) -> str:
    """A picture as 16 x 16 pixels, in hexadecimal digits."""
    with Image.open(file) as image:
        return image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX).tobytes().hex()


def portable(value: Any, key: str = "") -> Any:
    """What of an answer is the same on any machine: no folders and no probabilities."""
    if isinstance(value, dict):
        wanted = {k: portable(v, k) for k, v in value.items() if k != "probabilities"}
        return {k: v for k, v in wanted.items() if v is not None}
    if isinstance(value, list):
        return [portable(item, key) for item in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return {"thumbnail": thumbnail(value)} if key == "image" else Path(value).name
    if isinstance(value, float):
        return round(value, 6) if key in NUMBERS or " " in key else None
    return value


def differing(golden: Any, now: Any, where: str) -> Iterator[str]:
    """The places where an answer is not what it was."""
    if isinstance(golden, dict) and isinstance(now, dict):
        for key in sorted({*golden, *now}):
            yield from differing(golden.get(key), now.get(key), f"{where}/{key}")
    elif isinstance(golden, list) and isinstance(now, list) and len(golden) == len(now):
        for number, pair in enumerate(zip(golden, now, strict=True)):
            yield from differing(*pair, f"{where}[{number}]")
    elif where.endswith("/thumbnail") and isinstance(now, str):
        pixels = [np.frombuffer(bytes.fromhex(x), np.uint8).astype(int) for x in (golden, now)]
        if (worst := int(np.abs(pixels[0] - pixels[1]).max())) > PIXEL:
            yield f"{where}: a pixel is {worst} of 255 away"
    elif isinstance(golden, float) and isinstance(now, float):
        if abs(golden - now) > COSINE:
            yield f"{where}: {golden} -> {now}"
    elif golden != now:
        yield f"{where}: {golden!r} -> {now!r}"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The portable answers of all cases, run in one folder, in their order."""
    place = tmp_path_factory.mktemp("behavior")
    known, before, found = dict(commands()), Path.cwd(), {}
    os.chdir(place)
    try:
        for name in CASES:
            words = [word.replace("{out}", f"outputs/{name}") for word in known[name]]
            printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
            with contextlib.redirect_stdout(printed):
                assert main([*words, "--json"]) == 0, name
            found[name] = portable(json.loads(text_of(printed)))
    finally:
        os.chdir(before)
    if os.environ.get("GUIDED_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_command_answers_as_it_did(answers: dict[str, Any], name: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))[name]
    assert list(differing(golden, answers[name], name)) == []
