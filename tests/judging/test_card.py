from __future__ import annotations

import tomllib
from pathlib import Path

from guided.judging.card import write_metrics


def test_metrics_join_those_of_other_names_rounded(tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text(
        'name = "x"\n[metrics.old]\nvalue = 1.0\n[metrics.new]\nvalue = 2.0\nfloor = 1.0\n', "utf-8"
    )
    write_metrics(card, {"new": {"value": 0.123456789, "ceiling": 1}})
    content = tomllib.loads(card.read_text("utf-8"))
    assert content["name"] == "x"
    assert content["metrics"] == {"old": {"value": 1.0}, "new": {"value": 0.12346, "ceiling": 1.0}}


def test_a_missing_card_stays_missing(tmp_path: Path) -> None:
    write_metrics(tmp_path / "card.toml", {"new": {"value": 1.0}})
    assert not list(tmp_path.iterdir())
