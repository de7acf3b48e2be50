"""Long prompts in windows: every word counts, rows do not depend on their batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guided.core.device import Device
from guided.core.long_texts import windows
from guided.core.seeds import Seeds
from guided.errors import CannotDo
from guided.generators.diffusion import Diffusion, load_diffusion
from guided.generators.diffusion.text import report_truncation, token_count
from guided.models.loading import load_denoiser
from guided.scorers.clip import load_clip
from tests.helpers import flow_family, small_own
from tests.helpers.small_models import FAMILIES, write_folder
from tests.helpers.tiny_clip import write_clip

#: Texts of one window of 8 tokens and of two, for the small models' tokenizers.
SHORT, LONG, OTHER = "red a", "red a b c d e f g h", "red a b c d e f g z"


@pytest.fixture(scope="module", params=[*FAMILIES, "portrait"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Diffusion:
    root = tmp_path_factory.mktemp(request.param)
    if request.param != "portrait":
        made = load_diffusion(write_folder(request.param, root))
        made.pipe.register_to_config(max_sequence_length=8)
        return made
    bundle = write_clip(root / "clip")
    vae = small_own.write_autoencoder(root / "vae")
    folder = small_own.write_denoiser(root / "denoiser", vae, bundle)
    return load_denoiser(folder, lambda name: load_clip(name, Device()), Device(), name="")


@pytest.fixture(autouse=True)
def cut(request: pytest.FixtureRequest) -> Any:
    """Every test begins and ends with texts cut."""
    yield
    if "model" in request.fixturenames:
        request.getfixturevalue("model").pipe.long_text = "cut"


def texts(model: Diffusion) -> tuple[str, str, str]:
    """Texts of one and of two windows; the shipped kind's small CLIP reads more tokens."""
    limit = model.family.token_limit(model.pipe)
    if limit <= 8:
        return SHORT, LONG, OTHER
    return "a dog", f"{'dog ' * (limit - 2)} a hat", f"{'dog ' * (limit - 2)} red hair"


def predicted(model: Diffusion, prompts: Sequence[str], mode: Any, cfg: float = 3.0) -> Tensor:
    model.pipe.long_text = mode
    bound = model.bound(prompts, [""] * len(prompts), cfg=cfg)
    noise = model.start(Seeds((7,) * len(prompts)))["noise"]
    with torch.no_grad():
        return bound.predict(noise.repeat(2, 1, 1, 1), 500)


def test_texts_that_fit_are_read_to_the_same_bits(model: Diffusion) -> None:
    short, _, _ = texts(model)
    one, two = (predicted(model, [short, ""], mode) for mode in ("cut", "windows"))
    assert torch.equal(one, two)


def test_the_words_behind_the_context_count(
    model: Diffusion, caplog: pytest.LogCaptureFixture
) -> None:
    _, long, other = texts(model)
    with caplog.at_level(logging.WARNING):
        whole = predicted(model, [long, other], "windows")
    assert "was left out" not in caplog.text
    assert float((whole[2] - whole[3]).abs().max()) > 1e-5
    with caplog.at_level(logging.WARNING):
        cut = predicted(model, [long, other], "cut")
    assert caplog.text.count("this model reads") == 2
    torch.testing.assert_close(cut[2], cut[3])


def test_the_windows_states_follow_one_another(model: Diffusion) -> None:
    _, long, _ = texts(model)
    pipe = model.pipe
    parts = windows(long, partial(token_count, pipe), model.family.token_limit(pipe))
    assert len(parts) >= 2
    each: list[Any] = [model.bound([part]).words for part in parts]
    pipe.long_text = "windows"
    words: Any = model.bound([long]).words
    torch.testing.assert_close(words.text, torch.cat([one.text for one in each], 1))
    masks = [torch.ones(one.text.shape[:2]) if one.mask is None else one.mask for one in each]
    assert torch.equal(words.mask.float(), torch.cat(masks, 1).float())


def test_a_row_does_not_depend_on_the_windows_of_others(model: Diffusion) -> None:
    short, long, _ = texts(model)
    alone = predicted(model, [short], "windows")
    both = predicted(model, [short, long], "windows")
    torch.testing.assert_close(both[[0, 2]], alone, rtol=0, atol=1e-5)
    longer = predicted(model, [long], "windows")
    torch.testing.assert_close(both[[1, 3]], longer, rtol=0, atol=1e-5)


def test_a_family_of_one_context_refuses_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    registry = importlib.import_module("guided.generators.diffusion.families")
    monkeypatch.setattr(registry, "_REGISTERED", [flow_family.FAMILY])
    model = load_diffusion(flow_family.write_flow_folder(tmp_path))
    model.pipe.long_text = "windows"
    model.bound([SHORT])
    with pytest.raises(CannotDo, match="The family tiny-flow reads one context of 8 tokens"):
        model.bound([LONG])


def test_a_cut_prompt_is_named_once_with_what_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = load_diffusion(write_folder("sd", tmp_path)).pipe
    for _ in range(3):
        report_truncation(pipe, [LONG, SHORT])
    (told,) = caplog.messages
    assert "has 11 tokens; this model reads 8: the rest was left out, 'f g h'" in told
