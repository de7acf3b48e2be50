"""The judge of the default edit, on the shipped models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from guided.tasks._edit_outputs import side_by_side
from guided.worlds.portraits.judging.default_edits import NOTES, _left_of
from guided.worlds.portraits.judging.runs import edit_default


def test_the_left_of_a_strip_is_its_first_picture() -> None:
    images = [Image.linear_gradient("L").convert("RGB").resize((32, 32)).rotate(a) for a in (0, 90)]
    strip = side_by_side(images)
    assert _left_of(strip, (32, 32)).tobytes() == images[0].tobytes()


def test_an_unknown_edit_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        edit_default.main(["--edit", "green skin"])
    assert ended.value.code == 2
    assert "there is no edit 'green skin'" in capsys.readouterr().err


@pytest.mark.soak
def test_the_default_edit_is_judged_between_floor_and_ceiling(tmp_path: Path) -> None:
    asked = ["--edit", "sunglasses", "--count", "1", "--out", str(tmp_path)]
    assert edit_default.main(asked) == 0
    rows = json.loads((tmp_path / "figures.json").read_text("utf-8"))["chosen"]
    assert set(rows) == set(NOTES)
    assert rows["unchanged"]["success"]["value"] == rows["unchanged"]["off"]["value"] == 0
    assert rows["renderer"]["score"]["value"] == 1
    assert rows["default"]["success"]["value"] == rows["default, whole"]["success"]["value"]
    assert rows["default"]["seconds"] > 0 == rows["unchanged"]["seconds"]
