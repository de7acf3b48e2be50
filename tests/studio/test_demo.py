"""The demo: one page that needs nothing else, made without the network, quickly."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from guided.core.device import Device
from guided.errors import MissingWeights
from guided.judging.caption_parser import read_caption
from guided.judging.reader import Reader, Reading
from guided.nets.reader import ReaderNet
from guided.tasks import (
    _caption_kit,
    _demo_denoise,
    _demo_edit,
    _demo_generate,
    _report,
    demo,
)
from guided.tasks._edit_models import EditModels
from guided.tasks._generate_gan import open_job
from guided.tasks._generate_options import Options as GenerateOptions
from guided.tasks.base import Workbench
from guided.training.reading import CLASSES
from tests.diffusion import small_own
from tests.text_gan.tiny_text_gan import write_gan
from tests.tiny_clip import write_clip
from tests.tiny_edit import write_delta, write_inverter, write_models
from tests.tiny_language import write_language


@pytest.fixture
def untaught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader with random weights, so that the demo's path does not depend on what is shipped."""
    torch.manual_seed(0)
    net = ReaderNet(CLASSES, widths=(8, 8, 8), blocks=(1, 1, 1), head=4, features=16)
    monkeypatch.setattr(Reader, "load", lambda *_: Reader(net, Device("cpu"), "0123456789abcdef"))


@pytest.fixture(autouse=True)
def small_talk(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A tiny random language model, for the same reason."""
    folder = write_language(tmp_path_factory.mktemp("language"))
    named = f"local-dir:{folder}"
    load = _caption_kit.load_language
    monkeypatch.setattr(_caption_kit, "load_language", lambda _, *rest, **more: load(named, *rest))


@pytest.fixture(scope="module")
def edit_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("edits")
    return {
        **write_models(folder),
        "inverter": str(write_inverter(folder / "inverter.safetensors")),
        "delta": str(write_delta(folder / "delta.safetensors")),
    }


@pytest.fixture(autouse=True)
def small_edits(monkeypatch: pytest.MonkeyPatch, edit_files: dict[str, str]) -> None:
    """Tiny random models for edits, for the same reason."""
    monkeypatch.setattr(_demo_edit, "EditModels", lambda bench, _: EditModels(bench, edit_files))


@pytest.fixture(autouse=True)
def small_gan(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A tiny random text GAN that listens to the kit's CLIP."""
    file = write_gan(tmp_path_factory.mktemp("gan"), "clip", text=256)
    options = GenerateOptions(prompts=["a person"], method="gan", gan=str(file))
    monkeypatch.setattr(_demo_generate, "_opened", lambda bench: open_job(options, bench))


@pytest.fixture(autouse=True)
def small_noise(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A tiny random diffusion model that listens to a tiny CLIP."""
    folder = tmp_path_factory.mktemp("noise")
    bundle = write_clip(folder / "clip")
    own = small_own.write_autoencoder(folder / "vae")
    denoiser = small_own.write_denoiser(folder / "denoiser", own, bundle)
    kit = {"denoiser": f"local-dir:{denoiser}", "scorer": f"local-dir:{bundle}"}
    bench = Workbench(device_name="cpu", kit=kit)
    opened, varying = _demo_denoise._opened, _demo_denoise._varying
    monkeypatch.setattr(_demo_denoise, "_opened", lambda _, guide: opened(bench, guide))
    monkeypatch.setattr(_demo_denoise, "_varying", lambda _: varying(bench))


@pytest.fixture
def no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> Reader:
        raise MissingWeights("There is no model called 'reader' <here>.", hint="Get it.")

    monkeypatch.setattr(Reader, "load", load)


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


def _demo(cli: Callable, folder: Path) -> dict:
    said = cli("demo", "--count", 8, "--exam", 24, "--out", folder, "--json")
    assert said.status == 0, said.err
    return said.answer


def test_the_page_needs_nothing_else(guided_cli: Callable, tmp_path: Path, untaught: None) -> None:
    began = time.process_time()
    answer = _demo(guided_cli, tmp_path)
    assert time.process_time() - began < 60
    page = _parsed(answer["report"])
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe", "a", "object"} & set(page.tags)
    assert all(page.alts)
    text = Path(answer["report"]).read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text
    figures = 8 + 1 + 8 + 13 + 3 * 6 + 2 + (4 + 5) + (3 * 5 + 6)
    figures += (_demo_denoise.DRAFTS + 2 * _demo_denoise.PEOPLE) + (1 + 2 * _demo_denoise.WAYS)
    assert page.tags.count("figure") == figures
    assert [chapter["left_out"] for chapter in answer["chapters"]] == [None] * 9
    assert 0 <= answer["scores"]["reader_accuracy"] <= 1
    assert Path(answer["sheet"]).is_file()
    assert "reader (0123456789ab)" in text


def test_progress_is_shown(guided_cli: Callable, tmp_path: Path, untaught: None) -> None:
    said = guided_cli("demo", "--count", 4, "--exam", 8, "--out", tmp_path)
    labels = ("the world", "the reader looks", "the reader's exam", "one change a time", "search")
    for label in labels:
        assert f"{label} [####################]" in said.err
    assert f"report: {tmp_path / 'report.html'}" in said.out


def test_missing_models_leave_chapters_out(
    guided_cli: Callable, tmp_path: Path, no_reader: None
) -> None:
    answer = _demo(guided_cli, tmp_path)
    assert [bool(chapter["left_out"]) for chapter in answer["chapters"]] == [
        False,
        True,
        True,
        False,
        False,
        False,
        True,
        True,
        False,
    ]
    text = Path(answer["report"]).read_text(encoding="utf-8")
    assert "Left out: There is no model called &#x27;reader&#x27; &lt;here&gt;. Get it." in text


def test_without_a_language_model_there_is_no_caption(
    guided_cli: Callable, tmp_path: Path, untaught: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise MissingWeights("There is no model called 'gpt2-portraits'.", hint="Get it.")

    monkeypatch.setattr(_caption_kit, "load_language", load)
    answer = _demo(guided_cli, tmp_path)
    left_out = [bool(chapter["left_out"]) for chapter in answer["chapters"]]
    assert left_out == [place == 4 for place in range(9)]


def test_a_caption_grows_word_by_word(guided_cli: Callable, tmp_path: Path, untaught: None) -> None:
    answer = _demo(guided_cli, tmp_path)
    text = Path(answer["report"]).read_text(encoding="utf-8")
    told = re.findall(r"<li>(a portrait of[^<]*)</li>", text)
    assert 2 <= len(told) <= 6
    assert len(set(told)) == len(told)
    assert 0 <= answer["scores"]["caption_precision"] <= 1


def _edited(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> _report.Section:
    monkeypatch.setattr(_demo_edit, "EditModels", lambda bench, _: EditModels(bench, files))
    steps = _demo_edit.the_edit(Workbench(), demo.Stage(demo.Options(), Workbench()).hero)
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
    stage = demo.Stage(demo.Options(), Workbench())

    class Seer:
        def read(self, images: torch.Tensor) -> list[Reading]:
            seen = {**stage.hero.attributes, "hair_color": "pink", "glasses": "none"}
            return [Reading(seen, {}, 0.5) for _ in images]

    pictures = [Image.new("RGB", (8, 8))] * 2
    found = _demo_generate.fulfilled(Seer(), pictures, "a person with pink hair and round glasses")
    assert found == [0.5, 0.5]
    for prompt in _demo_generate.PROMPTS:
        assert len(read_caption(prompt).claims) >= 3


def test_without_a_gan_there_are_no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(MissingWeights, match="The kit names no text_gan"):
        next(_demo_generate.the_gan(Workbench(kit={}), Reader.__new__(Reader)))


def test_every_change_changes_one_visible_attribute() -> None:
    from guided.portraits import KEYS

    for seed in range(5):
        stage = demo.Stage(demo.Options(), Workbench(seed=seed))
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
