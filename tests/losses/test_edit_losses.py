from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.objective import Candidate, Loss, LossContext
from guided.core.seeds import Seeds
from guided.errors import CannotDo, CorruptWeights, ShapeError, UsageError
from guided.generators.stylegan2 import StyleGan2
from guided.guidance.edit import LatentSearch
from guided.losses.clip import Clip
from guided.losses.clip_delta import ClipDelta
from guided.losses.directional import Directional
from guided.losses.identity import Identity
from guided.losses.image_prompt import ImagePrompt
from guided.losses.latent_l2 import LatentL2
from guided.losses.masked_l1 import MaskedL1
from guided.losses.perceptual import Perceptual
from guided.scorers.arcface import ArcFace
from guided.scorers.trunk import TrunkDistance, clip_trunk, lpips_distance
from tests.helpers.tiny_faces import STYLE, WIDTHS, seeded, tiny_stylegan2


class Angles:
    """A scorer one can compute by hand: pictures and texts are directions in a plane.

    A picture's angle is its mean red in quarter turns, a text's the number it spells.
    """

    name, width, scale = "angles", 2, 100.0
    preprocess = SimpleNamespace(size=(8, 8), mean=(0.2, 0.4, 0.6), std=(0.5, 0.25, 0.125))

    def __init__(self) -> None:
        self.seen: list[Tensor] = []
        self.texts: list[str] = []

    def embed_images(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return self._turned(images[:, 0].mean((1, 2)))

    def embed_texts(self, texts: list[str]) -> Tensor:
        self.texts.extend(texts)
        return self._turned(torch.tensor([float(text) for text in texts]))

    @staticmethod
    def _turned(quarters: Tensor) -> Tensor:
        angle = quarters * math.pi / 2
        return torch.stack([angle.cos(), angle.sin()], dim=1)


def painted(*reds: float) -> Candidate:
    """A draft whose latent is its picture, 4 x 4, of the given shades of red."""
    images = torch.zeros(len(reds), 3, 4, 4)
    images[:, 0] = torch.tensor(reds).view(-1, 1, 1)
    return Candidate({"x": images}, lambda latent: latent["x"])


def scene(start: Candidate, *prompts: str, **more: object) -> LossContext:
    models = more.pop("models", {})
    return LossContext(Angles(), prompts, start, models, more)


def cosine(quarters: float) -> float:
    return math.cos(quarters * math.pi / 2)


def test_clip_is_one_minus_the_cosine_of_each_rows_prompt() -> None:
    found = Clip().bind(scene(painted(0.0, 0.0), "0", "1"))(painted(0.5, 0.5))
    assert found.tolist() == pytest.approx([1 - cosine(0.5), 1 - cosine(0.5)])
    found = Clip().bind(scene(painted(0.0, 0.0), "0", "1"))(painted(0.25, 0.25))
    assert found.tolist() == pytest.approx([1 - cosine(0.25), 1 - cosine(0.75)])
    everywhere = Clip("1").bind(scene(painted(0.0, 0.0), "0", "0"))(painted(0.25, 0.25))
    assert everywhere.tolist() == pytest.approx([1 - cosine(0.75)] * 2)


def test_clip_weighs_several_texts_and_encodes_each_once() -> None:
    here = scene(painted(0.0, 0.0), "0 | 1::3", "1 | 0::-1")
    found = Clip().bind(here)(painted(0.25, 0.25))
    near, far = 1 - cosine(0.25), 1 - cosine(0.75)
    assert found.tolist() == pytest.approx([(near + 3 * far) / 4, (far - near) / 2], abs=1e-6)
    assert sorted(here.scorer.texts) == ["0", "1"]


def test_styleclip_view_undoes_the_scorers_normalisation() -> None:
    here = scene(painted(0.0), "0")
    draft = Candidate({"x": torch.rand(1, 3, 4, 4)}, lambda latent: latent["x"])
    Clip(preprocess="styleclip").bind(here)(draft)
    given = here.scorer.seen[-1]
    stated = Angles.preprocess
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (stated.mean, stated.std))
    prepared = (given - mean) / std
    expected = 2 * draft.image.repeat_interleave(2, 2).repeat_interleave(2, 3) - 1
    assert torch.allclose(prepared, expected, atol=1e-6)
    plain = Angles()
    plain.preprocess = None
    bare = LossContext(plain, ("0",), draft)
    with pytest.raises(CannotDo, match="does not state its size"):
        Clip(preprocess="styleclip").bind(bare)(draft)


def test_directional_compares_differences() -> None:
    judge = Directional(source="0", text="1").bind(scene(painted(0.0), "0"))
    assert float(judge(painted(0.0))) == pytest.approx(1.0)
    assert float(judge(painted(1.0))) == pytest.approx(0.0, abs=1e-5)
    change = Angles._turned(torch.tensor([0.5])) - Angles._turned(torch.tensor([0.0]))
    words = Angles._turned(torch.tensor([1.0])) - Angles._turned(torch.tensor([0.0]))
    assert float(judge(painted(0.5))) == pytest.approx(
        1 - float(F.cosine_similarity(change, words)), abs=1e-5
    )


def test_directional_may_leave_each_rows_own_words() -> None:
    start, after = painted(0.0, 1.0), painted(0.5, 0.5)
    found = Directional(source=None).bind(scene(start, "1", "0", sources=["0", "1"]))(after)
    each = [
        Directional(source=own).bind(scene(painted(float(own)), text))(painted(0.5))
        for own, text in (("0", "1"), ("1", "0"))
    ]
    torch.testing.assert_close(found, torch.cat(each))
    with pytest.raises(CannotDo, match="not told what the picture shows"):
        Directional(source=None).bind(scene(start, "1", "0"))


def test_directional_has_a_finite_gradient_at_the_start() -> None:
    judge = Directional(source="0", text="1").bind(scene(painted(0.3), "0"))
    images = painted(0.3).image.clone().requires_grad_()
    draft = Candidate({"x": images}, lambda latent: latent["x"])
    (gradient,) = torch.autograd.grad(judge(draft).sum(), images)
    assert torch.isfinite(gradient).all()
    assert gradient[:, 0].mean() < 0  # more red is nearer to the words
    assert float(gradient.abs().max()) < 1e3  # a difference of nothing is not brought to length 1


def test_identity_embeds_the_original_once() -> None:
    model = Angles()
    judge = Identity().bind(scene(painted(0.1, 0.2), "0", "0", models={"identity": model}))
    assert judge(painted(0.1, 0.2)).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert judge(painted(0.6, 0.2)).tolist() == pytest.approx([1 - cosine(0.5), 0], abs=1e-6)
    assert len(model.seen) == 3
    with pytest.raises(CannotDo, match="'identity' needs a model"):
        Identity().bind(scene(painted(0.1), "0"))


def test_latent_l2_sum_and_mean() -> None:
    leaves = {"a": torch.zeros(2, 3), "b": torch.zeros(2, 1, 1)}
    start = Candidate(leaves, lambda _: torch.zeros(0))
    leaves = {"a": torch.tensor([[1.0, 2, 3], [0, 0, 0]]), "b": torch.full((2, 1, 1), 2.0)}
    moved = Candidate(leaves, lambda _: torch.zeros(0))
    assert LatentL2().bind(scene(start))(moved).tolist() == [18.0, 4.0]
    assert LatentL2("mean").bind(scene(start))(moved).tolist() == [4.5, 1.0]
    assert LatentL2().bind(scene(moved))(start).tolist() == [18.0, 4.0]
    assert LatentL2().bind(scene(moved))(moved).tolist() == [0.0, 0.0]


def test_masked_l1_looks_outside_the_mask() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    judge = MaskedL1().bind(scene(painted(0.0), "0", mask=mask))
    changed = painted(0.0).image.clone()
    changed[:, :, :, 0] = 1.0
    assert float(judge(Candidate({"x": changed}, lambda latent: latent["x"]))) == 0
    changed[:, 1, :, 3] = 0.6  # one of three colours in half of what is kept
    assert float(judge(Candidate({"x": changed}, lambda latent: latent["x"]))) == pytest.approx(0.1)
    free = MaskedL1().bind(scene(painted(0.0), "0", mask=torch.ones(1, 1, 4, 4)))
    assert float(free(painted(1.0))) == 0  # where all may change there is nothing to keep
    whole = MaskedL1().bind(scene(painted(0.0), "0", target=painted(0.3).image))
    assert float(whole(painted(0.0))) == pytest.approx(0.1)


def test_a_mask_or_target_of_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match="pictures are 4 x 4 pixels"):
        MaskedL1().bind(scene(painted(0.0), "0", mask=torch.zeros(1, 1, 5, 4)))
    with pytest.raises(ShapeError, match="target is"):
        MaskedL1().bind(scene(painted(0.0), "0", target=torch.zeros(1, 3, 8, 8)))


# ------------------------------------------------------------------ perceptual


def halves(images: Tensor) -> list[Tensor]:
    return [images, F.avg_pool2d(images, 2)]


def test_perceptual_compares_with_the_target_or_the_start() -> None:
    model = TrunkDistance(halves, name="halves")
    blue = torch.zeros(1, 3, 4, 4)
    blue[:, 2] = 1
    judge = Perceptual().bind(scene(painted(1.0), "0", models={"perceptual": model}))
    assert float(judge(painted(1.0))) == 0
    assert float(judge(Candidate({"x": blue}, lambda latent: latent["x"]))) == pytest.approx(4.0)
    black = painted(0.0).image.requires_grad_()  # no feature has a direction there
    value = judge(Candidate({"x": black}, lambda latent: latent["x"]))
    assert float(value.detach()) == pytest.approx(2.0)
    (gradient,) = torch.autograd.grad(value.sum(), black)
    assert bool(torch.isfinite(gradient).all())
    to = Perceptual().bind(scene(painted(1.0), "0", models={"perceptual": model}, target=blue))
    assert float(to(painted(1.0))) == pytest.approx(4.0)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lpips_with_its_trunk_equals_the_package(tmp_path: Path) -> None:
    import lpips
    from torchvision.models import alexnet

    trunk = seeded(alexnet)
    path = tmp_path / "alexnet.pth"
    kept = {k: v for k, v in trunk.state_dict().items() if k.startswith("features.")}
    torch.save(kept, path)
    ours = lpips_distance(path, "alex")
    theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    places = {name.split(".", 1)[1]: name for name in theirs.net.state_dict()}
    theirs.net.load_state_dict({places[k.removeprefix("features.")]: v for k, v in kept.items()})
    first, second = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = ours.distance(ours.features(first), ours.features(second))
    with torch.no_grad():
        expected = theirs(first, second, normalize=True).flatten()
    assert ours.name == "lpips-alex"
    assert torch.allclose(found, expected, atol=1e-5)
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(CorruptWeights, match=r"missing: features\.0\.bias"):
        lpips_distance(tmp_path / "wrong.pth", "alex")


def test_the_clips_own_trunk_has_its_own_name(tmp_path: Path) -> None:
    from guided.scorers.clip import load_clip
    from tests.helpers.tiny_clip import write_clip

    scorer = load_clip(f"local-dir:{write_clip(tmp_path / 'clip')}")
    trunk = clip_trunk(scorer)
    assert trunk.name.startswith("trunk of local-dir:")
    first, second = torch.rand(2, 2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    apart = trunk.distance(trunk.features(first), trunk.features(second))
    assert apart.shape == (2,)
    assert float(apart.min()) > 0
    assert not trunk.distance(trunk.features(first), trunk.features(first)).any()
    with pytest.raises(CannotDo, match="has no layers nowhere"):
        clip_trunk(scorer, ["nowhere"])


# ------------------------------------------------------------------ all of them, in the loop


@pytest.mark.parametrize(
    "loss",
    [
        Clip("0.8"),
        Clip("0.8", preprocess="styleclip"),
        Directional("0.9", source="0.1"),
        LatentL2(),
        Identity(),
        Perceptual(),
        MaskedL1(),
    ],
    ids=lambda loss: loss.kind,
)
def test_every_loss_falls_and_rows_do_not_mix(loss: Loss) -> None:
    generator = StyleGan2(tiny_stylegan2(), average=torch.zeros(STYLE))
    faces = ArcFace(seeded(lambda: _faces()))
    models = {"identity": faces, "perceptual": TrunkDistance(halves, name="halves")}
    start = generator.start(Seeds.of(0, 2))
    target = generator.render(generator.start(Seeds.of(7)))
    image_target = isinstance(loss, (MaskedL1, Perceptual))
    extras = {"target": target} if image_target else {}
    begun = {"w": start["w"] + 0.3} if isinstance(loss, (LatentL2, Identity)) else start

    def run(rows: slice) -> list[dict[str, float]]:
        from guided.guidance.optimise import optimise
        from guided.guidance.updates import adam

        first = Candidate({"w": start["w"][rows]}, generator.render)
        here = LossContext(Angles(), ("0.8",) * len(first.latent["w"]), first, models, extras)
        bound = (1.0 * loss).bind(here)

        def draw(leaves: dict[str, Tensor], progress: float) -> Candidate:
            return Candidate(leaves, generator.render, progress)

        steps = optimise({"w": begun["w"][rows]}, draw, bound, adam(0.02), 8)
        return [dict(step.losses) for step in steps]

    together, first, second = run(slice(0, 2)), run(slice(0, 1)), run(slice(1, 2))
    assert together[-1][loss.kind] < together[0][loss.kind]
    means = [(a[loss.kind] + b[loss.kind]) / 2 for a, b in zip(first, second, strict=True)]
    assert [step[loss.kind] for step in together] == pytest.approx(means, abs=1e-4, rel=1e-3)


def _faces() -> torch.nn.Module:
    from guided.nets.irse50 import IRSE50

    return IRSE50(WIDTHS, 12)


def test_a_weight_of_zero_is_as_if_absent() -> None:
    generator = StyleGan2(tiny_stylegan2(), average=torch.zeros(STYLE))
    start = generator.start(Seeds.of(0))
    ends = []
    for objective in (1.0 * Clip("0.8"), Clip("0.8") + 0.0 * LatentL2()):
        editor = LatentSearch(generator=generator, scorer=Angles(), objective=objective, steps=5)
        moves = editor.propose(start, [""])
        while True:
            try:
                next(moves)
            except StopIteration as end:
                ends.append(end.value.change["w"])
                break
    assert torch.equal(*ends)


def upwards(text: str, seen: Tensor) -> Tensor:
    """Directions at right angles to what is seen, to the side that the text's sign says."""
    return float(text) * torch.stack([-seen[:, 1], seen[:, 0]], dim=1)


def test_turned_leads_from_the_start_along_the_direction() -> None:
    start = painted(0.0, 0.25)
    found = ClipDelta(1.0).bind(scene(start, "1", towards=upwards))
    assert found(painted(0.5, 0.75)).tolist() == pytest.approx([0, 0], abs=1e-6)  # 45 degrees on
    assert found(start).tolist() == pytest.approx([1 - cosine(0.5)] * 2, abs=1e-6)
    each = ClipDelta(math.tan(math.pi / 8)).bind(scene(start, "1", "-1", towards=upwards))
    assert each(painted(0.25, 0.0)).tolist() == pytest.approx([0, 0], abs=1e-6)
    both = ClipDelta(1.0).bind(scene(start, "1 | -1::-2", towards=upwards))  # both point up
    assert both(painted(0.5, 0.75)).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_turned_says_what_it_lacks() -> None:
    with pytest.raises(CannotDo, match="needs directions"):
        ClipDelta().bind(scene(painted(0.0), "1"))
    with pytest.raises(UsageError, match="an amount above 0, not -1"):
        ClipDelta(-1.0).bind(scene(painted(0.0), "1", towards=upwards))


def test_image_prompts_are_weighed_against_the_sizes_of_their_weights() -> None:
    images = [painted(0.0).image, painted(1.0).image]
    seen = (0.25, 0.5)
    found = ImagePrompt((3.0, -1.0)).bind(scene(painted(0.0, 0.0), image_prompts=images))
    expected = [(3 * (1 - cosine(q)) - (1 - cosine(1 - q))) / 4 for q in seen]
    assert found(painted(*seen)).tolist() == pytest.approx(expected, abs=1e-6)
    even = ImagePrompt().bind(scene(painted(0.0), image_prompts=images))
    assert float(even(painted(0.25))) == pytest.approx(1 - (cosine(0.25) + cosine(0.75)) / 2)


def test_image_prompts_that_cannot_be_weighed_are_refused() -> None:
    one = [painted(0.0).image]
    with pytest.raises(CannotDo, match="needs pictures to follow"):
        ImagePrompt().bind(scene(painted(0.0)))
    with pytest.raises(UsageError, match="2 weights were given for 1 pictures"):
        ImagePrompt((1.0, 2.0)).bind(scene(painted(0.0), image_prompts=one))
    for weight in (0.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="numbers other than 0"):
            ImagePrompt((weight,)).bind(scene(painted(0.0), image_prompts=one))
