"""One line of ``portraits.jsonl``: everything that is known of a portrait, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from guided.worlds.portraits.attributes import KEYS, Portrait
from guided.worlds.portraits.grammar.captions import captions
from guided.worlds.portraits.grammar.questions import questions
from guided.worlds.portraits.grammar.steps import drawing_steps
from guided.worlds.portraits.grammar.tags import tags

_STREAM = 7  # keeps these draws apart from those that chose the portrait


def record(
    portrait: Portrait, seed: int, file: str, boxes: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """The record of a portrait: file, attributes, visible, captions, boxes, questions, steps, tags.

    ``seed`` is the world seed, ``file`` the picture's name, ``boxes`` its parts as
    (x0, y0, x1, y1) in pixels. The same portrait and seed give the same record. All of it can be
    written as JSON.

    Raises:
        ValueError: a negative seed.
    """
    if seed < 0:
        raise ValueError(f"a world seed is a whole number from 0 up, not {seed}")
    rng = np.random.default_rng([seed, _STREAM])
    return {
        "file": file,
        "attributes": {key: portrait.attributes[key] for key in KEYS},
        "visible": portrait.visible(),
        "captions": [said.text for said in captions(portrait, rng)],
        "boxes": {part: list(box) for part, box in boxes.items()},
        "questions": [question._asdict() for question in questions(portrait, rng)],
        "steps": drawing_steps(portrait),
        "tags": tags(portrait),
    }
