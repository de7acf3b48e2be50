"""The demo: one page that needs nothing else, made without the network, quickly."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from guided.cli import main
from guided.core.device import Device
from guided.errors import MissingWeights
from guided.language import load as speech
from guided.nets.reader import ReaderNet
from guided.tasks import _report
from guided.tasks._generate_gan import open_job
from guided.tasks._generate_options import Options as GenerateOptions
from guided.tasks.base import TaskContext
from guided.worlds.portraits.judging.caption_parser import read_caption
from guided.worlds.portraits.judging.reader import Reader, ReaderOutput
from guided.worlds.portraits.tasks import _demo_denoise, _demo_edit, _demo_generate, demo
from guided.worlds.portraits.training.reading import CLASSES
from tests.helpers import small_own
from tests.helpers.tiny_clip import write_clip
from tests.helpers.tiny_edit import write_delta, write_inverter, write_models
from tests.helpers.tiny_language import write_language
from tests.helpers.tiny_text_gan import write_gan

_OPEN_GAN = _demo_generate._opened


@pytest.fixture(scope="module")
def patches() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as context:
        yield context


@pytest.fixture(scope="module")
def edit_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("edits")
    return {
        **write_models(folder),
        "inverter": str(write_inverter(folder / "inverter.safetensors")),
        "delta": str(write_delta(folder / "delta.safetensors")),
    }


@pytest.fixture(scope="module", autouse=True)
def small_models(
    patches: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    edit_files: dict[str, str],
) -> None:
    """Tiny random models of all roles, so that the demo's path does not depend on what ships."""
    torch.manual_seed(0)
    net = ReaderNet(CLASSES, widths=(8, 8, 8), blocks=(1, 1, 1), head=4, features=16)
    reader = Reader(net, Device("cpu"), "0123456789abcdef")
    patches.setattr(Reader, "load", lambda *_: reader)
    language = f"local-dir:{write_language(tmp_path_factory.mktemp('language'))}"
    load = speech.load_language
    patches.setattr(speech, "load_language", lambda _, *rest, **more: load(language, *rest))
    patches.setattr(_demo_edit, "_models", lambda ctx: ctx.models.choosing(edit_files))
    gan = write_gan(tmp_path_factory.mktemp("gan"), "clip", text=256)
    options = GenerateOptions(prompts=["a person"], method="gan", gan=str(gan))
    patches.setattr(_demo_generate, "_opened", lambda ctx: open_job(options, ctx))
    folder = tmp_path_factory.mktemp("noise")
    bundle = write_clip(folder / "clip")
    own = small_own.write_autoencoder(folder / "vae")
    denoiser = small_own.write_denoiser(folder / "denoiser", own, bundle)
    kit = {"denoiser": f"local-dir:{denoiser}", "scorer": f"local-dir:{bundle}"}
    ctx = TaskContext(device_name="cpu", kit=kit)
    opened, varying = _demo_denoise._opened, _demo_denoise._varying
    patches.setattr(_demo_denoise, "_opened", lambda _, guide: opened(ctx, guide))
    patches.setattr(_demo_denoise, "_varying", lambda _: varying(ctx))


class _Page(HTMLParser):
    """Counts what a page holds and notes every address it names."""

    void = frozenset({"meta", "img", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.alts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.void:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "srcset", "poster", "data"):
                self.addresses.append(value or "")
            if name == "alt":
                self.alts.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _parsed(path: str) -> _Page:
    page = _Page()
    page.feed(Path(path).read_text(encoding="utf-8"))
    assert page.open == []
    return page


@dataclass(frozen=True)
class Demo:
    """What one run of the demo answered, and what it showed while it ran."""

    answer: dict[str, Any]
    shown: str
    seconds: float

    @property
    def text(self) -> str:
        return Path(self.answer["report"]).read_text(encoding="utf-8")


def _demo(folder: Path) -> Demo:
    words = ["demo", "--count", "8", "--exam", "24", "--out", str(folder), "--json"]
    out, shown = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    began = time.process_time()
    with redirect_stdout(out), redirect_stderr(shown):
        assert main(words) == 0, shown.getvalue()
    out.seek(0)
    return Demo(json.loads(out.read()), shown.getvalue(), time.process_time() - began)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, small_models: None) -> Demo:
    """One run of the demo with a model of every role."""
    return _demo(tmp_path_factory.mktemp("whole"))


def test_the_page_needs_nothing_else(whole: Demo) -> None:
    assert whole.seconds < 60
    page = _parsed(whole.answer["report"])
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe", "a", "object"} & set(page.tags)
    assert all(page.alts)
    assert not re.search(r"https?:|@import|url\(", whole.text)
    assert "prefers-color-scheme: dark" in whole.text
    figures = 8 + 1 + 8 + 13 + 3 * 6 + 2 + (4 + 5) + (3 * 5 + 6)
    figures += (_demo_denoise.DRAFTS + 2 * _demo_denoise.PEOPLE) + (1 + 2 * _demo_denoise.WAYS)
    assert page.tags.count("figure") == figures
    assert [chapter["left_out"] for chapter in whole.answer["chapters"]] == [None] * 9
    assert 0 <= whole.answer["scores"]["reader_accuracy"] <= 1
    assert Path(whole.answer["sheet"]).is_file()
    assert "reader (0123456789ab)" in whole.text


def test_the_folder_holds_the_page_and_the_sheet_and_how_they_were_made(whole: Demo) -> None:
    names = {path.name for path in Path(whole.answer["report"]).parent.iterdir()}
    assert names == {"report.html", "sheet.png", "recipe.toml", "run.json", "steps.jsonl"}


def test_progress_is_shown(whole: Demo) -> None:
    labels = ("the world", "the reader looks", "the reader's exam", "one change a time", "search")
    for label in labels:
        assert f"{label} [####################]" in whole.shown


@pytest.mark.soak
def test_missing_models_leave_chapters_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_reader(*_: object) -> Reader:
        raise MissingWeights("There is no model called 'reader' <here>.", hint="Get it.")

    def no_language(*_: object, **__: object) -> None:
        raise MissingWeights("There is no model called 'gpt2-portraits'.", hint="Get it.")

    monkeypatch.setattr(Reader, "load", no_reader)
    monkeypatch.setattr(speech, "load_language", no_language)
    demo = _demo(tmp_path)
    left_out = [place for place, each in enumerate(demo.answer["chapters"]) if each["left_out"]]
    assert left_out == [1, 2, 4, 6, 7]
    assert (
        "Left out: There is no model called &#x27;reader&#x27; &lt;here&gt;. Get it." in demo.text
    )
    assert "gpt2-portraits" in demo.answer["chapters"][4]["left_out"]


def test_a_caption_grows_word_by_word(whole: Demo) -> None:
    drafts = re.findall(r"<li>(a portrait of[^<]*)</li>", whole.text)
    assert 2 <= len(drafts) <= 6
    assert len(set(drafts)) == len(drafts)
    assert 0 <= whole.answer["scores"]["caption_precision"] <= 1


def _edited(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> _report.Section:
    monkeypatch.setattr(_demo_edit, "_models", lambda ctx: ctx.models.choosing(files))
    steps = _demo_edit.the_edit(TaskContext(), demo.Stage(demo.Options(), TaskContext()).hero)
    while True:
        try:
            assert next(steps).label == "an edit"
        except StopIteration as end:
            return end.value


def test_a_portrait_is_edited_with_what_is_here(
    monkeypatch: pytest.MonkeyPatch, edit_files: dict[str, str]
) -> None:
    quick = _edited(monkeypatch, edit_files)
    assert "the method refine moves it" in quick.body
    assert quick.body.count("<figure>") == 4 + 5
    (chosen,) = re.findall(r"at the strength ([\d.]+), the least", quick.body)
    shown = re.findall(r"<figcaption>strength (-?[\d.]+)<", quick.body)
    wanted = [part * float(chosen) for part in _demo_edit.SWEEP]
    assert [float(each) for each in shown] == pytest.approx(wanted, rel=0.05)
    assert -1 <= quick.scores["edit_identity"] <= 1
    monkeypatch.setattr(_demo_edit, "STEPS", 2)
    nowhere = str(Path(edit_files["delta"]).with_name("none.safetensors"))
    searched = _edited(monkeypatch, {**edit_files, "delta": nowhere, "identity": nowhere})
    assert "the method optimise moves it" in searched.body
    assert set(searched.scores) == {"edit_clip_gain"}


def test_without_a_generator_there_is_no_edit(
    monkeypatch: pytest.MonkeyPatch, edit_files: dict[str, str]
) -> None:
    with pytest.raises(MissingWeights, match=r"There is no generator file .*none\.pt"):
        _edited(monkeypatch, {**edit_files, "generator": "/none.pt"})
    with pytest.raises(MissingWeights, match="The kit names no inverter"):
        _edited(monkeypatch, {k: v for k, v in edit_files.items() if k != "inverter"})


def test_prompts_of_the_demo_are_claims_that_can_be_read() -> None:
    stage = demo.Stage(demo.Options(), TaskContext())

    class Seer:
        def read(self, images: torch.Tensor) -> list[ReaderOutput]:
            seen = {**stage.hero.attributes, "hair_color": "pink", "glasses": "none"}
            return [ReaderOutput(seen, {}, 0.5) for _ in images]

    pictures = [Image.new("RGB", (8, 8))] * 2
    found = _demo_generate.fulfilled(Seer(), pictures, "a person with pink hair and round glasses")
    assert found == [0.5, 0.5]
    for prompt in _demo_generate.PROMPTS:
        assert len(read_caption(prompt).claims) >= 3


def test_without_a_gan_there_are_no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_demo_generate, "_opened", _OPEN_GAN)
    with pytest.raises(MissingWeights, match="The kit names no text_gan"):
        next(_demo_generate.the_gan(TaskContext(kit={}), Reader.__new__(Reader)))


def test_every_change_changes_one_visible_attribute() -> None:
    from guided.worlds.portraits import KEYS

    for seed in range(5):
        stage = demo.Stage(demo.Options(), TaskContext(seed=seed))
        for key in KEYS:
            changed = demo._changed(stage.hero, key, seed)
            assert changed.visible()[key]
            differ = {k for k in KEYS if changed.attributes[k] != stage.hero.attributes[k]}
            assert key in differ
            assert differ <= {key, "hat_color"}


def test_nothing_in_a_text_is_markup() -> None:
    evil = '"><script>alert(1)</script>'
    section = _report.Section(evil, _report.paragraph(evil) + _report.points([evil]), {})
    page = _report.page(evil, evil, [section], "")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 6
    bars = _report.bars({evil: 3.0, "x": -1.0})
    assert "<script" not in bars
    assert "width: 100.0%" in bars
    assert "width: 0.0%" in bars
