"""Texts as verbs read them: weighted queries, windows, and what is named where it is not read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from guided.core.prompts import embed_prompt
from guided.errors import CannotDo, UsageError
from guided.retrieval.search import Query, embed_query
from guided.scorers.clip import ClipScorer, load_clip
from guided.tasks import classify, score
from tests.helpers.tiny_clip import write_clip
from tests.tasks.scoring import paint, perform

#: Longer than the tiny CLIP's 24 tokens.
LONG = "dog " * 22 + "a red hat"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("texts") / "clip")


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> ClipScorer:
    return load_clip(f"local-dir:{bundle}")


def test_a_query_has_the_weights_of_prompts(scorer: ClipScorer) -> None:
    hat, dog = scorer.embed_texts(["a red hat", "a dog"])
    mixed = functional.normalize(hat - 0.5 * dog, dim=0)
    for text in ("a red hat | a dog::-0.5", " a red hat::1|a dog:: -.5 ", "a red hat::2|a dog::-1"):
        torch.testing.assert_close(embed_query(scorer, Query(text)), mixed)
    assert torch.equal(embed_prompt(scorer, "a red hat"), scorer.embed_texts(["a red hat"])[0])
    torch.testing.assert_close(embed_prompt(scorer, "a red hat::-2"), -hat)
    with pytest.raises(UsageError, match="cancel out"):
        embed_prompt(scorer, "a dog | a dog::-1")
    with pytest.raises(UsageError, match="is not a number other than 0"):
        embed_query(scorer, Query("a dog::x"))


def test_score_in_windows_reads_all_of_a_text(bundle: Path, tmp_path: Path) -> None:
    (file,) = paint(tmp_path, 1)
    keys = {"images": [str(file)], "text": [LONG, LONG + "s", "a"]}
    cut, _ = perform(score, bundle, **keys)
    assert len(cut.answer["warnings"]) == 2
    assert "'a red hat'. To read all of it: --long-text windows" in cut.answer["warnings"][0]
    whole, _ = perform(score, bundle, **keys, long_text="windows")
    assert "warnings" not in whole.answer
    before, after = (each.answer["results"][0]["scores"] for each in (cut, whole))
    assert before[LONG] == pytest.approx(before[LONG + "s"], abs=1e-6)
    assert abs(after[LONG] - after[LONG + "s"]) > 1e-5
    assert after["a"] == pytest.approx(before["a"], abs=1e-6)


def test_classifiers_of_cut_texts_and_of_windows_are_kept_apart(
    bundle: Path, tmp_path: Path
) -> None:
    keys = {"images": [str(file) for file in paint(tmp_path, 1)], "label": ["hat", LONG],
            "cache": str(tmp_path / "cache")}  # fmt: skip
    for _ in range(2):  # from the cache, too
        cut, _ = perform(classify, bundle, **keys)
        (warning,) = cut.answer["warnings"]
        assert "the rest was left out, 'red hat.'" in warning or "hat." in warning
    whole, _ = perform(classify, bundle, **keys, long_text="windows")
    assert "warnings" not in whole.answer
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_weights_are_named_where_score_and_classify_read_none(bundle: Path, tmp_path: Path) -> None:
    (file,) = paint(tmp_path, 1)
    scored, _ = perform(score, bundle, images=[str(file)], text=["a hat::0.5"])
    sorted_, _ = perform(classify, bundle, images=[str(file)], label=["a | b", "c"], cache="")
    for result in (scored, sorted_):
        (warning,) = result.answer["warnings"]
        assert "are read as plain words here" in warning


def test_an_object_that_encodes_by_itself_has_no_windows() -> None:
    from guided.core.device import Device
    from guided.scorers.user_model import scorer_of

    class Own:
        def embed_images(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :3] + 0.1

        def embed_texts(self, texts: list[str]) -> torch.Tensor:
            return torch.ones(len(texts), 3)

    own = scorer_of(Own(), Device(), "own")
    assert own.reading("cut") is own
    with pytest.raises(CannotDo, match="cannot be read in windows"):
        own.reading("windows")
