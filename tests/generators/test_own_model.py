"""The shipped kind of diffusion model: what it is told, how it is put together, saved and asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guided.core.objective import Objective
from guided.core.run import drain
from guided.core.seeds import Seeds
from guided.errors import CannotDo, CorruptWeights, MissingWeights, ShapeError
from guided.generators.diffusion import Diffusion, load_diffusion
from guided.generators.diffusion.portrait import CFG
from guided.generators.diffusion.portrait_folder import load_own, parts_of
from guided.generators.diffusion.text import encode_text, text_encoder_of
from guided.guidance.denoise import Denoising
from guided.guidance.guided_denoiser import Guidance
from guided.losses.clip import Clip
from guided.scorers.clip import ClipScorer
from guided.tasks import generate
from guided.tasks._generate_diffusion import DiffusionJob
from guided.tasks.base import TaskContext
from guided.zoo.kits import load_kit
from tests.helpers import small_own
from tests.helpers.tiny_clip import write_clip

TEXTS = ("a photo of the red cat", "a dog with a green hat on grass", "")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> ClipScorer:
    return small_own.clip(bundle)


@pytest.fixture(scope="module")
def folder(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own")
    own = small_own.write_autoencoder(root / "vae")
    return small_own.write_denoiser(root / "denoiser", own, bundle)


@pytest.fixture(scope="module")
def model(folder: Path, scorer: ClipScorer) -> Diffusion:
    return load_own(folder, scorer)


def unit(count: int = 2, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, 24, generator=stream), dim=1)


def latents(
    model: Diffusion,
    guidance: Guidance | None = None,
    rows: slice = slice(0, 2),
    image: Tensor | None = None,
    scheduler: str = "",
) -> Tensor:
    seeds = Seeds.of(0, 2)[rows]
    bound = model.bound(TEXTS[:2][rows], cfg=3.0, image=image)
    noise = model.start(seeds)["noise"]
    loop = Denoising(bound, model.scheduler(scheduler), noise, seeds, 4, 3.0, guidance)
    return drain(loop.steps())


def made(model: Diffusion, guidance: Guidance | None = None, **more: Any) -> Tensor:
    with torch.no_grad():
        return model.render({"x0": latents(model, guidance, **more)})


# --------------------------------------------------------------------------- words


def test_words_pool_to_the_clips_own_embeddings(scorer: ClipScorer) -> None:
    tokens = scorer.texts.tokenizer.tokenizer
    encoder = text_encoder_of(scorer.model, int(tokens.eos_token_id))
    words = encode_text(encoder, tokens, [*TEXTS, "a   cat \n on grass", "cat " * 60])
    expected = scorer.embed_texts([*TEXTS, "a cat on grass", "cat " * 60])
    torch.testing.assert_close(words.pooled, expected, atol=1e-5, rtol=1e-5)
    assert words.states.shape[:2] == words.mask.shape
    assert words.states.shape[1] <= 24
    short = encode_text(encoder, tokens, TEXTS[:1])
    length = int(short.mask.sum())
    assert length == short.states.shape[1]
    torch.testing.assert_close(words.states[:1, :length], short.states, atol=1e-5, rtol=1e-5)


def test_a_tower_of_another_kind_is_refused() -> None:
    with pytest.raises(CannotDo, match="token by token"):
        text_encoder_of(torch.nn.Linear(2, 2), 2)


# --------------------------------------------------------------------------- the net


def test_everything_that_is_told_matters_and_what_is_not_shown_does_not() -> None:
    net = small_own.denoiser()
    stream = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 6, 8, 8, generator=stream)
    states = torch.randn(2, 5, 32, generator=stream)
    mask = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    times = torch.tensor([100, 700])
    pooled, image = unit(seed=1), unit(seed=2)
    with torch.no_grad():
        plain = net(noisy, times, states, mask, pooled)
        assert plain.shape == noisy.shape
        unread = states.clone()
        unread[0, 3:] += 5
        torch.testing.assert_close(net(noisy, times, unread, mask, pooled), plain)
        hidden = net(noisy, times, states, mask, pooled, image, torch.tensor([1.0, 0.0]))
        torch.testing.assert_close(hidden[1], plain[1], atol=1e-5, rtol=1e-5)
        shown = net(noisy, times, states, mask, pooled, image)
        torch.testing.assert_close(hidden[0], shown[0], atol=1e-5, rtol=1e-5)
        for other in (
            net(noisy, times + 50, states, mask, pooled), net(noisy, times, states, mask, image),
            net(noisy, times, states.flip(0), mask.flip(0), pooled), shown,
        ):  # fmt: skip
            assert float((other - plain).abs().amax((1, 2, 3)).min()) > 1e-3


def test_what_is_hidden_stays_hidden_however_sharp_attention_is() -> None:
    net = small_own.denoiser()
    stream = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 6, 8, 8, generator=stream)
    states = torch.randn(2, 5, 32, generator=stream)
    mask = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    told = (noisy, torch.tensor([100, 700]), states, mask, unit(seed=1))
    hidden = torch.tensor([0.0, 1.0])
    layers = [layer for b in net.net.transformer_blocks for layer in (b.attn1, b.attn2)]
    with torch.no_grad():
        net.image_words.weight.mul_(100)
        for layer in layers:  # products of queries and keys that no norm bounded were 1e6
            layer.to_q.weight.mul_(1000)
            layer.to_k.weight.mul_(1000)
        one, two = (net(*told, unit(seed=seed), hidden) for seed in (2, 3))
        assert torch.equal(one[0], two[0])
        assert float((one[1] - two[1]).abs().max()) > 1e-4
        unread = states.clone()
        unread[0, 3:] += 5
        other = net(*told[:2], unread, *told[3:], unit(seed=2), hidden)
        torch.testing.assert_close(other, one)
        for layer in layers:  # nor by norms that have grown
            layer.norm_q.weight.mul_(100)
            layer.norm_k.weight.mul_(100)
        one, two = (net(*told, unit(seed=seed), hidden) for seed in (2, 3))
        assert torch.equal(one[0], two[0])


def test_attention_for_a_cpu_is_the_same_function() -> None:
    net = small_own.denoiser()
    stream = torch.Generator().manual_seed(0)
    told = (torch.tensor([5, 900]), torch.randn(2, 5, 32, generator=stream),
            torch.tensor([[1.0, 1, 0, 0, 0], [1, 1, 1, 1, 1]]), unit())  # fmt: skip
    noisy = torch.randn(2, 6, 8, 8, generator=stream)
    found = []
    for device in ("cpu", "meta"):
        net.set_attention_backend(torch.device(device))
        found.append(net(noisy, *told))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)
    kinds = {type(processor).__name__ for processor in net.net.attn_processors.values()}
    assert kinds == {"AttnProcessor2_0"}


# --------------------------------------------------------------------------- the whole


def test_it_is_put_together_from_models_that_are_shared(
    folder: Path, model: Diffusion, scorer: ClipScorer
) -> None:
    assert model.pipe.family.name == "portrait"
    assert model.pipe.latent_shape() == (6, 8, 8)
    assert model.pipe.factor == 4
    parts = parts_of(folder)
    assert parts is not None
    assert parts.scorer_sha256 == scorer.fingerprint
    pictures = made(model)
    assert pictures.shape == (2, 3, 32, 32)
    assert torch.equal(pictures, made(model))


@pytest.mark.parametrize("scheduler", ["", "ddim", "ddpm", "unipc", "euler", "lms"])
def test_rows_do_not_mix(model: Diffusion, scheduler: str) -> None:
    both = made(model, scheduler=scheduler)
    singles = [made(model, rows=slice(row, row + 1), scheduler=scheduler) for row in range(2)]
    torch.testing.assert_close(both, torch.cat(singles), atol=2e-4, rtol=1e-3)


def test_a_pictures_embedding_is_followed_where_it_is_shown(model: Diffusion) -> None:
    plain = made(model)
    image = unit(seed=3)
    told = made(model, image=image)
    assert float((told - plain).abs().flatten(1).amax(1).min()) > 1e-4
    alone = made(model, rows=slice(1, 2), image=image[1:])
    torch.testing.assert_close(alone, told[1:], atol=2e-4, rtol=1e-3)
    with pytest.raises(ShapeError, match=r"must be \[2, 24\]"):
        made(model, image=image[:1])


@pytest.mark.parametrize("decode", ["vae", "tiny", "preview"])
def test_guidance_moves_pictures(model: Diffusion, scorer: ClipScorer, decode: str) -> None:
    guide = Guidance(
        objective=Objective.of(Clip("red")), scorer=scorer, scale=0.2, decode=decode,  # type: ignore[arg-type]
    )  # fmt: skip
    wanted = scorer.embed_texts(["red"])[0]
    plain, steered = latents(model), latents(model, guide)
    off = Guidance(objective=Objective.of(Clip("red")), scale=0)
    assert torch.equal(latents(model, off), plain)
    seen = [scorer.embed_images(model.pipe.decode_latents(x, decode)) for x in (plain, steered)]
    assert float(((seen[1] - seen[0]) @ wanted).mean()) > 0


def test_saved_whole_it_loads_like_any_folder(model: Diffusion, tmp_path: Path) -> None:
    model.pipe.save_pretrained(tmp_path / "saved")
    again = load_diffusion(tmp_path / "saved")
    assert again.pipe.family.name == "portrait"
    assert torch.equal(made(again), made(model))


def test_generate_asks_it_with_the_clip_it_was_trained_with(folder: Path, bundle: Path) -> None:
    options = generate.Options(
        prompts=["a red cat"], denoiser=f"local-dir:{folder}", scorer=f"local-dir:{bundle}",
        steps=2, cfg=2.0, guide=["prompt"], decode="tiny", every=1,
    )  # fmt: skip
    ctx = TaskContext(device_name="cpu", kit={"latent_scorer": "absent-student"})
    steps = list(generate.run(options, ctx))
    assert [step.index for step in steps] == [1, 2]
    assert all(step.draft.image.shape == (1, 3, 32, 32) for step in steps)
    assert steps[0].losses["skipped"] == 0
    blind = options.model_copy(update={"decode": "latent"})
    with pytest.raises(MissingWeights, match="absent-student"):
        list(generate.run(blind, ctx))


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({}, "latent"),
        ({"decode": "tiny"}, "tiny"),
        ({"cutouts": 2}, "vae"),
        ({"student": "no"}, "vae"),
    ],
)
def test_the_shipped_model_is_steered_by_its_latent_scorer_unless_told_otherwise(
    given: dict[str, Any], seen: str
) -> None:
    kit = load_kit("portraits")
    kit |= {"latent_scorer": given.pop("student", kit["latent_scorer"])}
    options = generate.Options(prompts=["a bald person"], guide=["prompt"], **given)
    ctx = TaskContext(device_name="cpu", kit=kit)
    job = DiffusionJob(options, ctx, ctx.models.of(options).denoiser)
    assert job.guidance is not None
    assert job.guidance.decode == seen
    assert (job.guidance.latent_scorer is not None) == (seen == "latent")
    assert job.cfg == CFG
    asked = options.model_copy(update={"cfg": 2.0})
    assert DiffusionJob(asked, ctx, job.model).cfg == 2.0


def test_another_clip_or_autoencoder_is_refused(
    folder: Path,
    scorer: ClipScorer,
    bundle: Path,
    tmp_path: Path,
) -> None:
    other = small_own.write_autoencoder(tmp_path / "vae", seed=1)
    wrong = small_own.write_denoiser(tmp_path / "denoiser", other, bundle)
    small_own.write_autoencoder(other, seed=2)
    with pytest.raises(CorruptWeights, match="another autoencoder"):
        load_own(wrong, scorer)
    table = json.loads((folder / "parts.json").read_text())
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "parts.json").write_text(json.dumps({**table, "scorer_sha256": "0" * 64}))
    with pytest.raises(CorruptWeights, match="another CLIP"):
        load_own(strange, scorer)
    (strange / "parts.json").write_text("[1]")
    with pytest.raises(CorruptWeights, match=r"parts\.json cannot be read"):
        parts_of(strange)
    stock = tmp_path / "stock"
    stock.mkdir()
    assert parts_of(stock) is None
