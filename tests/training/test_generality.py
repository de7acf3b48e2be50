"""General training knows no world, stays small, and what is listed is what there is."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from guided.core.world import world_names
from guided.training.objectives.clip import ClipSettings
from guided.training.objectives.denoiser import DenoiserSettings
from guided.training.registry import ALIASES, objective_class, objectives

TRAINING = Path(__file__).parents[2] / "guided" / "training"
FILES = sorted(TRAINING.rglob("*.py"))
#: What any folder can train, of which captions or images are enough.
GENERAL = {
    "autoencoder", "clip", "denoiser", "inverter", "language", "latent_scorer", "prior", "text_gan",
}  # fmt: skip


def test_no_file_of_general_training_mentions_a_world() -> None:
    names = {form for name in world_names() for form in (name, name.removesuffix("s"))}
    mentions = re.compile(rf"\b({'|'.join(sorted(names))}|the drawn world)\b", re.IGNORECASE)
    assert len(FILES) > 30
    for file in FILES:
        found = mentions.search(file.read_text("utf-8"))
        assert found is None, f"{file.name}: {found}"


def code_lines(file: Path) -> int:
    """Lines that are neither blank, nor comments, nor docstrings."""
    text = file.read_text("utf-8")
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            documented |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(
        1 for n, line in lines if line.strip() and line.strip()[0] != "#" and n not in documented
    )


def test_general_training_is_at_most_five_thousand_lines_of_code() -> None:
    assert sum(map(code_lines, FILES)) <= 5000


def test_what_a_folder_can_train_is_a_file_of_its_own_that_imports_no_world() -> None:
    known = objectives()
    for name in GENERAL:
        assert known[name][0] == f"training.objectives.{name}"
        assert objective_class(name, folder=True).__module__ == f"guided.{known[name][0]}"
    for alias, name in ALIASES.items():
        assert alias not in known
        assert objective_class(alias, folder=True) is objective_class(name, folder=True)


def test_a_world_extends_an_objective_under_its_name() -> None:
    for name in GENERAL:
        general, own = (objective_class(name, folder=folder) for folder in (True, False))
        assert own.__module__.startswith("guided.worlds.")
        assert issubclass(own.Settings, general.Settings)
        assert own.name == general.name == name


def test_the_list_of_objectives_says_what_each_learns_from_without_torch() -> None:
    code = (
        "import sys; from guided.cli.listing import LISTS; import json; "
        "print(json.dumps(LISTS['objectives']())); assert 'torch' not in sys.modules"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    rows = {row["name"]: row for row in json.loads(output)}
    assert rows.keys() == objectives().keys()
    for name in GENERAL:
        assert rows[name]["data"] == "a folder, portraits"
    assert rows["reader"]["data"] == "portraits"
    assert rows["mapper"]["data"] == "none"
    assert all(row["about"] for row in rows.values())


def test_settings_are_known_by_their_old_names_but_not_by_both() -> None:
    old = DenoiserSettings(unsaid=0.3, unseen=0.4, apart=0.2, cap=3.0, frozen="fp32")
    new = DenoiserSettings(
        text_dropout=0.3, image_dropout=0.4, image_only=0.2, min_snr_gamma=3.0,
        frozen_precision="fp32",
    )  # fmt: skip
    assert old == new
    with pytest.raises(ValueError, match="unsaid is the old name of text_dropout; give one"):
        DenoiserSettings(unsaid=0.3, text_dropout=0.3)
    with pytest.raises(ValueError, match=r"attributes = 2 needs to know more .* set it to 0"):
        ClipSettings(vision={}, text={}, attributes=2)
    assert ClipSettings(vision={}, text={}, attributes=0) == ClipSettings(vision={}, text={})
