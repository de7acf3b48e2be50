"""Short prompts for generators: exactly so many attributes, and shares of claims met."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor

from guided.core.images import to_tensor
from guided.worlds.portraits import UNSEEN_WORDS, draw
from guided.worlds.portraits.grammar.claims import all_true
from guided.worlds.portraits.judging.runs import short_prompts as script
from guided.worlds.portraits.judging.short_prompts import (
    METHODS,
    NUMBERS,
    caption_prompts,
    free_prompts,
    names_pair,
    short_figures,
    short_row,
)
from tests.helpers.knowing_reader import Knowing

SIZE = 32


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("prompts_of", [caption_prompts, free_prompts])
def test_prompts_name_exactly_so_many_attributes(prompts_of, number: int) -> None:
    prompts = prompts_of(number, 40)
    assert len(prompts) == 40
    for prompt in prompts:
        assert len({claim.key for claim in prompt.claims}) == len(prompt.claims) == number
        assert all_true(prompt.claims, prompt.person.attributes)
        assert not names_pair(prompt)
        assert not any(claim.allowed & set(UNSEEN_WORDS) and len(claim.allowed) == 1
                       for claim in prompt.claims)  # fmt: skip
        assert prompt.person.attributes["hat_color"] != prompt.person.attributes["clothing"]
    assert [p.text for p in prompts_of(number, 12)] == [p.text for p in prompts[:12]]


@pytest.mark.parametrize("number", [2, 3])
def test_prompts_of_held_out_pairs_name_one(number: int) -> None:
    prompts = caption_prompts(number, 20, pairs=True)
    assert len(prompts) == 20
    assert all(names_pair(prompt) and len(prompt.claims) == number for prompt in prompts)


def test_free_texts_are_used_again_when_they_run_out() -> None:
    prompts = free_prompts(3, 60)
    assert len({prompt.text for prompt in prompts}) < 60 == len(prompts)


def test_shares_of_claims_are_means_over_prompts() -> None:
    first, second = caption_prompts(2, 2)
    wrong = second.person
    for claim in second.claims[:1]:
        value = next(v for v in ("blue", "red", "none", "long", "cap", "smile", "round", "full",
                                 "pale", "frown", "earrings") if _other(claim, v))  # fmt: skip
        wrong = wrong.with_attribute(claim.key, value)
    reader = Knowing([first.person, wrong], SIZE)
    images = to_tensor([draw(person, SIZE) for person in (first.person, wrong)])
    found = short_figures(reader.read(images), [first, second])
    assert found.met.value == pytest.approx(0.75)
    assert found.whole.value == pytest.approx(0.5)
    assert found.met.count == 2


def _other(claim, value: str) -> bool:
    from guided.worlds.portraits import VALUES

    return value in VALUES[claim.key] and value not in claim.allowed


def test_the_renderer_reaches_the_ceiling_and_another_portrait_does_not() -> None:
    prompts = caption_prompts(3, 12)
    others = caption_prompts(1, 12)

    def make(texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        assert len(set(seeds)) == len(texts)
        return to_tensor([draw(prompt.person, SIZE) for prompt in prompts])

    reader = Knowing([prompt.person for prompt in (*prompts, *others)], SIZE)
    row = short_row(make, reader, prompts, SIZE)  # type: ignore[arg-type]
    assert row.made.met.value == row.ceiling.met.value == 1
    assert row.floor.met.value < 0.6


def test_a_reading_is_needed_for_each_prompt() -> None:
    with pytest.raises(ValueError, match="longer"):
        short_figures([], caption_prompts(1, 1))


@pytest.mark.soak
@pytest.mark.parametrize("method", METHODS)
def test_the_script_judges_a_shipped_generator(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--generator", method, "--count", "1", "--free", "--out", str(tmp_path)]
    assert script.main(asked) == 0
    rows = json.loads((tmp_path / "figures.json").read_text("utf-8"))[method]
    assert set(rows) == {"new_1", "new_2", "new_3"}
    assert all(0 <= row["made"]["met"]["value"] <= 1 for row in rows.values())
    assert "floor" in capsys.readouterr().out
