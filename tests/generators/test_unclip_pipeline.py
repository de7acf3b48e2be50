"""Both stages: the prior, its best of several, the pipeline saved and loaded, the verb."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guided.core.run import drain
from guided.core.seeds import Seeds
from guided.errors import CannotDo, CorruptWeights, ShapeError, UnsafeWeights, UsageError
from guided.generators.diffusion import Diffusion, load_diffusion
from guided.generators.diffusion.portrait_folder import load_own
from guided.generators.unclip import load_prior, load_unclip, with_prior
from guided.guidance.prior_sampling import sample_prior
from guided.scorers.clip import ClipScorer
from guided.tasks import generate
from guided.tasks.base import TaskContext
from tests.helpers import small_unclip, unclip_models
from tests.helpers.small_models import write_folder

# Fixtures.
bundle = unclip_models.bundle
scorer = unclip_models.scorer
denoiser = unclip_models.denoiser
prior = unclip_models.prior


TEXTS = ["a photo of the red cat", "a dog with a green hat on grass"]


@pytest.fixture(scope="module")
def model(denoiser: Path, prior: Path, scorer: ClipScorer) -> Diffusion:
    return with_prior(load_own(denoiser, scorer), load_prior(str(prior), scorer.fingerprint))


def imagined(model: Diffusion, rows: slice = slice(0, 2), **more: Any) -> Tensor:
    cfg = more.get("cfg", 1.0)
    bound = model.pipe.condition(TEXTS[rows], both=cfg > 1)
    wanted = bound.words.pooled[-len(TEXTS[rows]) :]
    return drain(sample_prior(bound, wanted, Seeds.of(0, 2)[rows], 4, **more))


def test_the_prior_takes_what_it_is_told_and_reads_no_padding() -> None:
    net = small_unclip.prior()
    stream = torch.Generator().manual_seed(0)
    noisy, states = (
        torch.randn(2, 24, generator=stream),
        torch.randn(2, 5, 32, generator=stream),
    )
    mask = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    times, pooled = torch.tensor([100, 700]), small_unclip.unit()
    with torch.no_grad():
        plain = net(noisy, times, states, mask, pooled)
        unread = states.clone()
        unread[0, 3:] += 5
        torch.testing.assert_close(net(noisy, times, unread, mask, pooled), plain)
        longer = torch.cat([states, torch.ones(2, 20, 32)], 1)
        read = torch.cat([mask, torch.zeros(2, 20)], 1)
        torch.testing.assert_close(net(noisy, times, longer, read, pooled), plain)
        for other in (
            net(noisy + 1, times, states, mask, pooled),
            net(noisy, times + 90, states, mask, pooled),
            net(noisy, times, states.flip(0), mask.flip(0), pooled),
            net(noisy, times, states, mask, pooled.flip(0)),
        ):  # fmt: skip
            assert float((other - plain).abs().amax(1).min()) > 1e-4
    torch.testing.assert_close(net.denormalize(net.normalize(pooled)), pooled, atol=1e-5, rtol=1e-4)


def test_embeddings_are_unit_repeatable_and_their_own_rows(model: Diffusion) -> None:
    found = imagined(model, tries=2, cfg=2.0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    assert torch.equal(found, imagined(model, tries=2, cfg=2.0))
    alone = imagined(model, slice(1, 2), tries=2, cfg=2.0)
    torch.testing.assert_close(alone, found[1:], atol=1e-5, rtol=1e-4)


def test_the_best_of_several_is_never_further_from_the_words(model: Diffusion) -> None:
    wanted = model.pipe.condition(TEXTS).words.pooled
    cosines = [(imagined(model, tries=tries) * wanted).sum(1) for tries in (1, 2, 4, 8)]
    for fewer, more in pairwise(cosines):
        assert bool((more >= fewer).all())
    assert float((cosines[-1] - cosines[0]).min()) > 0
    with pytest.raises(UsageError, match="tries must be 1"):
        imagined(model, tries=0)
    with pytest.raises(ShapeError, match="seeds"):
        next(sample_prior(model.pipe.condition(TEXTS), wanted, Seeds.of(0, 1)))


def test_guidance_of_the_prior_is_the_usual_combination(model: Diffusion) -> None:
    both = model.pipe.condition(TEXTS, both=True)
    plain, empty = model.pipe.condition(TEXTS), model.pipe.condition(["", ""])
    noise = torch.randn(2, 24, generator=torch.Generator().manual_seed(0))
    found = both.predict(torch.cat([noise, noise]), 500)
    torch.testing.assert_close(found[2:], plain.predict(noise, 500), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[:2], empty.predict(noise, 500), atol=1e-5, rtol=1e-4)


def test_saved_whole_it_loads_to_the_same_bits(
    model: Diffusion, denoiser: Path, prior: Path, bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "whole"
    model.pipe.save_pretrained(folder)
    again = load_unclip(folder)
    assert torch.equal(imagined(again, tries=2), imagined(model, tries=2))
    assert again.pipe.config.scorer_sha256 == model.pipe.config.scorer_sha256 != ""
    shared = {"steps": 2, "cfg": 2.0, "method": "unclip", "prompts": [TEXTS[0]], "count": 2}
    whole = pictures(denoiser=f"local-dir:{folder}", **shared)
    apart = pictures(
        denoiser=f"local-dir:{denoiser}", prior=str(prior), scorer=f"local-dir:{bundle}", **shared
    )
    assert [each.tobytes() for each in whole] == [each.tobytes() for each in apart]
    assert whole[0].tobytes() != whole[1].tobytes()
    assert load_diffusion(folder).pipe.family.name == "portrait"
    table = json.loads((folder / "model_index.json").read_text())
    table["prior"] = ["os", "system"]
    (folder / "model_index.json").write_text(json.dumps(table))
    with pytest.raises(UnsafeWeights, match=r"os\.system"):
        load_unclip(folder)


def pictures(**options: Any) -> list[Any]:
    run = generate.run(generate.Options(**options), TaskContext(device_name="cpu"))
    while True:
        try:
            next(run)
        except StopIteration as end:
            return [entry["image"].image for entry in end.value.answer["results"]]


def test_the_verb_streams_both_stages(denoiser: Path, prior: Path, bundle: Path) -> None:
    options = generate.Options(
        prompts=TEXTS, method="unclip", denoiser=f"local-dir:{denoiser}", prior=str(prior),
        scorer=f"local-dir:{bundle}", steps=2, prior_steps=3, tries=2, guide=["prompt"], every=1,
    )  # fmt: skip
    assert generate.needs(options) == ("denoiser", "scorer", "prior")
    ctx = TaskContext(device_name="cpu")
    run, labels = generate.run(options, ctx), []
    while True:
        try:
            labels.append(next(run).label)
        except StopIteration as end:
            answer = end.value.answer
            break
    assert labels == ["imagine"] * 6 + ["denoise"] * 2
    assert [entry["prompt"] for entry in answer["results"]] == TEXTS
    assert all(-1 <= entry["cosine"] <= 1 for entry in answer["results"])


def test_another_clip_is_refused_by_its_hash(
    denoiser: Path, scorer: ClipScorer, bundle: Path, tmp_path: Path
) -> None:
    strange = small_unclip.write_prior(tmp_path / "strange", "0" * 64)
    with pytest.raises(CorruptWeights, match="another CLIP"):
        load_prior(str(strange), scorer.fingerprint)
    with pytest.raises(CorruptWeights, match="another CLIP"):
        pictures(prompts=TEXTS, method="unclip", denoiser=f"local-dir:{denoiser}",
                 prior=str(strange), scorer=f"local-dir:{bundle}")  # fmt: skip
    (strange / "config.json").write_text("[]")
    with pytest.raises(CorruptWeights, match="does not fit"):
        load_prior(str(strange), scorer.fingerprint)


def test_a_model_that_takes_no_embeddings_is_refused(prior: Path, tmp_path: Path) -> None:
    folder = write_folder("pixart", tmp_path)
    table = json.loads((prior / "config.json").read_text())
    own = load_prior(str(prior), table["scorer_sha256"])
    with pytest.raises(CannotDo, match="takes no embeddings"):
        with_prior(load_diffusion(folder), own)
    with pytest.raises(CannotDo, match="No prior is named"):
        pictures(prompts=["a"], method="unclip", denoiser=f"local-dir:{folder}")
