"""Commands: names, helps, exit statuses, one JSON object, readable messages."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import pkgutil
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from guided.cli import console, main, watch
from guided.cli.group import COMMANDS, guided, short_help
from guided.cli.options import COMMON_KEYS
from guided.cli.watch import lines_of
from guided.core.run import Result, Run, Step
from guided.errors import CannotDo
from guided.recipe import COMMON, Recipe, task_module
from guided.tasks import task_help, task_names


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_static_helps_are_those_of_the_commands(name: str) -> None:
    module, attribute, told = COMMANDS[name]
    command: click.Command = getattr(importlib.import_module(module), attribute)
    assert command.name == name
    assert (command.help or "").partition("\n")[0] == told


@pytest.mark.parametrize("name", task_names())
def test_every_verb_has_a_help_and_a_command(name: str) -> None:
    module = task_module(name)
    assert short_help(name) == (module.__doc__ or "").partition("\n")[0] != ""
    command = guided.get_command(click.Context(guided), name)
    assert command is not None
    taken = {parameter.name for parameter in command.params}
    assert {*COMMON_KEYS, "as_json", "debug", "print_recipe", "overrides"} <= taken
    for key, field in module.Options.model_fields.items():
        assert key not in COMMON, f"{name}.{key} is a key of every recipe"
        assert field.description, f"{name}.{key} says nothing about itself"
        if field.get_default() is None:
            continue
        assert type(None) not in getattr(field.annotation, "__args__", ()), (
            f"{name}.{key} may be None but has another default, which no recipe can undo"
        )
    options = [word for parameter in command.params for word in parameter.opts]
    assert len(options) == len(set(options)), f"{name} has two options of one name"


def test_help_names_every_command(guided_cli: Callable) -> None:
    said = guided_cli("--help")
    assert said.status == 0
    for name in (*COMMANDS, *task_names()):
        assert f"  {name} " in said.out


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["portrats"], 2, "Did you mean 'portraits'?"),
        (["portraits", "--cuont", "3"], 2, "--count"),
        (["portraits", "--count", "0"], 2, "count = 0: input should be greater than or equal to 1"),
        (["portraits", "--split", "tset"], 2, "'tset' is not one of"),
        (["edit", "--prompt", "x", "--method", "foo"], 2, "p2p, refine, sdedit, text-diff"),
        (["portraits", "--set", "cuont=3"], 2, "unknown key 'cuont'. Did you mean 'count'?"),
        (["portraits", "--set", "count"], 2, "Write --set key=value."),
        (
            ["portraits", "--set", "count=many"],
            2,
            'count = "many": input should be a valid integer',
        ),
        (["portraits", "--seed", "-1"], 2, "must be a whole number from 0 to 18446744073709551615"),
        (["portraits", "--kit", "photos"], 2, "Did you mean 'photo'?"),
        (["run", "no-such.toml"], 2, "Cannot read the recipe no-such.toml"),
        (["rerun", "no-such"], 2, "There is no run folder or picture no-such."),
        (["rerun", "."], 2, "is not the folder of a finished run"),
        (["again", "no-such"], 2, "guided again is now guided rerun."),
        (["again", "no-such"], 2, "There is no run folder or picture no-such."),
        (["show", "no-such.png"], 2, "There is no file no-such.png."),
        (["list", "taks"], 2, "Did you mean 'tasks'?"),
    ],
)
def test_wrong_usage_is_told_in_words(
    guided_cli: Callable, tmp_path: Path, monkeypatch, words: list[str], status: int, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = guided_cli(*words)
    assert said.status == status
    assert told in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_object_and_the_bar_is_elsewhere(guided_cli: Callable, tmp_path: Path) -> None:
    said = guided_cli("portraits", "--count", 3, "--size", 32, "--out", tmp_path / "a", "--json")
    assert said.answer == {"folder": str(tmp_path / "a"), "count": 3}
    assert "3/3" in said.err
    quiet = guided_cli("portraits", "--count", 3, "--size", 32, "--out", tmp_path / "a", "--quiet")
    assert "3/3" not in quiet.err
    assert f"folder: {tmp_path / 'a'}" in quiet.out


def test_print_recipe_equals_the_command(guided_cli: Callable, tmp_path: Path) -> None:
    words = ["portraits", "--count", 2, "--split", "val", "--seed", 9, "--set", "size=64"]
    recipe = guided_cli(*words, "--print-recipe").out
    file = tmp_path / "recipe.toml"
    file.write_text(recipe)
    assert guided_cli("run", file, "--out", tmp_path / "a", "--json").status == 0
    assert guided_cli(*words, "--out", tmp_path / "b", "--json").status == 0
    names = sorted(path.name for path in (tmp_path / "a").glob("*.png"))
    assert names == ["val-000009-64.png", "val-000010-64.png"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_run_takes_overrides_and_check_runs_nothing(guided_cli: Callable, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('task = "portraits"\ncount = 5\nsize = 32\n[expect]\ncount = 2\n')
    said = guided_cli("check", file, "--json")
    assert said.status == 0
    assert said.answer["task"] == "portraits"
    assert said.answer["models"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]
    said = guided_cli("run", file, "--set", "count=2", "--out", tmp_path / "o", "--json")
    assert (said.status, said.answer["count"]) == (0, 2)
    said = guided_cli("run", file, "--set", "count=3", "--out", tmp_path / "o", "--json")
    assert said.status == 1
    assert "expectation not met: count is 3, not equals 2" in said.err


def test_check_says_which_models_are_missing(guided_cli: Callable, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('task = "score"\nimages = ["a.png"]\ntext = ["x"]\nkit = "photo"\n')
    said = guided_cli("check", file, "--json")
    assert said.status == 1
    (model,) = said.answer["models"]
    assert (model["role"], model["file"]) == ("scorer", None)
    assert "guided models" in model["missing"]


def test_show_tells_the_recipe(guided_cli: Callable, tmp_path: Path) -> None:
    guided_cli("portraits", "--count", 1, "--size", 32, "--seed", 3, "--out", tmp_path)
    picture = tmp_path / "train-000003-32.png"
    told = guided_cli("show", picture)
    assert told.status == 0
    assert "seed = 3" in told.out
    assert guided_cli("show", picture, "--json").answer["note"]["world_seed"] == 3
    assert Recipe.loads(guided_cli("show", tmp_path).out).seed == 3


@pytest.mark.parametrize(
    "words", [("portraits", "--count", "1", "--out"), ("rerun",), ("run",), ("show",), ("read",)]
)
@pytest.mark.parametrize("kind", ["long", "loop"])
def test_names_that_no_system_takes(
    guided_cli: Callable, tmp_path: Path, words: tuple[str, ...], kind: str
) -> None:
    name = tmp_path / ("x" * 400 if kind == "long" else "loop")
    if kind == "loop":
        name.symlink_to(name)
    said = guided_cli(*words, name)
    assert said.status in (1, 2)
    assert "unexpected" not in said.err
    assert name.name[:20] in said.err


def _start(steps: Callable[[], object]) -> Callable[..., Run]:
    return lambda *_, **__: Run(steps())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("failure", "status", "told"),
    [
        (CannotDo("This cannot be done.", hint="Do that."), 1, "guided: This cannot be done."),
        (ValueError("boom"), 1, "unexpected ValueError: boom"),
        (KeyboardInterrupt(), 130, "guided: interrupted"),
    ],
)
def test_failures_are_one_message(
    guided_cli: Callable, monkeypatch, failure: BaseException, status: int, told: str
) -> None:
    def steps():
        yield Step(1, 2)
        raise failure

    monkeypatch.setattr(watch.studio, "run", _start(steps))
    said = guided_cli("portraits", "--json")
    assert said.status == status
    assert told in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_debug_shows_where(monkeypatch) -> None:
    def steps():
        yield Step(1, 2)
        raise ValueError("boom")

    monkeypatch.setattr(watch.studio, "run", _start(steps))
    with pytest.raises(ValueError, match="boom"):
        main(["portraits", "--debug"])


def test_errors_of_files_give_status_one(guided_cli: Callable, monkeypatch) -> None:
    def steps():
        yield Step(1, 1)
        bad = {"file": "/b.png", "error": "not a picture"}
        gone = {"file": "/c.png", "error": "/c.png does not exist."}
        return Result({"results": [{"file": "/a.png"}], "errors": [bad, gone]})

    monkeypatch.setattr(watch.studio, "run", _start(steps))
    said = guided_cli("portraits", "--json")
    assert said.status == 1
    assert said.answer["results"] == [{"file": "/a.png"}]
    assert "guided: /b.png: not a picture" in said.err
    assert "guided: /c.png does not exist." in said.err


class Terminal(io.StringIO):
    encoding = "ascii"

    def isatty(self) -> bool:
        return True


def _shown_by_progress(stream: io.StringIO, label: str = "edit") -> str:
    progress = watch.Progress(stream)
    for index in range(1, 501):
        progress.show(Step(index, 500, label, {"clip": 0.5}))
    progress.close()
    return stream.getvalue()


def test_progress_is_one_line_on_a_terminal_and_few_lines_elsewhere(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    live = _shown_by_progress(Terminal())
    assert live.count("\n") == 1
    assert "500/500" in live
    assert "clip 0.5" in live
    plain = ["edit [####################] 500/500 clip 0.5"]
    assert _shown_by_progress(io.StringIO()).splitlines() == plain
    monkeypatch.setenv("TERM", "dumb")
    assert _shown_by_progress(Terminal()).splitlines() == plain


def test_names_are_neither_markup_nor_control_characters(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    evil = "[bold]x[/] :smile: \x1b[2J \u20ac"
    wanted = "[bold]x[/] :smile: \\u001b[2J \\u20ac"
    assert wanted in _shown_by_progress(Terminal(), evil)
    for write in (
        lambda: console.line(evil),
        lambda: console.line("", head=evil),
        lambda: console.table([{"name": evil, "place": "shipped"}], []),
    ):
        stream = Terminal()
        with contextlib.redirect_stdout(stream):
            write()
        assert wanted in stream.getvalue()
        assert "\x1b[2J" not in stream.getvalue()


def test_a_table_that_is_too_wide_and_one_in_a_pipe_are_lines(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    path = "/" + "long/" * 20 + "name.png"
    for stream in (Terminal(), io.StringIO()):
        with contextlib.redirect_stdout(stream):
            console.table([{"file": path, "score": "1"}], [f"{path} 1"])
        assert stream.getvalue() == f"{path} 1\n"


def test_answers_for_people() -> None:
    answer = {
        "results": [{"file": "/a.png", "scores": {"hat": 0.25, "none": None}}],
        "total": 1,
        "errors": [{"file": "b", "error": "c"}],
    }
    assert list(watch.lines_of(answer)) == ["/a.png", "  scores: hat 0.250, none -", "total: 1"]


@pytest.mark.parametrize(
    "what", ["tasks", "losses", "recipes", "kits", "models", "generators", "scorers", "worlds"]
)
def test_lists(guided_cli: Callable, what: str) -> None:
    said = guided_cli("list", what, "--json")
    assert said.status == 0
    entries = said.answer[what]
    assert entries
    assert all(entry["name"] for entry in entries)
    shown = guided_cli("list", what).out
    assert all(entry["name"] in shown for entry in entries)


@pytest.mark.parametrize(
    ("what", "methods"),
    [
        ("generators", {"start", "render"}),
        ("scorers", {"embed_images", "embed_texts"}),
        ("losses", {"bind"}),
    ],
)
def test_a_registry_lists_what_it_says_and_nothing_else(
    guided_cli: Callable, what: str, methods: set[str]
) -> None:
    """Exactly the modules that define a class with the methods of the registry's protocol."""
    package = importlib.import_module(f"guided.{what}")
    names = set()
    for module in pkgutil.walk_packages(package.__path__, f"guided.{what}."):
        own = [
            known for known in vars(importlib.import_module(module.name)).values()
            if isinstance(known, type) and known.__module__ == module.name
        ]  # fmt: skip
        if any(methods <= set(dir(known)) for known in own):
            names.add(module.name.split(".")[2])
    assert names
    entries = guided_cli("list", what, "--json").answer[what]
    assert [entry["name"] for entry in entries] == sorted(names)
    assert all(entry["about"] for entry in entries)


def test_list_tasks_is_what_the_folder_holds(guided_cli: Callable) -> None:
    entries = guided_cli("list", "tasks", "--json").answer["tasks"]
    assert {e["name"]: e["about"] for e in entries} == {n: task_help(n) for n in task_names()}


def test_list_runs(guided_cli: Callable, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert guided_cli("list", "runs", "--json").answer == {"runs": []}
    guided_cli("portraits", "--count", 1, "--size", 32)
    guided_cli("portraits", "--count", 1, "--size", 32)
    runs = guided_cli("list", "runs", "--json").answer["runs"]
    assert len({run["folder"] for run in runs}) == 2
    assert {run["task"] for run in runs} == {"portraits"}


def test_doctor(guided_cli: Callable) -> None:
    answer = guided_cli("doctor", "--json").answer
    found = {finding["check"]: finding for finding in answer["findings"]}
    assert found["torchvision.ops.nms"]["state"] == "ok"
    assert "cpu" in found["devices"]["told"]
    assert {"python", "torch", "free disk", "kit portraits"} <= set(found)
    assert answer["ok"] == all(f["state"] != "broken" for f in answer["findings"])


def test_doctor_names_the_repair(guided_cli: Callable, monkeypatch) -> None:
    import torchvision.ops

    def broken(*_: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr(torchvision.ops, "nms", broken)
    said = guided_cli("doctor", "--json")
    assert said.status == 1
    (finding,) = [f for f in said.answer["findings"] if f["check"] == "torchvision.ops.nms"]
    assert finding["told"] == "does not fit torch: operator torchvision::nms does not exist"
    assert finding["repair"].startswith("python -m pip install")
    assert "repair: python -m pip" in guided_cli("doctor").out


def test_answers_become_plain_data() -> None:
    from guided.run_folder import plain

    held = plain({"a": [1.5], "b": Path("x"), "c": (1,)}, {})
    assert json.dumps(held, allow_nan=False) == '{"a": [1.5], "b": "x", "c": [1]}'


def test_a_recipe_is_run_and_not_edited(guided_cli: Callable, tmp_path: Path) -> None:
    recipe = tmp_path / "pink.toml"
    recipe.write_text('task = "edit"\n', encoding="utf-8")
    said = guided_cli("edit", recipe)
    assert said.status == 2
    assert f"{recipe} is a recipe" in said.err
    assert f"guided run {recipe}" in said.err


def test_lines_for_people_leave_out_what_is_not_there() -> None:
    answer = {
        "results": [{"file": "a.png", "score": 0.5, "missing": None}],
        "left_out": [{"file": "b.heic", "reason": "HEIC pictures are not read"}],
    }
    told = ["a.png", "  score: 0.500", "left out: b.heic: HEIC pictures are not read"]
    assert list(lines_of(answer)) == told
