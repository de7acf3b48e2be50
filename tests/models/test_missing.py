"""What is missing is said at once, before anything heavy is imported, with one command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from guided import studio
from guided.cli.models import models as command
from guided.errors import MissingWeights, UsageError
from guided.models import check_here, needs_of
from guided.models.missing import chosen_by
from guided.recipe import Recipe
from guided.zoo.folders import SHIPPED
from guided.zoo.kits import load_kit

PHOTO = {"task": "caption", "images": ["a.png"], "kit": "photo"}


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("GUIDED_MODELS", str(tmp_path / "mine"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def missing(**keys: Any) -> MissingWeights:
    with pytest.raises(MissingWeights) as caught:
        studio.run(Recipe.of(keys), save=False).result()
    return caught.value


def test_all_that_is_missing_is_listed_with_one_command() -> None:
    error = missing(**PHOTO)
    scorer, language, total = error.details
    for part in ("scorer ViT-B-32/laion2b_s34b_b79k", "605 MB", "licence: MIT", "huggingface.co"):
        assert part in scorer
    for part in ("language gpt2", "model.safetensors and 4 more", "548 MB"):
        assert part in language
    assert total == "Together about 1.2 GB."
    wanted = "guided models get ViT-B-32/laion2b_s34b_b79k gpt2 --online"
    assert error.hint == f"Run: {wanted}"
    assert str(error).count("\n") == 4


def test_what_no_command_fetches_is_told_by_hand() -> None:
    error = missing(task="edit", prompt=["red hat"], kit="photo", keep_identity=0.1)
    assert len(error.details) == 4
    assert error.hint.startswith("Run: guided models get ViT-B-32/laion2b_s34b_b79k --online. By")
    for name in ("stylegan2-ffhq", "ir-se50"):
        assert f"--name {name}" in error.hint
    online = missing(task="edit", prompt=["red hat"], kit="photo", keep_identity=0.1, online=True)
    assert "ViT-B-32" not in str(online)
    assert len(online.details) == 3


def test_one_missing_model_says_it_in_its_own_words() -> None:
    error = missing(task="score", images=["a.png"], text=["b"], kit="photo")
    assert error.details == ()
    assert "open_clip_model.safetensors and 1 more (about 605 MB)" in error.message


def test_wrong_options_are_told_before_missing_models() -> None:
    for keys in (
        {"task": "edit"},
        {"task": "edit", "method": "ddim", "prompt": ["a"]},
        {"task": "vary"},
        {"task": "score", "images": ["a"], "text": [" "]},
        {"task": "generate", "prompts": ["a"], "steps": 0},
    ):
        with pytest.raises(UsageError):
            studio.run(Recipe.of({**keys, "kit": "photo"}), save=False).result()


def test_models_named_by_other_models_are_looked_for_too(places: Path) -> None:
    folder = places / "denoiser"
    folder.mkdir()
    (folder / "parts.json").write_text(json.dumps({"vae": "no-vae", "scorer": "clip"}))
    needs = needs_of(["denoiser"], {"denoiser": str(folder)}, {})
    assert [(need.role, need.name, bool(need.missing)) for need in needs] == [
        ("denoiser", str(folder), False), ("vae", "no-vae", True), ("scorer", "clip", False),
    ]  # fmt: skip
    kit = load_kit("portraits") | {"scorer": "another"}
    assert [need.name for need in needs_of(["text_gan", "scorer"], {}, kit)] == ["text_gan", "clip"]


def test_options_of_another_name_are_looked_for_too() -> None:
    options = Recipe.of({"task": "generate", "prompts": ["a"], "method": "gan", "gan": "x.pt"})
    assert chosen_by(options.options) == {"text_gan": "x.pt"}
    assert [n.missing for n in studio.plan(options).needs if n.role == "text_gan"] == [
        "There is no text GAN file x.pt. Check the path."
    ]
    edit = Recipe.of({"task": "edit", "prompt": ["a"], "method": "mapper", "mapper": "m.pt"})
    assert [need.name for need in studio.plan(edit).missing] == ["m.pt"]


def test_an_index_is_asked_with_the_scorer_that_made_it(places: Path) -> None:
    from guided.retrieval.schema import DATABASE

    keys = {"task": "search", "query": "a hat", "index": "made", "kit": "photo"}
    assert studio.plan(Recipe.of({**keys, "folder": "images"})).missing
    (places / "made").mkdir()
    (places / "made" / DATABASE).touch()
    assert studio.plan(Recipe.of({**keys, "folder": "images"})).needs == ()
    named = studio.plan(Recipe.of({**keys, "scorer": "ViT-L-14/openai"}))
    assert [need.name for need in named.missing] == ["ViT-L-14/openai"]


def test_a_kit_that_is_here_lacks_nothing_and_reads_no_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kit = load_kit("portraits")

    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} was hashed")

    monkeypatch.setattr("guided.zoo.checksums.fresh_digest", refuse)
    monkeypatch.setattr("guided.zoo.checksums._known", {})
    start = time.perf_counter()
    needs = needs_of(kit, {}, kit)
    assert time.perf_counter() - start < 0.3
    assert {need.role for need in needs} == set(kit)
    check_here(needs)


def test_nothing_heavy_is_imported_to_find_out(places: Path) -> None:
    code = (
        "import sys; from guided.cli import main; "
        "status = main(['caption', 'a.png', '--kit', 'photo']); "
        "heavy = {'torch', 'numpy', 'transformers', 'open_clip', 'huggingface_hub'}; "
        "heavy &= set(sys.modules); "
        "assert not heavy, heavy; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "guided: 2 models that are needed are not on this computer:"
    assert lines[-1] == "  Run: guided models get ViT-B-32/laion2b_s34b_b79k gpt2 --online"


def test_several_models_are_got_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    run = CliRunner().invoke(command, ["get", "clip", "reader", "--json"])
    rows = json.loads(run.stdout)["models"]
    assert [(row["name"], row["place"]) for row in rows] == [
        ("clip", "shipped"), ("reader", "shipped"),
    ]  # fmt: skip
    whole = CliRunner().invoke(command, ["get", "--kit", "portraits", "--json"])
    files = {row["name"]: Path(row["file"]) for row in json.loads(whole.stdout)["models"]}
    assert set(files) == set(load_kit("portraits").values())
    assert all(path.is_relative_to(SHIPPED) for path in files.values())
    failed = CliRunner().invoke(command, ["get", "clip", "gpt2", "--kit", "photo"])
    assert isinstance(failed.exception, MissingWeights)
    assert "guided models get gpt2" in failed.exception.hint
    assert isinstance(CliRunner().invoke(command, ["get"]).exception, UsageError)
