"""The judge's figures of a diffusion model: closed cases, and a tiny model end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guided.core.run import drain
from guided.generators.diffusion import Diffusion
from guided.generators.diffusion.portrait_folder import load_own
from guided.judging.card import write_metrics
from guided.scorers.clip import ClipScorer
from guided.worlds.portraits import KEYS, sample
from guided.worlds.portraits.judging.diffusion_figures import (
    EXACT,
    GuidanceVariant,
    Sampler,
    cosines,
    guide,
    mended,
    redrawn_figures,
    variants,
    variants_table,
)
from guided.worlds.portraits.judging.runs import diffusion
from guided.worlds.portraits.judging.text_image_figures import MetricRow, PromptSet
from guided.worlds.portraits.judging.text_image_sheet import labeled, lines
from tests.helpers import small_own
from tests.helpers.knowing_reader import Knowing
from tests.helpers.tiny_clip import write_clip

SIZE, COUNT = 32, 6
TEXTS = ("a photo of the red cat", "a dog with a green hat on grass", "a cat")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> ClipScorer:
    return small_own.clip(bundle)


@pytest.fixture(scope="module")
def sampler(
    bundle: Path,
    scorer: ClipScorer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Sampler:
    root = tmp_path_factory.mktemp("judged")
    own = small_own.write_autoencoder(root / "vae")
    model: Diffusion = load_own(small_own.write_denoiser(root / "denoiser", own, bundle), scorer)
    return Sampler(model, steps=3, cfg=2.0)


def test_what_comes_back_whole_reaches_the_ceiling() -> None:
    people = [sample(8_700_000 + i, "val") for i in range(COUNT)]
    reader: Any = Knowing(people)
    whole = redrawn_figures(lambda images: images, reader, "val", COUNT, SIZE)
    assert whole["l1"].value == 0 < whole["l1"].floor
    assert all(row.value == row.ceiling == 1 for name, row in whole.items() if name != "l1")
    lost = redrawn_figures(torch.zeros_like, reader, "val", COUNT, SIZE)
    assert lost["kept"].value < 0.7
    assert lost["kept_worst"].value == min(
        row.value for name, row in lost.items() if name.startswith("kept_") and name[5:] in KEYS
    )


def test_mending_is_measured_on_what_was_wrong() -> None:
    asked = PromptSet.of("val", COUNT, size=SIZE)
    reader: Any = Knowing(asked.people)

    def right(texts: Any, seeds: Any) -> Tensor:
        rows = [[said.text for said in asked.said].index(text) for text in texts]
        return asked.images[rows]

    def half(texts: Any, seeds: Any) -> Tensor:
        images = right(texts, seeds).clone()
        images[::2] = 0
        return images

    perfect: Any = right
    some: Any = half
    assert mended(perfect, perfect, reader, "val", COUNT, SIZE)["wrong"].value == 0
    found = mended(some, perfect, reader, "val", COUNT, SIZE)
    assert 0 < found["wrong"].value <= 0.5
    assert found["mended"].value == found["mended"].ceiling == 1
    assert found["mended_before"].value < 1
    assert found["mended"].floor < 1


def test_every_way_is_there_and_the_exact_one_comes_first() -> None:
    assert variants()[0] == EXACT
    assert len(set(variants())) == 8
    assert len(variants(latent=False)) == 6
    assert str(GuidanceVariant("stop", "tiny")) == "stop, tiny"


def test_gradients_are_compared_without_being_followed(
    sampler: Sampler, scorer: ClipScorer
) -> None:
    guides = {variant: guide(variant, scorer) for variant in variants(latent=False)}
    found = cosines(sampler, guides, TEXTS, range(3))
    assert found[EXACT] == pytest.approx(1, abs=1e-5)
    assert all(-1 <= value <= 1 for value in found.values())
    assert len({round(value, 4) for value in found.values()}) == 6
    alike = cosines(sampler, {EXACT: guides[EXACT]}, TEXTS, range(3))
    assert alike[EXACT] == pytest.approx(1, abs=1e-5)
    plain = drain(sampler.run(TEXTS, range(3)).steps())
    assert torch.equal(plain, sampler.latents(TEXTS, range(3)))


def test_the_table_of_ways(sampler: Sampler, scorer: ClipScorer) -> None:
    guides = {
        variant: guide(variant, scorer, scale=0.3)
        for variant in (EXACT, GuidanceVariant("stop", "preview"))
    }
    reader: Any = Knowing([sample(0, "val")])
    base, table = variants_table(sampler, guides, reader, scorer, "val", 3, SIZE)
    assert 0 <= base.accuracy <= 1
    assert list(table) == list(guides)
    for row in table.values():
        assert row.cost > 0
        assert row.error > 0
        assert row.gain != 0
        assert -1 <= row.cosine <= 1


def test_figures_go_onto_a_card(tmp_path: Path) -> None:
    rows = {"kept": MetricRow(0.98765432, 0.5, 1.0)}
    assert "new_kept" in lines("new", rows)
    assert "against" in lines("new", rows, {"kept": MetricRow(0.9, 0, 1)})
    card = tmp_path / "card.toml"
    write_metrics(card, labeled("new", rows))
    assert not card.exists()
    card.write_text('name = "x"\n[metrics.old]\nvalue = 1.0\n', "utf-8")
    write_metrics(card, labeled("new", rows))
    text = card.read_text("utf-8")
    assert "0.98765" in text
    assert "old" in text


def test_the_script_judges_an_autoencoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = small_own.write_autoencoder(tmp_path / "vae")
    words = ["vae", "--vae", str(own), "--count", "4", "--split", "new", "--dry"]
    assert diffusion.main(words) == 0
    shown = capsys.readouterr().out
    assert "new_kept_worst" in shown
    assert "new_tiny_kept_eyes" in shown
    with pytest.raises(SystemExit):
        diffusion.main(["vea"])
