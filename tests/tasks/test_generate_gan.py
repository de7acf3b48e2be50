from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guided.tasks._gan_vocabulary import unknown_words, words_of
from tests.helpers.tiny_clip import bundle  # noqa: F401
from tests.helpers.tiny_text_gan import write_gan


@pytest.fixture
def generate(
    tmp_path: Path,
    bundle: Path,  # noqa: F811
    guided_cli: Callable[..., Any],
) -> Callable[..., Any]:
    file = write_gan(tmp_path / "gan", f"local-dir:{bundle}")

    def call(*words: object) -> Any:
        return guided_cli(
            "generate", *words, "--method", "gan", "--gan", file, "--out", tmp_path / "out",
            "--json",
        )  # fmt: skip

    return call


def measured(file: str) -> tuple[tuple[int, int], int]:
    with Image.open(file) as image:
        return image.size, getattr(image, "n_frames", 1)


def test_pictures_of_prompts(generate: Callable[..., Any]) -> None:
    said = generate("a red hat", "a green hat", "--count", 2, "--seed", 5, "--sheet", "--gif", 2)
    assert said.status == 0, said.err
    results = said.answer["results"]
    assert [(row["prompt"], row["seed"]) for row in results] == [
        ("a red hat", 5), ("a red hat", 6), ("a green hat", 5), ("a green hat", 6)
    ]  # fmt: skip
    assert all(measured(row["image"]) == ((32, 32), 1) for row in results)
    assert all(-1 <= row["clip"] <= 1 for row in results)
    assert "warnings" not in said.answer
    assert measured(said.answer["sheet"]) == ((2 * 36 + 4, 2 * 36 + 4), 1)
    size, frames = measured(said.answer["animation"])
    assert size == (32, 32)
    assert 4 <= frames <= 8  # equal neighbours become one


def test_the_best_of_several_and_a_search(generate: Callable[..., Any]) -> None:
    plain = generate("a red hat", "--count", 2).answer["results"]
    best = generate("a red hat", "--count", 2, "--best", 4).answer["results"]
    found = generate("a red hat", "--count", 2, "--search", 6, "--search-rate", 0.1)
    for one, more, searched in zip(plain, best, found.answer["results"], strict=True):
        assert more["clip"] >= one["clip"] - 1e-4
        assert searched["clip"] > one["clip"]
        assert more.get("drawn_from", more["seed"]) % 2 == more["seed"] % 2


def test_a_faster_precision_draws_nearly_the_same(generate: Callable[..., Any]) -> None:
    pictures = []
    for precision in ("fp32", "bf16"):
        said = generate("a red hat", "--precision", precision)
        with Image.open(said.answer["results"][0]["image"]) as image:
            pictures.append(np.asarray(image, dtype=float))
    apart = np.abs(pictures[0] - pictures[1])
    assert 0 < apart.max() < 8


def test_unknown_words_are_named_with_their_pieces(generate: Callable[..., Any]) -> None:
    said = generate("a red zebra")
    assert said.status == 0, said.err
    (warning,) = said.answer["warnings"]
    assert "'zebra' (read as " in warning
    assert "|" in warning
    assert "% sure" in warning


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("",), 2, "A prompt is empty"),
        (("a hat", "--count", 0), 2, "count"),
        (("a hat", "--size", 64), 2, "makes pictures of 32 x 32 pixels, not of 64"),
        (("a hat", "--truncation", 2), 2, "truncation"),
    ],
)
def test_wrong_usage_is_told(
    generate: Callable[..., Any], words: tuple[Any, ...], status: int, message: str
) -> None:
    said = generate(*words)
    assert said.status == status
    assert message in said.err
    assert "Traceback" not in said.err


def test_a_missing_gan_is_told(guided_cli: Callable[..., Any], tmp_path: Path) -> None:
    said = guided_cli(
        "generate", "a hat", "--method", "gan", "--gan", tmp_path / "no.safetensors", "--out",
        tmp_path / "out", "--json",
    )  # fmt: skip
    assert said.status == 1
    assert "no.safetensors" in said.err


def test_words() -> None:
    assert words_of("A red-haired person's hat, 2 x") == ["a", "red-haired", "person's", "hat", "x"]
    assert unknown_words("a zebra, a zebra", {"a"}) == ["zebra"]
    assert unknown_words("a zebra", ()) == []
