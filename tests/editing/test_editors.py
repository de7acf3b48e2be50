"""What holds of every editor, and what each computes once; on tiny models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import guided
from guided.core.images import to_tensor
from guided.core.run import drain
from guided.core.seeds import Seeds
from guided.editing import EDITORS
from guided.editing.base import Editor, EditState, Sources, stepped
from guided.generators.diffusion import source
from guided.guidance import inversion
from guided.models import Models
from guided.nets.delta import DeltaNet
from guided.scorers.clip import ClipScorer
from tests.editing.outside import Tint
from tests.helpers import tiny_edit, tiny_faces, unclip_models

# Fixtures.
bundle = unclip_models.bundle
denoiser = unclip_models.denoiser

OWN: dict[str, dict[str, Any]] = {
    "direction": {"beta": 0.01}, "optimise": {"steps": 2}, "refine": {"steps": 2},
    **{name: {"steps": 4} for name in ("sdedit", "inpaint", "ddim", "ddpm", "p2p", "directional",
                                       "text-diff")},
}  # fmt: skip
PROMPTS = ["red hat", "blue sky"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, denoiser: Path, bundle: Path) -> Models:
    folder = tmp_path_factory.mktemp("models")
    stylegan = tiny_faces.tiny_stylegan2()
    channels = sum(len(layer.conv.modulation.bias) for layer in [stylegan.conv1, *stylegan.convs])
    relevance = torch.randn(channels, 24, generator=torch.Generator().manual_seed(0))
    save_file(
        {"relevance": torch.nn.functional.normalize(relevance, dim=1)}, folder / "fs3.safetensors"
    )
    named = {
        **tiny_edit.write_models(folder),
        "inverter": str(tiny_edit.write_inverter(folder / "inverter.safetensors")),
        "delta": str(tiny_edit.write_delta(folder / "delta.safetensors")),
        "directions": str(folder / "fs3.safetensors"),
        "mapper": str(tiny_faces.write_mapper(folder / "purple.pt")),
        "denoiser": f"local-dir:{denoiser}",
        "scorer": f"local-dir:{bundle}",
    }
    return Models(named, named, "cpu")


def editor_of(name: str) -> Editor:
    editor: Editor = Tint() if name == "outside" else EDITORS.load(name)(**OWN.get(name, {}))
    return editor


def started(editor: Editor, models: Models, rows: slice = slice(2)) -> EditState:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))[rows]
    sources = Sources(list(images.split(1)), models, Seeds.of(0, 2)[rows], neutral="a photo")
    return drain(stepped(editor.start(sources)))


def rendered(editor: Editor, state: EditState, prompts: list[str], strength: float) -> torch.Tensor:
    return drain(stepped(editor.render(state, prompts, strength)))


@pytest.mark.parametrize("name", [*EDITORS.files(), "outside"])
def test_an_editor_leaves_images_at_0_and_changes_each_row_by_its_own_prompt(
    name: str, models: Models
) -> None:
    editor = editor_of(name)
    state = started(editor, models)
    still = rendered(editor, state, PROMPTS, 0.0)
    after = rendered(editor, state, PROMPTS, 1.0)
    assert after.shape == still.shape == (2, 3, 32, 32)
    if editor.draws != "generator":  # what an inversion leaves over
        assert torch.equal(still, state.images)
    assert bool((after != still).flatten(1).any(1).all())
    assert bool(torch.isfinite(after).all())
    assert torch.equal(rendered(editor, state, PROMPTS, 1.0), after)
    other = started(editor, models, slice(1, 2))
    alone = rendered(editor, other, PROMPTS[1:], 1.0)
    torch.testing.assert_close(alone[0], after[1], atol=2e-3, rtol=0)
    swapped = rendered(editor, state.of_rows([1, 0]), PROMPTS[::-1], 1.0)
    torch.testing.assert_close(swapped, after.flip(0), atol=2e-3, rtol=0)
    if editor.has_opposite:
        assert bool((rendered(editor, state, PROMPTS, -1.0) != after).any())
    swept = drain(editor.sweep(state, PROMPTS, [1.0, 0.0, 0.5]))
    for images, strength in zip(swept, (1.0, 0.0, 0.5), strict=True):
        expected = rendered(editor, state, PROMPTS, strength)
        torch.testing.assert_close(images, expected, atol=2e-3, rtol=0)
    if editor.needs_prompt:
        again = rendered(editor, state, PROMPTS[::-1], 1.0)
        assert bool((again != after).flatten(1).any(1).all())


# ------------------------------------------------------------------ what is computed once


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[Any]:
    """How often each text and each batch of images was embedded, encoded, inverted."""
    made: Counter[Any] = Counter()

    def counted(owner: Any, name: str, key: Callable[..., list[Any]]) -> None:
        plain = getattr(owner, name)

        def call(*given: Any, **more: Any) -> Any:
            made.update(key(*given))
            return plain(*given, **more)

        monkeypatch.setattr(owner, name, call)

    def content(kind: str) -> Callable[..., list[Any]]:
        return lambda self, images: [(kind, row.numpy().tobytes()) for row in images.detach()]

    counted(ClipScorer, "embed_texts", lambda self, texts: [("text", each) for each in texts])
    counted(ClipScorer, "embed_images", content("image"))
    counted(source, "encode_images", lambda *given: ["encoding"])
    counted(inversion, "_before", lambda *given: ["inversion step"])
    counted(inversion, "invert_noise", lambda *given: ["inversion"])
    counted(DeltaNet, "forward", lambda *given: ["mapper"])
    return made


@pytest.mark.parametrize("name", ["text-diff", "ddim", "delta"])
def test_a_sweep_of_five_and_auto_compute_once_what_strengths_share(
    name: str, calls: Counter[Any], bundle: Path, models: Models, tmp_path: Path
) -> None:
    Image.radial_gradient("L").resize((32, 32)).convert("RGB").save(tmp_path / "a.png")
    roles = ("generator", "inverter", "delta") if name == "delta" else ("denoiser",)
    own = {role: models.kit[role] for role in roles}
    answer = guided.edit(
        str(tmp_path / "a.png"), method=name, prompt=["red hat", "blue sky"], strength="auto",
        sweep=[0.2, 0.4, 0.6, 0.8, 1.0], scorer=f"local-dir:{bundle}", neutral="a photo",
        device="cpu", faces="aligned", **OWN.get(name, {}), **own,
    ).result().answer  # fmt: skip
    assert len(answer["results"]) == 2
    texts = {key[1]: count for key, count in calls.items() if key[0] == "text"}
    assert texts["red hat"] == texts["blue sky"] == 1
    assert max(texts.values()) == 1
    pixels = to_tensor(Image.open(tmp_path / "a.png"))[0].numpy().tobytes()
    if name != "delta":
        assert calls[("image", pixels)] == 1
        assert calls["encoding"] == 1
        assert calls["inversion"] == (name == "text-diff")
        assert calls["inversion step"] == 4 * (name == "ddim")
    assert calls["mapper"] == (name == "delta")
