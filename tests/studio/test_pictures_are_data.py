"""A recipe that came in a picture does nothing beyond its folder without a yes."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_origin, get_type_hints

import click
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import BaseModel

import guided.losses
import guided.training
from guided import signing, studio
from guided.cli import runs
from guided.core import lineage
from guided.errors import UsageError
from guided.recipe import KINDS, Recipe, is_choice, task_options
from guided.studio import rerunning
from guided.tasks import task_names
from guided.tasks.base import TaskOptions
from guided.training.registry import objectives


def _sent(path: Path, recipe: str, **more: object) -> Path:
    """A picture as anybody could make it: this recipe, and what it says of itself."""
    info = PngInfo()
    info.add_itxt("guided.recipe", recipe)
    picture = {"id": "1", "name": path.name, **more}
    info.add_itxt("guided.lineage", json.dumps({"version": 1, "picture": picture}))
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a picture's folder ``sent``, a home, secrets, and a current folder."""
    for name in ("sent/sub", "home", "cwd", "elsewhere/model"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("home/me.png", "elsewhere/me.png", "sent/beside.png", "sent/sub/in.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    for name in (
        "elsewhere/x.npy",
        "elsewhere/x.pt",
        "elsewhere/x.json",
        "sent/own.pt",
        "sent/.hidden",
    ):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sent" / "link.png").symlink_to(tmp_path / "elsewhere" / "me.png")
    (tmp_path / "sent" / "door").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "sent" / "links").mkdir()
    (tmp_path / "sent" / "links" / "a.png").symlink_to(tmp_path / "elsewhere" / "me.png")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


SCORE = 'task = "score"\ntext = ["x"]\n'
EDIT = 'task = "edit"\nprompt = ["x"]\n'
BEYOND = {
    f'{SCORE}images = ["PLACE/elsewhere/me.png"]': "read PLACE/elsewhere/me.png (images)",
    f'{SCORE}images = ["PLACE/elsewhere/gone.png"]': "read PLACE/elsewhere/gone.png (images)",
    f'{SCORE}images = ["PLACE/sent/../elsewhere/me.png"]': "elsewhere/me.png (images)",
    f'{SCORE}images = ["../elsewhere/me.png"]': "elsewhere/me.png (images)",
    f'{SCORE}images = ["me.png"]': "read PLACE/cwd/me.png (images)",
    f'{SCORE}images = ["~/me.png"]': "read PLACE/home/me.png (images)",
    f'{SCORE}images = ["~nobody-here/me.png"]': "me.png (images)",
    f'{SCORE}images = ["PLACE/sent/link.png"]': "read PLACE/sent/link.png (images)",
    f'{SCORE}images = ["PLACE/sent/door/me.png"]': "read PLACE/sent/door/me.png (images)",
    f'{SCORE}images = ["PLACE/sent/.hidden"]': "read PLACE/sent/.hidden (images)",
    f'{SCORE}images = ["/dev/zero"]': "read /dev/zero (images)",
    f'{EDIT}images = ["PLACE/sent/links"]': "read PLACE/sent/links (images)",
    f'{EDIT}mask = "PLACE/elsewhere/me.png"': "(mask)",
    f'{EDIT}landmarks = ["PLACE/elsewhere/x.json"]': "read PLACE/elsewhere/x.json (landmarks)",
    f'{EDIT}method = "direction"\nstatistics = "PLACE/elsewhere/x.npy"':
        "load the model PLACE/elsewhere/x.npy (statistics)",
    f'{EDIT}generator = "PLACE/elsewhere/x.pt"': "load the model PLACE/elsewhere/x.pt (generator)",
    f'{EDIT}generator = "../elsewhere/x.pt"': "load the model ../elsewhere/x.pt (generator)",
    f'{EDIT}denoiser = "local-dir:PLACE/elsewhere/model"': "(denoiser)",
    f'{EDIT}identity = "some-name"': "load the model some-name (identity)",
    f'{EDIT}[[loss]]\nkind = "clip"\nfile = "PLACE/elsewhere/me.png"': "(file)",
    f'{EDIT}[[loss]]\nkind = "clip"\nnever_heard = "x"': "read PLACE/cwd/x (never_heard)",
    f'{SCORE}images = ["a.png"]\nscorer = "hf-hub:owner/model"':
        "load the model hf-hub:owner/model",
    f'{SCORE}images = ["a.png"]\nscorer = "local-dir:~/model"': "load the model local-dir:~/model",
    f'{SCORE}images = ["a.png"]\nscorer = "local-dir:PLACE/sent/door/model"': "(scorer)",
    'task = "index"\nfolder = "PLACE/sent"\nindex = "PLACE/planted"':
        "write to PLACE/planted (index)",
    'task = "index"\nfolder = "PLACE/sent"\nindex = "PLACE/sent/planted"':
        "write to PLACE/sent/planted",
    'task = "index"\nfolder = "PLACE/sent"\nindex = "planted"':
        "write to PLACE/cwd/planted (index)",
    'task = "index"\nfolder = "PLACE/sent"\nindex = "i"\nmetadata = "~/x.csv"':
        "home/x.csv (metadata)",
    'task = "search"\nquery = "x"\nindex = "PLACE/i"\nfolder = "PLACE/sent"':
        "write to PLACE/i (index)",
    'task = "search"\nquery = "PLACE/home/me.png"\nindex = "PLACE/i"': "home/me.png (query)",
    'task = "search"\nquery = " PLACE/home/me.png\\n"\nindex = "PLACE/i"': "home/me.png (query)",
    'task = "classify"\nimages = ["PLACE/sent/beside.png"]\nlabel = ["a"]': "(cache)",
    'task = "classify"\nimages = ["x.png"]\nclasses = "PLACE/elsewhere/x.json"': "(classes)",
    'task = "probe"\nfolder = "PLACE/elsewhere"': "read PLACE/elsewhere (folder)",
    'task = "caption"\nimages = ["x"]\nplus = ["2*PLACE/home/me.png"]':
        "read PLACE/home/me.png (plus)",
    'task = "caption"\nimages = ["x"]\nlanguage = "local-dir:PLACE/elsewhere/model"': "(language)",
    'task = "generate"\nprompts = ["x"]\nguide_image = ["PLACE/home/me.png"]': "(guide_image)",
    'task = "generate"\nprompts = ["x"]\nprior = "PLACE/elsewhere/model"': "(prior)",
    'task = "vary"\nimages = ["PLACE/sent/beside.png"]\nto = "PLACE/home/me.png"': "(to)",
    'task = "train"\nobjective = "reader"\nsamples = 1': "train a model (reader)",
    'task = "train"\nobjective = "vae"\nwork = "PLACE/planted"': "write to PLACE/planted (work)",
    'task = "train"\nobjective = "x"\n[settings]\nsheets = "PLACE/planted"': "(sheets)",
}  # fmt: skip
WITHIN = [
    'task = "portraits"\ncount = 2',
    'task = "portraits"\nkit = "photo"\nout = "PLACE/planted"\nonline = true\nforce = true',
    f'{SCORE}images = ["PLACE/sent/beside.png", "PLACE/sent/sub/in.png"]',
    f'{SCORE}images = ["PLACE/sent/sub"]\nscorer = "clip"',
    f'{SCORE}images = ["PLACE/sent/sub/../beside.png"]\nscorer = "ViT-B-32/laion2b_s34b_b79k"',
    f'{EDIT}images = ["PLACE/sent/beside.png"]\nlandmarks = ["1,2,3,4,5,6,7,8"]\nstrength = "auto"',
    f'{EDIT}generator = "PLACE/sent/own.pt"',
    'task = "generate"\nprompts = ["/etc/passwd is only a text"]\nmethod = "gan"',
    'task = "caption"\nimages = ["PLACE/sent/sub"]\nplus = ["2*a hat"]\nminus = ["no/file"]',
]  # fmt: skip


def _files(place: Path) -> set[Path]:
    return {path for path in place.rglob("*") if "state" not in path.parts}


@pytest.mark.parametrize("text", BEYOND, ids=range(len(BEYOND)))
def test_beyond_its_folder_a_picture_needs_a_yes(
    place: Path, guided_cli: Callable, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    file = _sent(place / "sent" / "sent.png", text.replace("PLACE", str(place)))
    before = _files(place)
    for words in (("rerun", file), ("run", file), ("rerun", file, "--json")):
        said = guided_cli(*words)
        assert said.status == 2
        assert BEYOND[text].replace("PLACE", str(place)) in said.err
        assert "--trust" in said.err
        assert "Nothing was done" in said.err
        assert said.out == ""
    with pytest.raises(UsageError, match="--trust"):
        studio.rerun(file)
    assert _files(place) == before
    ran: list[Recipe] = []
    monkeypatch.setattr(rerunning, "run", lambda recipe, **_: ran.append(recipe))
    studio.rerun(file, trust=True)
    assert [recipe.task for recipe in ran] == [Recipe.loads(text).task]


@pytest.mark.parametrize("text", WITHIN, ids=range(len(WITHIN)))
def test_within_its_folder_a_picture_may_be_repeated(
    place: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    file = _sent(place / "sent" / "sent.png", text.replace("PLACE", str(place)))
    ran: list[Recipe] = []
    monkeypatch.setattr(rerunning, "run", lambda recipe, **_: ran.append(recipe))
    studio.rerun(file)
    assert studio.load_run(file).consent_requests == ()
    assert (ran[0].out, ran[0].online, ran[0].force) == (None, False, False)


def test_a_picture_never_names_a_recipes_file(place: Path) -> None:
    for trust in (False, True):
        file = _sent(place / "sent.png", 'task = "train"\nrecipe = "/dev/zero"\n')
        with pytest.raises(UsageError, match="names another recipe's file"):
            studio.rerun(file, trust=trust)


def test_a_folder_that_was_sent_is_data_as_well(place: Path, guided_cli: Callable) -> None:
    own = studio.run(Recipe.of({"task": "portraits", "count": 1, "size": 32})).result().folder
    assert own is not None
    shutil.copytree(own, place / "moved")
    assert guided_cli("rerun", place / "moved", "--json").status == 0
    text = f'{SCORE}images = ["{place}/home/me.png"]\n'
    (place / "moved" / "recipe.toml").write_text(text)
    assert guided_cli("rerun", place / "moved", "--json").status == 2
    record = json.loads((place / "moved" / "run.json").read_text())
    for signature in ("", "0" * 64, record["signature"], 7, None):
        (place / "moved" / "run.json").write_text(json.dumps({**record, "signature": signature}))
        assert studio.load_run(place / "moved").consent_requests


def test_ones_own_runs_are_repeated_without_a_question(place: Path, guided_cli: Callable) -> None:
    """Signed here: also after the picture was copied to another folder."""
    recipe = Recipe.loads(f'{SCORE}images = ["{place}/home/me.png"]\n')
    signature = signing.sign(recipe.dumps())
    file = _sent(place / "sent" / "mine.png", recipe.dumps(), signature=signature)
    assert studio.load_run(file).consent_requests == ()
    changed = recipe.dumps().replace("me.png", "you.png")
    forged = _sent(place / "sent" / "forged.png", changed, signature=signature)
    assert studio.load_run(forged).consent_requests
    made = studio.run(Recipe.of({"task": "portraits", "count": 1, "size": 32})).result()
    assert made.folder is not None
    (picture,) = made.folder.glob("*.png")
    assert signing.is_own(*_signed(picture))
    again = guided_cli("rerun", picture, "--json").answer
    (repeated,) = Path(again["folder"]).glob("*.png")
    assert repeated.read_bytes() == picture.read_bytes()


def _signed(picture: Path) -> tuple[str, str]:
    texts = lineage.read_texts(picture)
    return texts["guided.recipe"], json.loads(texts["guided.lineage"])["picture"]["signature"]


def test_the_key_is_ones_own_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "a"))
    assert not signing.is_own("text", "")
    assert not (tmp_path / "a").exists()  # to look makes none
    first = signing.sign("text")
    key = tmp_path / "a" / "guided" / "recipes.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_bytes()) == 32
    assert signing.sign("text") == first != signing.sign("texts")
    assert signing.is_own("text", first)
    assert not signing.is_own("texts", first)
    assert not signing.is_own("text", "é")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "b"))
    assert signing.sign("text") != first
    assert not signing.is_own("text", first)
    (tmp_path / "b" / "guided" / "recipes.key").write_bytes(b"")  # damaged: nothing is trusted
    assert signing.sign("text") == ""
    assert not signing.is_own("text", "")


@pytest.mark.parametrize("broken", ["no home", "a file", "a folder"])
def test_without_a_key_runs_go_on_and_nothing_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    if broken == "no home":
        monkeypatch.setattr(signing, "state_folder", lambda: None)
    elif broken == "a file":
        (tmp_path / "file").write_text("x")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    else:
        (tmp_path / "guided" / "recipes.key").mkdir(parents=True)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    made = studio.run(
        Recipe.of({"task": "portraits", "count": 1, "size": 32, "out": str(tmp_path / "o")})
    )
    assert made.result().folder == tmp_path / "o"
    assert json.loads((tmp_path / "o" / "run.json").read_text())["signature"] == ""
    assert not signing.is_own((tmp_path / "o" / "recipe.toml").read_text(), "")


def test_ten_processes_make_one_key(tmp_path: Path) -> None:
    code = "from guided import signing; print(signing.sign('x'))"
    jobs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                         env={"XDG_STATE_HOME": str(tmp_path)})
        for _ in range(10)
    ]  # fmt: skip
    assert len({job.communicate()[0] for job in jobs}) == 1
    assert [path.name for path in (tmp_path / "guided").iterdir()] == ["recipes.key"]


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_the_user_is_asked(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: bool
) -> None:
    file = _sent(place / "sent" / "sent.png", f'{SCORE}images = ["{place}/home/me.png"]\n')
    past, asked = studio.load_run(file), []

    def confirm(question: str, *, default: bool, abort: bool, err: bool) -> bool:
        asked.append((default, err))
        if abort and not answer:
            raise click.Abort
        return answer

    monkeypatch.setattr(click, "confirm", confirm)
    monkeypatch.setattr(runs, "sys", SimpleNamespace(
        stdin=SimpleNamespace(isatty=lambda: True), stderr=SimpleNamespace(isatty=lambda: True)
    ))  # fmt: skip
    if answer:
        assert runs._agreed(past, trust=False).task == "score"
    else:
        with pytest.raises(click.Abort):
            runs._agreed(past, trust=False)
    assert asked == [(False, True)]
    told = capsys.readouterr()
    assert f"read {place}/home/me.png (images)" in told.err
    assert "'score'" in told.err
    assert told.out == ""
    runs._agreed(past, trust=True)
    assert len(asked) == 1


# --------------------------------------------------------------------------- every key is declared


def _texts(annotation: Any) -> bool:
    """Whether a key of this type can hold a free text or a path."""
    if is_choice(annotation):
        return False
    return annotation in (str, Path, Any) or any(_texts(part) for part in get_args(annotation))


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, Any, str]]:
    for name, field in model.model_fields.items():
        yield name, field.annotation, field.description or ""
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _fields(part)


def _all_keys() -> Iterator[tuple[str, str, Any, str]]:
    for task in task_names():
        for key, annotation, told in _fields(task_options(task)):
            yield task, key, annotation, told
    for info in pkgutil.iter_modules(guided.losses.__path__):
        module = importlib.import_module(f"guided.losses.{info.name}")
        for kind in vars(module).values():
            if dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__:
                hints = get_type_hints(kind)
                for field in dataclasses.fields(kind):  # type: ignore[arg-type]
                    yield info.name, field.name, hints[field.name], ""
    own = [
        f"guided.training.{info.name}" for info in pkgutil.iter_modules(guided.training.__path__)
    ]
    modules = chain.from_iterable(objectives().values())
    for name in [*own, *(f"guided.{module}" for module in modules)]:
        module = importlib.import_module(name)
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                for key, annotation, told in _fields(kind):
                    yield name, key, annotation, told


def test_every_key_that_holds_texts_says_what_they_are() -> None:
    keys = list(_all_keys())
    assert len({owner for owner, *_ in keys}) > 20
    for owner, key, annotation, told in keys:
        if get_origin(annotation) is dict or not _texts(annotation):
            continue  # the keys of a table are judged one by one, unknown ones as paths
        assert key in KINDS, f"{owner}.{key} ({told}) is not declared in guided/recipe.py"
        holds_paths = "Path" in str(annotation)
        words = set(told.lower().replace(",", " ").replace(";", " ").split())
        is_module = key == "objective"
        if holds_paths or ({"file", "folder", "files"} & words and not is_module):
            assert KINDS[key] != "text", f"{owner}.{key}: {told}"


def test_a_key_that_nobody_declared_counts_as_a_path() -> None:
    class Options(TaskOptions):
        brand_new: str = ""
        choice: tuple[str, ...] = ()
        table: Mapping[str, Any] = {"deep": [{"er": "z"}]}

    options = Options(brand_new="x", choice=("y", ""))
    mentioned = Recipe("score", options).mentions()
    assert mentioned == [("brand_new", "read", "x"), ("choice", "read", "y"), ("er", "read", "z")]


def test_saved_recipes_have_absolute_paths(tmp_path: Path) -> None:
    for name in ("a.png", "w.pt", "clip", "hat"):
        (tmp_path / name).write_text("x")
    edit = Recipe.loads(
        'task = "edit"\nimages = ["a.png"]\ngenerator = "w.pt"\nscorer = "clip"\nprompt = ["hat"]\n'
        '[[loss]]\nkind = "clip"\nimage = "a.png"\ntext = "hat"\n'
    ).located(tmp_path).data()  # fmt: skip
    assert edit["images"] == [str(tmp_path / "a.png")]
    assert (edit["generator"], edit["scorer"]) == (str(tmp_path / "w.pt"), "clip")
    assert edit["prompt"] == ["hat"]
    assert {**edit["loss"][0], "weight": 1.0} == {
        "kind": "clip", "weight": 1.0, "image": str(tmp_path / "a.png"), "text": "hat",
    }  # fmt: skip
    search = 'task = "search"\nquery = "hat"\nindex = "new"\nimage = ["a.png"]\n'
    found = Recipe.loads(search).located(tmp_path).data()
    assert (found["query"], found["index"]) == ("hat", str(tmp_path / "new"))
    classify = Recipe.loads('task = "classify"\nimages = ["a.png"]\nlabel = ["x"]\n')
    assert classify.located(tmp_path).data()["cache"] == classify.data()["cache"]
