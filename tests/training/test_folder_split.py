from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guided.training.folder_augment import augmented, may_flip
from guided.training.folder_split import caption_words, held_out
from guided.training.objective import BatchContext, Metric
from guided.training.retrieval_figures import at_chance, chance, in_words, recall

# --------------------------------------------------------------------------- split


def numbered(count: int) -> tuple[list[str], list[list[str]]]:
    return [f"content {i}" for i in range(count)], [[f"thing number {i}"] for i in range(count)]


@pytest.mark.parametrize(
    ("count", "held"),
    [(4, 0), (7, 0), (8, 2), (64, 16), (100, 24), (240, 24), (1000, 100), (20_000, 1000)],
)
def test_about_a_tenth_is_held_out(count: int, held: int) -> None:
    assert len(held_out(*numbered(count))[0]) == held


@given(st.permutations(range(60)))
@settings(max_examples=10)
def test_the_split_is_by_content_not_by_order(order: list[int]) -> None:
    contents, captions = numbered(60)
    rows, _ = held_out(contents, captions)
    shuffled, _ = held_out([contents[i] for i in order], [captions[i] for i in order])
    assert {order[row] for row in shuffled} == set(rows)
    assert shuffled == sorted(shuffled)


@given(st.lists(st.integers(0, 30), min_size=40, max_size=90))
@settings(max_examples=25)
def test_like_captions_and_equal_images_stay_together(subjects: list[int]) -> None:
    long = "a {} stands beside the {} of an old grey house in autumn rain"
    ways = (long + ".", "The " + long.upper(), long.replace("autumn", "winter"))
    names = [f"subject{n} place{n}".split() for n in subjects]
    captions = [[ways[i % 3].format(*name)] for i, name in enumerate(names)]
    contents = [f"content {i // 2}" for i in range(len(subjects))]  # every image is there twice
    rows, how = held_out(contents, captions)
    apart = set(rows)
    for i in range(len(subjects)):
        for j in range(i):
            if contents[i] == contents[j]:
                assert (i in apart) == (j in apart)
            if "near-identical" in how and subjects[i] == subjects[j]:
                assert (i in apart) == (j in apart)
    assert len(rows) <= len(subjects) // 4


def test_captions_that_all_are_alike_do_not_prevent_a_split() -> None:
    contents = [f"content {i}" for i in range(40)]
    rows, how = held_out(contents, [[f"item {i}", "emoji"] for i in range(40)])
    assert len(rows) == 10
    assert "equal first caption" in how
    rows, how = held_out(contents, [["emoji", f"item {i}"] for i in range(40)])
    assert len(rows) == 10
    assert "one by one" in how
    assert held_out(["equal"] * 40, [[str(i)] for i in range(40)])[0] == []


def test_words_of_a_caption() -> None:
    assert caption_words("The red, RED apple!") == ("apple", "red") == caption_words("apple: a red")


# --------------------------------------------------------------------------- augmentation


def test_images_change_a_little_and_keep_their_color() -> None:
    share = BatchContext(0, 0, 16)
    flat = torch.tensor([200, 90, 30], dtype=torch.uint8)[None, :, None, None].expand(16, 3, 12, 12)
    never = torch.zeros(16, dtype=torch.bool)
    assert augmented(flat, never, share, 0.0) is flat
    changed = augmented(flat, never, share, 1.0).float()
    assert changed.shape == flat.shape
    assert torch.equal(changed, augmented(flat, never, share, 1.0).float())
    assert 1 < (changed - flat).abs().max() < 75
    assert (changed[:, 0] > changed[:, 1] + 20).all()  # red stays more than green, green than blue
    assert (changed[:, 1] > changed[:, 2] + 20).all()


def test_only_rows_that_may_are_mirrored() -> None:
    ramp = torch.linspace(0, 255, 24).round().to(torch.uint8).expand(64, 3, 24, 24)
    flips = torch.arange(64) % 2 == 0
    changed = augmented(ramp, flips, BatchContext(1, 0, 64), 1.0).float()
    rises = changed[:, 0, 0, -4:].mean(1) > changed[:, 0, 0, :4].mean(1)
    assert rises[~flips].all()
    assert 6 < int((~rises[flips]).sum()) < 26


def test_shares_of_a_batch_are_its_rows() -> None:
    pixels = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8)
    flips = torch.ones(8, dtype=torch.bool)
    whole = augmented(pixels, flips, BatchContext(2, 5, 8), 1.0)
    parts = [
        augmented(pixels[rows], flips[rows], BatchContext(2, 5, 8, rank, 2), 1.0)
        for rank, rows in enumerate((slice(0, 4), slice(4, 8)))
    ]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize(
    ("caption", "may"),
    [
        ("a red apple", True),
        ("brightly lit street", True),
        ("a man turning left", False),
        ("the RIGHT hand", False),
        ("a stop sign", False),
        ("four o'clock", False),
        ("number 7", False),
        ("une voiture à gauche", False),
        ("左手", False),
    ],
)
def test_what_names_a_side_is_not_mirrored(caption: str, may: bool) -> None:
    assert may_flip(["an image", caption]) is may


# --------------------------------------------------------------------------- recall


def test_recall_and_chance_by_hand() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.3, 0.4], [0.5, 0.5, 0.5]])
    true = torch.eye(3, dtype=torch.bool)
    assert recall(scores, true, 1) == pytest.approx(1 / 3)
    assert recall(scores, true, 2) == pytest.approx(2 / 3)
    assert recall(scores, true, 3) == 1
    assert recall(torch.zeros(3, 3), true, 1) == 0  # a tower that says one thing gets nothing
    assert chance(true, 1) == pytest.approx(1 / 3)
    two = torch.tensor([[True, True, False, False]])
    assert chance(two, 2) == pytest.approx(1 - 1 / math.comb(4, 2))
    assert chance(two, 9) == 1


def test_chance_is_what_random_scores_get() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.rand(4000, 20, generator=generator) < 0.1
    true[:, 0] |= ~true.any(1)
    scores = torch.rand(true.shape, generator=generator)
    for rank in (1, 5, 10):
        assert recall(scores, true, rank) == pytest.approx(chance(true, rank), abs=0.03)


def test_guessing_is_told_from_knowing() -> None:
    def figures(value: float) -> dict[str, Metric]:
        sides = ("text", "image")
        return {
            f"recall_{s}_at_{r}": Metric(value, r / 100, 1.0) for s in sides for r in (1, 5, 10)
        }

    assert at_chance(figures(0.15), 100)
    assert not at_chance(figures(0.17), 100)
    half = figures(0.3) | {"recall_image_at_10": Metric(0.1, 0.1, 1.0)}
    assert at_chance(half, 100)
    assert "R@10 0.300 (chance 0.100)" in in_words(figures(0.3))


def test_a_folders_batches_know_their_truth(tmp_path: Path) -> None:
    from PIL import Image

    from guided.training.objective import TrainingContext
    from guided.training.objectives.clip import ClipObjective, ClipSettings

    for i in range(12):
        color = ("red", "blue")[i % 2]
        Image.new("RGB", (40, 30), color).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(("A {} card", "the {} card.")[i % 3 > 0].format(color))
    text = {"width": 32, "heads": 2, "layers": 1, "context_length": 16}
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
    table = {"embed": 16, "vision": vision, "text": text, "vocabulary": 2000}
    made = ClipObjective(ClipSettings(**table), TrainingContext(data=tmp_path))
    batch = made.batch(BatchContext(0, 0, 8))
    red = batch.pixels[:, 0, 16, 16] > 128
    assert torch.equal(batch.true, red[:, None] == red[None, :])
    assert len(made.tokenizer) < 300  # as many as these captions hold, and no more
    loss, parts = made.loss(made.build().train(), batch, BatchContext(0, 0, 8))
    assert torch.isfinite(loss)
    assert set(parts) == {"cross_entropy", "sigmoid", "recall"}
