"""The demo's chapters on diffusion, with tiny random models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from guided.core.device import Device
from guided.core.run import drain
from guided.errors import MissingWeights
from guided.nets.reader import ReaderNet
from guided.tasks.base import TaskContext
from guided.worlds.portraits import sample
from guided.worlds.portraits.judging.reader import Reader
from guided.worlds.portraits.tasks import _demo_denoise
from guided.worlds.portraits.training.reading import CLASSES
from tests.helpers import small_own
from tests.helpers.tiny_clip import write_clip


@pytest.fixture
def reader() -> Reader:
    torch.manual_seed(0)
    net = ReaderNet(CLASSES, widths=(8, 8, 8), blocks=(1, 1, 1), head=4, features=16)
    return Reader(net, Device("cpu"), "0123456789abcdef")


@pytest.fixture
def ctx(tmp_path: Path) -> TaskContext:
    """A kit of a tiny CLIP and a denoiser that takes its embeddings."""
    bundle = write_clip(tmp_path / "clip")
    own = small_own.write_autoencoder(tmp_path / "vae")
    folder = small_own.write_denoiser(tmp_path / "denoiser", own, bundle)
    kit = {"denoiser": f"local-dir:{folder}", "scorer": f"local-dir:{bundle}"}
    return TaskContext(device_name="cpu", seed=3, kit=kit)


def test_pictures_grow_out_of_noise(ctx: TaskContext, reader: Reader) -> None:
    steps = list(told := _demo_denoise.the_diffusion(ctx, reader))
    assert told.gi_frame is None
    assert {step.label for step in steps} == {"from noise", "from noise, steered"}
    section = drain(_demo_denoise.the_diffusion(ctx, reader))
    assert section.body.count("<figure") == _demo_denoise.DRAFTS + 2 * _demo_denoise.PEOPLE
    assert set(section.scores) == {"diffusion_fulfilled", "diffusion_steered"}
    assert all(0 <= score <= 1 for score in section.scores.values())


def test_variations_of_a_portrait(ctx: TaskContext) -> None:
    section = drain(_demo_denoise.the_variations(ctx, sample(0, "val")))
    assert section.body.count("<figure") == 1 + 2 * _demo_denoise.WAYS


@pytest.mark.parametrize("chapter", ["the_diffusion", "the_variations"])
def test_a_kit_without_a_denoiser_is_told(chapter: str) -> None:
    play: Callable[..., Any] = getattr(_demo_denoise, chapter)
    with pytest.raises(MissingWeights, match="names no denoiser"):
        drain(play(TaskContext(device_name="cpu"), None))
