"""The script that judges two stages, on tiny random models: every part, stopped and gone on."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from guided.core.device import Device
from guided.core.images import to_tensor
from guided.core.run import drain
from guided.nets.reader import ReaderNet
from guided.tasks import _generate_unclip, generate
from guided.tasks.base import TaskContext
from guided.worlds.portraits.judging.prior_runs import PriorContext
from guided.worlds.portraits.judging.reader import Reader
from guided.worlds.portraits.judging.runs import unclip
from guided.worlds.portraits.judging.unclip_runs import UnclipContext
from guided.worlds.portraits.training.reading import CLASSES
from tests.helpers import unclip_models

# Fixtures.
bundle = unclip_models.bundle
scorer = unclip_models.scorer
denoiser = unclip_models.denoiser
prior = unclip_models.prior


Judged = Callable[..., int]


@pytest.fixture
def words(denoiser: Path, prior: Path, bundle: Path, tmp_path: Path) -> list[str]:
    return [
        "--out", str(tmp_path / "out"), "--count", "4", "--few", "2",
        "--split", "new", "--denoiser", str(denoiser), "--prior", str(prior),
        "--scorer", f"local-dir:{bundle}", "--judge", f"local-dir:{bundle}",
        "--steps", "2", "--vary-steps", "2", "--prior-steps", "2", "--scales", "1,2", "--cfg", "2",
        "--etas", "0,1", "--device", "cpu",
    ]  # fmt: skip


@pytest.fixture
def judging(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Judged:
    def untaught(*_: object) -> Reader:
        torch.manual_seed(0)
        net = ReaderNet(CLASSES, widths=(8, 8, 8), blocks=(1, 1, 1), head=4, features=16)
        return Reader(net, Device("cpu"), "untaught")

    monkeypatch.setattr(Reader, "load", untaught)

    def run(*more: str) -> int:
        return unclip.main([*words, *more])

    return run


@pytest.mark.soak
def test_every_part_is_judged_and_put_on_the_card(
    judging: Judged, prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = prior / "card.toml"
    card.write_text('name = "prior"\n', "utf-8")
    try:
        assert judging("--sheet", str(tmp_path / "page.png")) == 0
        figures = tomllib.loads(card.read_text("utf-8"))["metrics"]
    finally:
        card.unlink()
    for name in ("new_prior_cosine", "new_prior_recall_text", "new_unclip_accuracy",
                 "new_words_r_precision", "new_unclip_diversity", "new_vary_eta_1_kept",
                 "new_vary_reconstructed_l1", "new_vary_autoencoder_kept"):  # fmt: skip
        assert set(figures[name]) == {"value", "floor", "ceiling"}, name
    shown = capsys.readouterr().out
    for line in ("accuracy within 5 points", "diversity above the words'", "variations keep 85 %"):
        assert line in shown
    assert "| cfg | unclip accuracy |" in shown
    assert figures["new_prior_cosine"]["floor"] < figures["new_prior_cosine"]["ceiling"]
    # Drawn from its own noise at guidance 1, a picture is nearer to itself than another draw is.
    near, far = (figures[f"new_vary_{name}_l1"]["value"] for name in ("reconstructed", "eta_1"))
    assert near < far
    with Image.open(tmp_path / "page.png") as page:
        assert page.size[0] == 7 * 32


@pytest.mark.soak
def test_it_goes_on_where_it_stopped(
    judging: Judged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ("text", "vary", "--dry")
    assert judging(*chosen, "--minutes", "1e-9") == 1
    assert "run again to go on" in capsys.readouterr().out
    assert judging(*chosen) == 0
    whole = capsys.readouterr().out
    files = sorted((tmp_path / "out" / "text").iterdir())
    times = [file.stat().st_mtime_ns for file in files]
    assert judging(*chosen, "--minutes", "1e-9") == 0
    assert capsys.readouterr().out == whole
    files[0].unlink()
    assert judging(*chosen) == 0
    assert capsys.readouterr().out == whole
    assert [file.stat().st_mtime_ns for file in files][1:] == times[1:]


def test_pictures_are_those_of_the_verb(
    judging: Judged, words: list[str], denoiser: Path, prior: Path, bundle: Path
) -> None:
    given = unclip.parser_of().parse_args(words)
    context = UnclipContext(given)
    text, seeds = "a photo of the red cat", (3, 4)
    for method in unclip.WAYS:
        made = context.maker(method)([text] * 2, seeds)
        for image, seed in zip(made, seeds, strict=True):
            imagined = {"prior": str(prior), "prior_steps": 2} if method == "unclip" else {}
            options = generate.Options(
                prompts=[text], method=method, denoiser=f"local-dir:{denoiser}",
                scorer=f"local-dir:{bundle}", steps=2, cfg=2.0, **imagined,
            )  # fmt: skip
            run = generate.run(options, TaskContext(seed=seed, device_name="cpu"))
            while True:
                try:
                    next(run)
                except StopIteration as end:
                    own = to_tensor(end.value.answer["results"][0]["image"].image)[0]
                    break
            assert float((own - image).abs().max()) <= 1.5 / 255
        assert float((made[0] - made[1]).abs().max()) > 2 / 255
    images = torch.from_numpy(np.random.default_rng(0).random((2, 3, 32, 32), np.float32))
    found = context.inverted(images)
    assert found.image.shape == (2, 24)
    alone = context.inverted(images[1:])
    torch.testing.assert_close(alone.noise, found.noise[1:], atol=1e-4, rtol=1e-3)


def test_a_prior_is_judged_where_there_is_no_denoiser(
    judging: Judged, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert judging("prior", "--dry", "--denoiser", "nowhere") == 0
    assert "new_prior_cosine" in capsys.readouterr().out
    given = unclip.parser_of().parse_args(words)
    own, text, seeds = PriorContext(given), "a photo of the red cat", (3, 4)
    context = UnclipContext(given)
    job = _generate_unclip.UnclipJob(context.options([text], "unclip"), context.ctx, context.model)
    drain(job.imagined([(text, seed) for seed in seeds]))
    torch.testing.assert_close(own.sample_prior([text] * 2, seeds), job.image, atol=1e-5, rtol=1e-4)


def test_what_cannot_be_judged_is_said(judging: Judged, capsys: pytest.CaptureFixture[str]) -> None:
    assert judging("text", "--denoiser", "nowhere") == 1
    assert "This cannot be judged: There is no model called 'nowhere'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        judging("piror")
    assert "there is no part 'piror'" in capsys.readouterr().err
