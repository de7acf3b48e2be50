"""Cross-attention control: alignments in closed form, and what it does within real nets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from guided.errors import CannotDo, ShapeError, UsageError
from guided.generators.diffusion import Diffusion, load_diffusion
from guided.generators.diffusion.portrait_folder import load_own
from guided.generators.diffusion.source import attention_net, token_ids, word_ids
from guided.guidance.attention_control import Alignment, Control, controlled
from guided.scorers.clip import ClipScorer
from tests.helpers import unclip_models
from tests.helpers.small_models import write_folder

# Fixtures.
bundle = unclip_models.bundle
scorer = unclip_models.scorer
denoiser = unclip_models.denoiser


@pytest.fixture(scope="module", params=["own", "sd", "sdxl", "pixart"])
def model(
    request: pytest.FixtureRequest,
    denoiser: Path,
    scorer: ClipScorer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Diffusion:
    if request.param == "own":
        return load_own(denoiser, scorer)
    return load_diffusion(write_folder(request.param, tmp_path_factory.mktemp("stock")))


def seen(count: int = 2, length: int = 4) -> Tensor:
    stream = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, 5, length, generator=stream).softmax(3)


def test_tokens_are_aligned_by_what_they_share() -> None:
    one, two = [1, 7, 8, 2], [1, 9, 8, 2]
    replaced = Alignment.of([one], [two], "replace", 4)
    assert torch.equal(replaced.moves[0], torch.eye(4))
    assert torch.equal(replaced.shared[0], torch.ones(4))
    refined = Alignment.of([one], [two], "refine", 4)
    assert torch.equal(refined.moves[0].diagonal(), torch.tensor([1.0, 0, 1, 1]))
    assert torch.equal(refined.shared[0], torch.tensor([1.0, 0, 1, 1]))
    inserted = Alignment.of([[1, 8, 2]], [[1, 9, 8, 2]], "replace", 5)
    assert torch.equal(inserted.shared[0], torch.tensor([1.0, 0, 1, 1, 0]))
    assert inserted.moves[0].nonzero().tolist() == [[0, 0], [1, 2], [2, 3]]


def test_a_word_of_other_length_takes_all_of_the_attention() -> None:
    one, two = [1, 7, 7, 2], [1, 5, 6, 4, 2]
    found = Alignment.of([one], [two], "replace", 5)
    given = seen(1, 5)
    given[..., 4] = 0
    handed = torch.einsum("bhqi,bij->bhqj", given, found.moves)
    torch.testing.assert_close(handed.sum(3), given.sum(3))
    torch.testing.assert_close(handed[..., 1:4].sum(3), given[..., 1:3].sum(3))
    shorter = Alignment.of([two], [one], "replace", 5)
    back = torch.einsum("bhqi,bij->bhqj", given, shorter.moves)
    torch.testing.assert_close(back.sum(3), given.sum(3))
    with pytest.raises(ShapeError, match="more tokens"):
        Alignment.of([one], [two], "replace", 4)
    with pytest.raises(ShapeError, match="1 targets"):
        Alignment.of([one, one], [two], "replace", 5)


@pytest.mark.parametrize("guided", [False, True])
def test_control_in_closed_form(guided: bool) -> None:
    alignment = Alignment.of([[1, 7, 8, 2]], [[1, 9, 8, 2]], "refine", 4)
    alignment = alignment.reweighted([[1, 9, 8, 2]], [8], 3.0)
    control = Control(alignment, cross=0.5, own=0.25)
    given = seen(4 if guided else 2)
    found = control(given, words=True)
    assert torch.equal(found[:-1], given[:-1])
    one, two = given[-2], given[-1]
    expected = torch.stack([one[..., 0], two[..., 1], 3 * one[..., 2], one[..., 3]], -1)
    torch.testing.assert_close(found[-1], expected)
    assert torch.equal(control(given, words=False)[-1], one)
    control.progress = 0.3
    assert torch.equal(control(given, words=False), given)
    control.progress = 0.5
    weights = torch.tensor([1.0, 1, 3, 1])
    torch.testing.assert_close(control(given, words=True)[-1], weights * two)
    with pytest.raises(ShapeError, match="3 rows"):
        control(seen(3), words=True)
    with pytest.raises(UsageError, match="reweight"):
        alignment.reweighted([[1, 9, 8, 2]], [5], 2.0)


def test_a_net_under_control(model: Diffusion) -> None:
    words = ["a red cat", "a dog red"]
    bound = model.bound(words, cfg=2.0)
    net = attention_net(model.pipe)
    before = {name: type(each) for name, each in net.attn_processors.items()}
    one = torch.randn(1, *model.pipe.latent_shape(), generator=torch.Generator().manual_seed(0))
    given = one.repeat(4, 1, 1, 1)
    length = bound.words.text.shape[1]
    ids = [token_ids(model.pipe, [text], length) for text in words]
    with torch.no_grad():
        plain = bound.predict(given, 500)
        for way, cross, own in (("replace", 0.0, 0.0), ("refine", 1.0, 0.0), ("replace", 1, 1)):
            control = Control(Alignment.of(ids[0], ids[1], way, length), cross, own)  # type: ignore[arg-type]
            with controlled(net, bound, control, 2) as under:
                found = under.predict(given, 500)
                under.predict(given, 500)
                assert control.progress == 0.5
            torch.testing.assert_close(found[:3], plain[:3], atol=1e-5, rtol=1e-4)
            same = torch.allclose(found[3:], plain[3:], atol=1e-6)
            assert same == (cross == 0 and own == 0)
        control = Control(Alignment.of(ids[0], ids[0], "replace", length), 1.0, 1.0)
        twice = model.bound([words[0], words[0]])
        # The encoder's own rows may differ by rounding: both are told the first row's words.
        parts = {name: part[:1].expand_as(part) for name, part in vars(twice.words).items()
                 if part is not None}  # fmt: skip
        twice = replace(twice, words=replace(twice.words, **parts))
        with controlled(net, twice, control, 1) as under:
            found = under.predict(given[:2], 500)
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)
    assert before == {name: type(each) for name, each in net.attn_processors.items()}
    assert model.pipe.tokenizer.decode(word_ids(model.pipe, "cat")).strip() == "cat"


def test_a_net_without_reachable_attention_is_refused(model: Diffusion) -> None:
    control = Control(Alignment.of([[1]], [[1]], "replace", 1))
    bound = model.bound(["a"])
    with (
        pytest.raises(CannotDo, match="cannot be reached"),
        controlled(torch.nn.Linear(1, 1), bound, control, 1),
    ):
        pass
