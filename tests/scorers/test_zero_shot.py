from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from guided.errors import UsageError
from guided.scorers.clip import ClipScorer
from guided.scorers.zero_shot import (
    build_classifier,
    cached_classifier,
    check_labels,
    prompts_of,
    read_classes,
)


def test_a_template_takes_the_label_where_it_says() -> None:
    assert prompts_of(["cat"], ["a {}", "{c}, {c}"]) == {"cat": ["a cat", "cat, cat"]}
    assert prompts_of(["a {b}"], ["see {}"]) == {"a {b}": ["see a {b}"]}
    assert prompts_of(["cat"]) == {"cat": ["a photo of a cat."]}


def test_the_known_sets_come_from_open_clip() -> None:
    many = prompts_of(["golden retriever"], ["openai"])["golden retriever"]
    few = prompts_of(["golden retriever"], ["simple"])["golden retriever"]
    assert (len(many), len(few)) == (80, 7)
    assert "a bad photo of a golden retriever." in many
    assert set(few) <= set(many)
    assert len(prompts_of(["cat"], ["simple", "my {}"])["cat"]) == 8


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat", "dog", "cat "], "Labels given twice: 'cat'"),
        ([], "There is no label"),
        (["cat", "  "], "A label is empty"),
    ],
)
def test_labels_that_make_no_sense(labels: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_labels(labels)


def test_a_template_without_a_place() -> None:
    with pytest.raises(UsageError, match="'a photo' has no place") as caught:
        prompts_of(["cat"], ["a photo"])
    assert "openai" in caught.value.hint


def test_a_class_is_the_mean_of_its_prompts(scorer: ClipScorer) -> None:
    classes = {"red": ["a red hat", "red"], "dog": ["a dog"]}
    rows = build_classifier(scorer, classes)
    red = scorer.embed_texts(["a red hat", "red"]).mean(dim=0)
    torch.testing.assert_close(rows[0], functional.normalize(red, dim=0))
    torch.testing.assert_close(rows[1], scorer.embed_texts(["a dog"])[0])


def test_class_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"cat": ["a cat", "kitty"], "dog": "a dog"}')
    (tmp_path / "a.toml").write_text('cat = ["a cat", "kitty"]\ndog = "a dog"\n')
    expected = {"cat": ["a cat", "kitty"], "dog": ["a dog"]}
    assert read_classes(tmp_path / "a.json") == read_classes(tmp_path / "a.toml") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"cat": ["a"], "cat": ["b"]}', "the label 'cat' is given twice"),
        ('{"cat": []}', "'cat' .* needs prompts"),
        ('{"cat": [1]}', "'cat' .* needs prompts"),
        ('{"cat": {"a": 1}}', "'cat' .* needs prompts"),
        ("[]", "holds no classes"),
        ("{", "cannot be read"),
    ],
)
def test_class_files_that_make_no_sense(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_classes(tmp_path / "x.json")


def test_a_class_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_classes(tmp_path / "x.toml")


def test_the_cache_is_used_and_keyed_by_what_matters(
    scorer: ClipScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = {"red": ["a red hat"], "dog": ["a dog"]}
    first = cached_classifier(scorer, classes, tmp_path / "cache")
    calls = []
    embed = scorer.embed_texts
    monkeypatch.setattr(scorer, "embed_texts", lambda texts: calls.append(1) or embed(texts))
    again = cached_classifier(scorer, classes, tmp_path / "cache")
    assert torch.equal(first, again)
    assert not calls
    cached_classifier(scorer, {"red": ["a red cap"], "dog": ["a dog"]}, tmp_path / "cache")
    monkeypatch.setattr(scorer, "fingerprint", "another", raising=False)
    cached_classifier(scorer, classes, tmp_path / "cache")
    assert len(calls) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_a_damaged_cache_is_made_again(scorer: ClipScorer, tmp_path: Path) -> None:
    classes = {"red": ["a red hat"]}
    first = cached_classifier(scorer, classes, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"rubbish")
    assert torch.equal(cached_classifier(scorer, classes, tmp_path), first)
    assert file.stat().st_size > 10


def test_a_cache_that_cannot_be_written_is_only_logged(
    scorer: ClipScorer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    rows = cached_classifier(scorer, {"red": ["a red hat"]}, tmp_path / "file" / "cache")
    assert rows.shape == (1, scorer.width)
    assert "not cached" in caplog.text


@dataclass
class Counting:
    """A scorer that counts its calls, at one precision."""

    precision: str
    name: str = "counting"
    width: int = 2
    scale: float = 1.0
    calls: int = 0

    @property
    def device(self) -> SimpleNamespace:
        return SimpleNamespace(name="cpu", precision=self.precision)

    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        self.calls += 1
        return functional.normalize(torch.ones(len(texts), 2), dim=1)


def test_the_cache_tells_precisions_apart(tmp_path: Path) -> None:
    scorers = [Counting("fp32"), Counting("bf16"), Counting("fp32")]
    for each in scorers:
        cached_classifier(each, {"red": ["a red hat"]}, tmp_path)  # type: ignore[arg-type]
    assert [each.calls for each in scorers] == [1, 1, 0]


def test_the_cache_tells_labels_and_their_order_apart(tmp_path: Path) -> None:
    """The rows of a classifier follow the labels, so another order is another classifier."""
    scorer = Counting("fp32")
    for classes in ({"a": ["x"], "b": ["y"]}, {"b": ["y"], "a": ["x"]}, {"a": ["x", "y"]}):
        cached_classifier(scorer, classes, tmp_path)  # type: ignore[arg-type]
    assert scorer.calls == 3


@pytest.mark.parametrize(
    "rows", [torch.zeros(3, 24), torch.full((2, 24), float("nan")), torch.zeros(2)]
)
def test_a_cache_that_is_no_classifier_of_these_classes_is_made_again(
    scorer: ClipScorer, tmp_path: Path, rows: torch.Tensor
) -> None:
    classes = {"red": ["a red hat"], "dog": ["a dog"]}
    first = cached_classifier(scorer, classes, tmp_path)
    (file,) = tmp_path.iterdir()
    save_file({"classifier": rows}, file)
    assert torch.equal(cached_classifier(scorer, classes, tmp_path), first)
    assert torch.equal(load_file(file)["classifier"], first)
