"""The demo's chapters on diffusion, with tiny random models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from guided.core.device import Device
from guided.core.run import drained
from guided.errors import MissingWeights
from guided.judging.reader import Reader
from guided.nets.reader import ReaderNet
from guided.portraits import sample
from guided.tasks import _demo_denoise
from guided.tasks.base import Workbench
from guided.training.reading import CLASSES
from tests.diffusion import small_own
from tests.tiny_clip import write_clip


@pytest.fixture
def reader() -> Reader:
    torch.manual_seed(0)
    net = ReaderNet(CLASSES, widths=(8, 8, 8), blocks=(1, 1, 1), head=4, features=16)
    return Reader(net, Device("cpu"), "0123456789abcdef")


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A kit of a tiny CLIP and a denoiser that takes its embeddings."""
    bundle = write_clip(tmp_path / "clip")
    own = small_own.write_autoencoder(tmp_path / "vae")
    folder = small_own.write_denoiser(tmp_path / "denoiser", own, bundle)
    kit = {"denoiser": f"local-dir:{folder}", "scorer": f"local-dir:{bundle}"}
    return Workbench(device_name="cpu", seed=3, kit=kit)


def test_pictures_grow_out_of_noise(bench: Workbench, reader: Reader) -> None:
    steps = list(told := _demo_denoise.the_diffusion(bench, reader))
    assert told.gi_frame is None
    assert {step.label for step in steps} == {"from noise", "from noise, steered"}
    section = drained(_demo_denoise.the_diffusion(bench, reader))
    assert section.body.count("<figure") == _demo_denoise.DRAFTS + 2 * _demo_denoise.PEOPLE
    assert set(section.scores) == {"diffusion_fulfilled", "diffusion_steered"}
    assert all(0 <= score <= 1 for score in section.scores.values())


def test_variations_of_a_portrait(bench: Workbench) -> None:
    section = drained(_demo_denoise.the_variations(bench, sample(0, "val")))
    assert section.body.count("<figure") == 1 + 2 * _demo_denoise.WAYS


@pytest.mark.parametrize("chapter", ["the_diffusion", "the_variations"])
def test_a_kit_without_a_denoiser_is_told(chapter: str) -> None:
    play: Callable[..., Any] = getattr(_demo_denoise, chapter)
    with pytest.raises(MissingWeights, match="names no denoiser"):
        drained(play(Workbench(device_name="cpu"), None))
