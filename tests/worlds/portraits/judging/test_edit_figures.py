from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from guided.core.images import to_tensor
from guided.worlds.portraits import KEYS, VALUES, draw, held_out_pairs_of, sample
from guided.worlds.portraits.judging import edit_baselines as baselines
from guided.worlds.portraits.judging.edit_cases import (
    APART,
    EDITS,
    JUDGED,
    TUNING,
    Edit,
    cases,
    edit_named,
    may_change,
    stacked_pictures,
)
from guided.worlds.portraits.judging.edit_figures import (
    Batch,
    EditedBatch,
    Judges,
    compared,
    edit_figures,
    judged,
    markdown,
    reconstruction,
)
from guided.worlds.portraits.judging.reader import ReaderOutput

SIZE = 32


# ------------------------------------------------------------------ cases


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_every_edit_is_possible_for_its_cases(edit: Edit) -> None:
    some = cases(edit, 4)
    assert len({case.seed for case in some}) == 4
    for case in some:
        before, after = case.source.attributes, case.truths[0].attributes
        assert case.source == sample(case.seed, "val")
        for key, value in edit.changes:
            assert before[key] != value
            assert after[key] == value
            assert case.truths[0].visible()[key]
        assert all(before[key] == value for key, value in edit.given)
        assert not held_out_pairs_of(after)
        assert case.truths[0].geometry == case.source.geometry
        changed = {key for key, _ in edit.changes}
        for person in case.truths:
            assert all(person.attributes[key] == before[key] for key in case.kept)
            differ = {key for key in KEYS if person.attributes[key] != before[key]}
            assert differ <= changed | {"hat_color"}
        assert not changed & set(case.kept)
        assert len(case.kept) >= 8


def test_the_twelve_edits_have_the_names_that_are_published() -> None:
    assert [edit.name for edit in EDITS] == [
        "pink hair", "black hair", "bald", "long hair", "round glasses", "sunglasses",
        "remove glasses", "top hat", "full beard", "smile to frown", "surprised",
        "earrings + blue background",
    ]  # fmt: skip
    assert edit_named("bald").text == "a person with a bald head"
    assert "|" not in EDITS[-1].text
    with pytest.raises(ValueError, match="no edit 'green nose'; there are pink hair"):
        edit_named("green nose")


def test_a_new_hat_may_have_any_colour_that_is_not_the_shirts() -> None:
    edit = edit_named("top hat")
    (bare,) = [c for c in cases(edit, 8) if c.source.attributes["hat"] == "none"][:1]
    colors = {person.attributes["hat_color"] for person in bare.truths}
    assert bare.source.attributes["clothing"] not in colors
    assert "green" not in colors  # a pair that training never shows
    assert len(colors) >= 5
    hatted = next(
        c for c in cases(edit, 40) if c.source.attributes["hat"] != "none"
    )  # whose colour stays
    assert len(hatted.truths) == 1
    assert "hat_color" in hatted.kept


def test_repetitions_and_tuning_have_portraits_of_their_own() -> None:
    edit = EDITS[0]
    judged_seeds = [{case.seed for case in cases(edit, 30, seed)} for seed in range(3)]
    tuning = {case.seed for case in cases(edit, 30, first=TUNING)}
    for one in range(3):
        assert not judged_seeds[one] & tuning
        assert not judged_seeds[one] & judged_seeds[(one + 1) % 3]
    assert max(judged_seeds[2]) < JUDGED + 3 * APART < TUNING


def test_the_mask_covers_what_a_perfect_edit_changes() -> None:
    (case,) = cases(edit_named("sunglasses"), 1)
    mask = may_change(case, 64)
    moved = (case.perfect(64)[0] - case.picture(64)).abs().amax(0)
    assert float((moved * (1 - mask[0])).max()) < 0.01
    assert 0.01 < float(mask.mean()) < 0.35
    background = may_change(cases(EDITS[-1], 1)[0], 64)
    assert float(background.mean()) > float(mask.mean())


# ------------------------------------------------------------------ judges that know the truth


class Seeing:
    """A reader that knows every picture it was shown by its bytes."""

    sha256 = "seeing"

    def __init__(self, people: list[Any]) -> None:
        self.known = {draw(p, SIZE).tobytes(): p for p in people}

    def read(self, images: torch.Tensor) -> list[ReaderOutput]:
        found = []
        for image in images:
            pixels = (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
            person = self.known[Image.fromarray(pixels).tobytes()]
            sure = {key: dict.fromkeys(VALUES[key], 0.0) for key in KEYS}
            found.append(ReaderOutput(dict(person.attributes), sure, 0.0))
        return found


class Even:
    """A CLIP and an identity embedder whose vectors are means of the picture's colours."""

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(images.mean((2, 3)), dim=1)

    def embed_texts(self, texts: Any) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.tensor([[1.0, 0.0, 0.0]] * len(texts)), dim=1)


@pytest.fixture(scope="module")
def scene() -> tuple[Batch, Judges]:
    some = cases(edit_named("pink hair"), 3)
    images = stacked_pictures(some, SIZE)
    people = [p for case in some for p in (case.source, *case.truths, *wrong(case))]
    batch = Batch(some, images, images, {})
    return batch, Judges(Seeing(people), Even(), Even())  # type: ignore[arg-type]


def wrong(case: Any) -> list[Any]:
    """The perfect edit with two kept attributes spoilt."""
    other = case.truths[0]
    for key in ("skin", "clothing"):
        value = next(v for v in VALUES[key] if v != other.attributes[key])
        other = other.with_attribute(key, value)
    return [other]


def test_the_oracle_is_perfect_and_no_edit_is_nothing(scene: tuple[Batch, Judges]) -> None:
    batch, judges = scene
    ends = judged(baselines.rendered(batch), batch, judges, (1.0,))
    for row in ends:
        assert row["hit"] == [1.0]
        assert row["off"] == [0.0]
        assert row["apart"] == pytest.approx(0, abs=1e-7)
        assert row["outside"] < 1e-3
        assert row["gain"] != 0
    still = judged(baselines.no_edit(batch), batch, judges, (0.5, 1.0))
    for row in still:
        assert row["hit"] == [0.0, 0.0]
        assert row["apart"] == row["apart_before"] > 0
        assert row["identity"] == pytest.approx(1, abs=1e-5)
    for kept in reconstruction(batch, judges):
        assert kept == pytest.approx({"kept": 1, "l1": 0, "identity": 1}, abs=1e-5)


def test_spoilt_attributes_count_as_off_target(scene: tuple[Batch, Judges]) -> None:
    batch, judges = scene
    after = to_tensor([draw(wrong(case)[0], SIZE) for case in batch.cases])
    hits, offs = compared(EditedBatch(lambda s: after), batch, judges.reader, (1.0,))
    assert hits[:, 0].tolist() == [1.0] * 3
    for off, case in zip(offs[:, 0], batch.cases, strict=True):
        assert off == pytest.approx(2 / len(case.kept))


# ------------------------------------------------------------------ tables


def kept_row(seed: int, hit: list[float], off: list[float]) -> dict[str, Any]:
    figures = {"apart": 0.02, "apart_before": 0.08, "identity": 0.9, "outside": 0.01, "gain": 0.1}
    return {"strengths": [0.5, 1.0, 2.0], "hit": hit, "off": off, "seed": seed, "seconds": 2.0,
            **figures}  # fmt: skip


def test_figures_of_known_cases() -> None:
    rows = [kept_row(i, [0, i % 2, 1], [0.0, 0.04, 0.3]) for i in range(40)]
    found = edit_figures(rows)
    assert found.count == 40
    assert found.success.value == 0.5
    assert found.off.value == pytest.approx(0.04)
    assert found.score.value == pytest.approx(0.48)
    assert (found.pure, found.pure_strength) == (0.5, 1.0)
    assert found.oracle == pytest.approx(0.25)
    normal = 1.96 * math.sqrt(0.25 / 40)
    assert found.success.low == pytest.approx(0.5 - normal, abs=0.03)
    assert found.success.high == pytest.approx(0.5 + normal, abs=0.03)
    assert edit_figures(rows) == found
    level = [{**row, "hit": [1, 1, 1], "off": [0.0, 0.0, 0.0]} for row in rows]
    assert (edit_figures(level).pure, edit_figures(level).pure_strength) == (1.0, 0.5)
    noisy = [{**row, "off": [0.06, 0.2, 0.3]} for row in rows]
    assert edit_figures(noisy).pure == 0.0
    told = markdown({"delta": found}, {"delta": "what it is.", "other": "no"})
    assert "| delta | 40 | 0.500 [" in told
    assert told.endswith("- delta: what it is.\n")


def test_edits_of_one_portrait_are_resampled_together() -> None:
    hits = np.array([0, 1] * 10).repeat(6)
    alone = edit_figures([kept_row(i, [0, h, 0], [0, 0, 0]) for i, h in enumerate(hits)])
    shared = edit_figures([kept_row(i // 6, [0, h, 0], [0, 0, 0]) for i, h in enumerate(hits)])
    wide, narrow = (f.success.high - f.success.low for f in (shared, alone))
    assert wide > 1.8 * narrow


def test_cases_of_different_strengths_make_no_table() -> None:
    rows = [kept_row(0, [0, 1, 1], [0, 0, 0]), {**kept_row(1, [0], [0]), "strengths": [1.0]}]
    for some in ([], rows):
        with pytest.raises(ValueError, match="same strengths"):
            edit_figures(some)
