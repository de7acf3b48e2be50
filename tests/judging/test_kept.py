"""What a judge keeps: made once, the same when it is read again, and only while there is time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from guided.judging.result_cache import ResultCache, TimeBudgetSpent, digest_of, short


def test_everything_is_made_once(tmp_path: Path) -> None:
    kept, calls = ResultCache(tmp_path), []

    def counted(value: Any) -> Any:
        calls.append(1)
        return value

    pictures = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    numbers = {"a": torch.arange(6.0).view(2, 3).T, "b": torch.ones(1)}
    for _ in range(2):
        assert kept.json("x/rows.json", lambda: counted([{"hit": 1.0}])) == [{"hit": 1.0}]
        found = kept.tensors("codes.safetensors", lambda: counted(numbers))
        assert {name: torch.equal(found[name], each) for name, each in numbers.items()} == {
            "a": True, "b": True
        }  # fmt: skip
    assert len(calls) == 2
    first = kept.images("row.png", lambda: counted(pictures))
    assert torch.equal(first, kept.images("row.png", lambda: counted(pictures)))
    assert len(calls) == 3
    assert first.shape == pictures.shape
    assert float((first - pictures).abs().max()) <= 0.5 / 255 + 1e-6
    assert torch.equal(first, kept.images("again.png", lambda: first))


def test_past_the_end_only_what_is_there_is_given(tmp_path: Path) -> None:
    ResultCache(tmp_path).json("old.json", lambda: 1)
    kept = ResultCache.of(tmp_path, 1e-9)
    assert kept.json("old.json", lambda: 2) == 1
    with pytest.raises(TimeBudgetSpent, match=r"stopped before new\.json; run again to go on"):
        kept.json("new.json", lambda: 2)
    with pytest.raises(TimeBudgetSpent, match="no more edits"):
        kept.json("new.json", lambda: 2, "no more edits")
    assert not (tmp_path / "new.json").exists()
    assert ResultCache.of(tmp_path).json("new.json", lambda: 2) == 2


def test_a_failure_keeps_nothing(tmp_path: Path) -> None:
    def fails() -> Any:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        ResultCache(tmp_path).json("rows.json", fails)
    assert ResultCache(tmp_path).json("rows.json", lambda: 3) == 3


def test_names_and_folders_are_told_apart(tmp_path: Path) -> None:
    assert short([1, ("a", 2)]) == short([1, ["a", 2]]) != short([1, ["a", 3]])
    for name in ("one", "two"):
        (tmp_path / name / "part").mkdir(parents=True)
        (tmp_path / name / "part" / "config.json").write_text("{}")
        (tmp_path / name / "card.toml").write_text(name)
    assert digest_of(tmp_path / "one") == digest_of(tmp_path / "two")
    (tmp_path / "two" / "part" / "config.json").write_text('{"width": 2}')
    assert digest_of(tmp_path / "one") != digest_of(tmp_path / "two")
