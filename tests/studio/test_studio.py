"""Runs are kept whole, repeated pixel for pixel, and found again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from guided import expectations, studio
from guided.core import lineage
from guided.core.run import OutputImage, Result, Step
from guided.core.seeds import Seeds
from guided.errors import CannotDo, GuidedError, OutputError, UsageError
from guided.models.missing import Need
from guided.recipe import Recipe
from guided.studio import planning, rerunning, running
from guided.tasks.base import Steps, TaskContext, TaskOptions, argument, option
from guided.zoo.resolve import card_of

#: What a painting notes of its models, under "models".
_NOTES: dict[str, dict[str, str | None]] = {}


class _Options(TaskOptions):
    images: list[str] = argument("pictures", [])
    prompt: str = option("words", "noise")
    size: int = option("pixels", 16)
    name: str = option("file name", "noise.png")
    wait: bool = option("stop in the middle", default=False)


def _paint(options: _Options, ctx: TaskContext) -> Steps:
    """Noise whose pixels depend on the seed, on torch's sums and on the pictures given."""
    noise = Seeds.of(ctx.seed).uniform((3, options.size, options.size), "noise")[0]
    for file in options.images:
        picture = ctx.open_image(file).resize((options.size, options.size))
        noise = (noise + torch.tensor(picture.getpixel((0, 0))).view(3, 1, 1) / 255) % 1
    yield Step(1, 2, "paint", {"mean": float(noise.mean())})
    if options.wait:
        raise KeyboardInterrupt
    pixels = (noise.permute(1, 2, 0) * 255).to(torch.uint8).numpy()
    picture = OutputImage(
        options.name, Image.fromarray(pixels), tuple(options.images), {"prompt": options.prompt}
    )
    yield Step(2, 2, "paint", {"mean": float(noise.mean())}, draft="dropped")
    ctx.notes["brush"] = "sha256"
    ctx.notes.update(_NOTES.get("models", {}))
    return Result(
        {"results": [{"image": picture, "mean": float(noise.mean())}], "threads": _threads()},
        files={"notes/words.txt": options.prompt},
        scores={"mean": float(noise.mean())},
    )


def _threads() -> int:
    return torch.get_num_threads()


def _answer(options: _Options, ctx: TaskContext) -> Steps:
    yield Step(1, 1)
    return Result({"results": [{"file": "/a.png", "label": "hat"}]})


@pytest.fixture(autouse=True)
def tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two tasks of our own, ``paint`` and ``answer``, and an empty current folder."""
    import guided.recipe

    own = {
        "paint": SimpleNamespace(Options=_Options, run=_paint),
        "answer": SimpleNamespace(Options=_Options, run=_answer),
    }
    original = guided.recipe.task_module

    def module(name: str) -> object:
        return own[name] if name in own else original(name)

    monkeypatch.setattr(guided.recipe, "task_module", module)
    for part in (planning, running):
        monkeypatch.setattr(part, "task_module", module)
    monkeypatch.chdir(tmp_path)


def _recipe(**keys: object) -> Recipe:
    return Recipe.of({"task": "paint", **keys})


def _pixels(path: Path | str) -> str:
    with Image.open(path) as image:
        return hashlib.sha256(image.tobytes()).hexdigest()


def test_a_run_folder_holds_everything(tmp_path: Path) -> None:
    run = studio.run(_recipe(prompt="A red hat!", seed=3))
    assert [step.index for step in run] == [1, 2]
    result = run.result()
    folder = result.folder
    assert folder is not None
    assert folder.parent == tmp_path / "outputs"
    assert folder.name.endswith("-paint-a-red-hat-s3")
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert files == ["noise.png", "notes/words.txt", "recipe.toml", "run.json", "steps.jsonl"]
    assert result.answer["results"][0]["image"] == str(folder / "noise.png")
    assert Recipe.load(folder / "recipe.toml") == _recipe(prompt="A red hat!", seed=3)
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert [step["index"] for step in steps] == [1, 2]
    assert steps[0]["losses"]["mean"] == pytest.approx(0.5, abs=0.2)
    record = json.loads((folder / "run.json").read_text())
    assert record["answer"] == result.answer
    assert record["weights"] == {"brush": "sha256"}
    assert record["setting"]["threads"] == torch.get_num_threads()
    assert record["setting"]["versions"]["torch"] == torch.__version__
    assert record["scores"]["mean"] == steps[0]["losses"]["mean"]
    assert record["seconds"] >= 0


def test_runs_of_one_day_do_not_share_a_folder() -> None:
    folders = {studio.run(_recipe()).result().folder for _ in range(3)}
    assert len(folders) == 3


def test_out_takes_the_files_themselves(tmp_path: Path) -> None:
    result = studio.run(_recipe(out="here")).result()
    assert result.folder == tmp_path / "here"
    assert (tmp_path / "here" / "noise.png").is_file()
    assert "out" not in (tmp_path / "here" / "recipe.toml").read_text()


def test_an_answer_alone_is_kept_only_with_out(tmp_path: Path) -> None:
    result = studio.run(Recipe.of({"task": "answer"})).result()
    assert result.folder is None
    assert list(tmp_path.iterdir()) == []
    result = studio.run(Recipe.of({"task": "answer", "out": "kept"})).result()
    assert json.loads((tmp_path / "kept" / "run.json").read_text())["answer"] == result.answer


def test_unsaved_runs_write_nothing_and_keep_pictures(tmp_path: Path) -> None:
    result = studio.run(_recipe(), save=False).result()
    assert isinstance(result.answer["results"][0]["image"], OutputImage)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../out.png", "/tmp/out.png", "a\\b.png", "con.png"])
def test_output_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="output name"):
        studio.run(_recipe(name=name)).result()
    assert not list(tmp_path.rglob("run.json"))
    assert not (tmp_path / "outputs" / "out.png").exists()


def test_interrupted_and_stopped_runs_leave_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        studio.run(_recipe(wait=True)).result()
    run = studio.run(_recipe())
    next(iter(run))
    run.stop()
    with pytest.raises(GuidedError, match="stopped"):
        run.result()
    assert not list(tmp_path.rglob("*.png"))


def test_again_gives_identical_pixels_from_folder_and_picture() -> None:
    first = studio.run(_recipe(seed=11, prompt="x")).result()
    assert first.folder is not None
    picture = first.folder / "noise.png"
    for source in (first.folder, picture):
        second = studio.rerun(source).result()
        assert second.folder not in (None, first.folder)
        assert _pixels(second.answer["results"][0]["image"]) == _pixels(picture)
        assert Path(second.answer["results"][0]["image"]).read_bytes() == picture.read_bytes()


def test_again_sets_the_recorded_threads_and_gives_them_back(caplog) -> None:
    before = torch.get_num_threads()
    first = studio.run(_recipe(), threads=3).result()
    assert first.answer["threads"] == 3
    assert torch.get_num_threads() == before
    assert first.folder is not None
    record = json.loads((first.folder / "run.json").read_text())
    record["setting"]["threads"] = 3
    record["setting"]["versions"]["torch"] = "0.0"
    (first.folder / "run.json").write_text(json.dumps(record))
    assert studio.rerun(first.folder).result().answer["threads"] == 3
    assert torch.get_num_threads() == before
    assert "torch was 0.0 then" in caplog.text


def test_again_names_the_models_whose_weights_have_changed(caplog, monkeypatch) -> None:
    reader, clip = (card_of(name) for name in ("reader", "clip"))
    assert reader is not None
    assert clip is not None
    own = {"reader": reader.sha256, "clip": "0" * 64, "of-others": "1" * 64}
    monkeypatch.setitem(_NOTES, "models", own)
    first = studio.run(_recipe()).result()
    assert first.folder is not None
    for source in (first.folder, first.folder / "noise.png"):
        assert studio.load_run(source).changed_models() == ["clip"]
        caplog.clear()
        studio.rerun(source).result()
        assert "The weights of clip have changed since: this result may differ" in caplog.text
    monkeypatch.setitem(own, "clip", clip.sha256)
    caplog.clear()
    studio.rerun(studio.run(_recipe()).result().folder).result()  # type: ignore[arg-type]
    assert "changed since" not in caplog.text


def test_pictures_without_weights_are_compared_with_what_their_version_shipped(monkeypatch) -> None:
    monkeypatch.setattr(
        rerunning, "needs_of_recipe", lambda _: [Need("scorer", "clip"), Need("reader", "reader")]
    )
    clip, reader = (card_of(name) for name in ("clip", "reader"))
    assert clip is not None
    assert reader is not None
    cards = {"clip": clip.model_copy(update={"earlier": {"0.1.0": "0" * 64}}),
             "reader": reader.model_copy(update={"earlier": {"0.1.0": reader.sha256}})}  # fmt: skip
    monkeypatch.setattr(rerunning, "card_of", cards.get)
    for version, changed in (("0.1.0", ["clip"]), ("0.0.9", [])):
        past = rerunning.RunRecord(_recipe(), {"versions": {"guided": version}}, Path("x.png"))
        assert past.changed_models() == changed


def test_a_kept_recipe_does_not_carry_the_leave_to_go_online() -> None:
    first = studio.run(_recipe(online=True)).result()
    assert first.folder is not None
    assert not studio.load_run(first.folder).recipe.online
    assert not studio.load_run(first.folder / "noise.png").recipe.online


def test_again_works_from_another_folder(tmp_path: Path, monkeypatch) -> None:
    Image.new("RGB", (4, 4), (90, 20, 30)).save(tmp_path / "me.png")
    first = studio.run(_recipe(images=["me.png"])).result().answer["results"][0]["image"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    second = studio.rerun(first).result().answer["results"][0]["image"]
    assert _pixels(first) == _pixels(second)


def test_fifty_recipes_survive_the_way_through_a_picture(tmp_path: Path) -> None:
    for seed in range(50):
        words = f'{seed}: "quotes" \\ \n ünï {"x" * seed}'
        recipe = _recipe(seed=seed, prompt=words, size=4 + seed % 5, out=f"o{seed}")
        first = studio.run(recipe).result().answer["results"][0]["image"]
        assert studio.load_run(first).recipe == recipe.with_(out=None)
        again = studio.rerun(first, out=f"p{seed}").result().answer["results"][0]["image"]
        assert _pixels(again) == _pixels(first)


def test_edits_of_edits_keep_the_whole_lineage() -> None:
    source = studio.run(_recipe(prompt="0")).result().answer["results"][0]["image"]
    for number in range(1, 6):
        recipe = _recipe(prompt=str(number), images=[source], seed=number)
        source = studio.run(recipe).result().answer["results"][0]["image"]
    told = studio.show(source)
    assert [entry["note"]["prompt"] for entry in told["lineage"]] == list("012345")
    assert [Recipe.loads(entry["recipe"]).seed for entry in told["lineage"]] == [0, 1, 2, 3, 4, 5]


def test_pictures_in_memory_are_saved_with_the_run() -> None:
    mine = Image.new("RGB", (4, 4), (200, 1, 2))
    result = studio.run(_recipe(images=["given-1.png"], out="o"), given={"given-1.png": mine})
    first = result.result().answer["results"][0]["image"]
    assert (Path("o") / "given-1.png").is_file()
    assert _pixels(studio.rerun(first).result().answer["results"][0]["image"]) == _pixels(first)


@pytest.mark.parametrize("save", [False, True])
def test_the_pictures_of_an_answer_are_at_hand_in_memory_saved_or_not(save: bool) -> None:
    result = studio.run(_recipe(size=5), save=save).result()
    assert isinstance(result.answer["results"][0]["image"], str) == save
    assert [image.size for image in result.images] == [(5, 5)]
    assert (result.folder is not None) == save


def test_history_is_newest_first_and_skips_damage(tmp_path: Path, caplog) -> None:
    folders = [
        studio.run(_recipe(seed=seed, about=f"n{seed}")).result().folder for seed in range(3)
    ]
    broken = folders[1]
    assert broken is not None
    (broken / "run.json").write_text("{")
    (tmp_path / "outputs" / "other").mkdir()
    runs = studio.history(tmp_path / "outputs")
    assert [run["seed"] for run in runs] == [2, 0]
    assert [run["about"] for run in runs] == ["n2", "n0"]
    assert "is left out" in caplog.text


def test_show_and_again_say_what_they_need(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    for call in (studio.show, studio.rerun):
        with pytest.raises(UsageError, match="carries no recipe"):
            call("plain.png")
    assert lineage.read(tmp_path / "plain.png") is None


def test_plan_names_models_and_folder(tmp_path: Path) -> None:
    plan = studio.plan(Recipe.of({"task": "score", "images": ["a"], "text": ["b"], "kit": "photo"}))
    assert [(need.role, need.name) for need in plan.needs] == [
        ("scorer", "ViT-B-32/laion2b_s34b_b79k")
    ]
    assert plan.folder.parent == tmp_path / "outputs"
    assert list(tmp_path.iterdir()) == []
    plan = studio.plan(
        Recipe.of({"task": "score", "images": ["a"], "text": ["b"], "scorer": "local-dir:none"})
    )
    assert plan.missing[0].missing == "There is no folder none. Check the path."
    with pytest.raises(UsageError, match=r"There is no kit 'portrait'\. Did you mean 'portraits'"):
        studio.plan(Recipe.of({"task": "score", "images": ["a"], "text": ["b"], "kit": "portrait"}))


def _read(values: list[dict[str, str]]) -> Callable[[object], list]:
    return lambda images: values


def test_expectations_are_judged_after_the_run() -> None:
    result = studio.run(_recipe(expect={"mean": {"at_least": 0.9}, "results.*.mean": 0.5}))
    assert result.result().failed_expectations[0].startswith("mean is 0.")
    assert len(result.result().failed_expectations) == 2
    assert studio.run(_recipe(expect={"mean": {"at_most": 0.9}})).result().failed_expectations == []


@pytest.mark.parametrize(
    ("table", "met"),
    [
        ({"count": 2}, True),
        ({"count": 3}, False),
        ({"count": True}, False),
        ({"clip": 0.25}, True),
        ({"clip": {"at_least": 0.2, "at_most": 0.3}}, True),
        ({"clip": {"at_least": 0.3}}, False),
        ({"clip": {"at_most": 0.2}}, False),
        ({"results.0.label": "hat"}, True),
        ({"results.*.label": "hat"}, False),
        ({"results.*.label": {"one_of": ["hat", "cap"]}}, True),
        ({"results.1.scores.a.b": {"at_least": 1}}, True),
        ({"results.0.label": {"contains": "ha"}}, True),
        ({"results.9.label": "hat"}, False),
        ({"nothing": 1}, False),
        ({"attributes": {"hat": "cap"}}, False),
        ({"attributes": {"hat": "cap"}, "share": 0.5}, True),
    ],
)
def test_conditions(table: dict, met: bool) -> None:
    pictures = [OutputImage(str(n), Image.new("RGB", (2, 2))) for n in range(2)]
    answer = {
        "count": 2,
        "results": [{"label": "hat"}, {"label": "cap", "scores": {"a.b": 1.5}}],
    }
    result = Result(answer, pictures, scores={"clip": 0.25})
    expectations.check(table)
    missed = expectations.failed(table, result, _read([{"hat": "cap"}, {"hat": "none"}]))
    assert (missed == []) == met


def test_a_bench_without_a_folder_saves_nothing() -> None:
    with pytest.raises(CannotDo, match=r"not saved, so a\.png has no place"):
        TaskContext().save(OutputImage("a.png", Image.new("RGB", (2, 2))))
