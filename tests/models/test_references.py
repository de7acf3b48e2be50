"""Model references: every form for every role leads to the same files, or says why it cannot."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from guided.errors import CannotDo, GuidedError, MissingWeights, UsageError
from guided.models import Models, Reference
from guided.models.references import FOLDERS, WEIGHTS
from guided.zoo import architectures
from guided.zoo.folders import SHIPPED
from guided.zoo.kits import ROLES, load_kit

KIT = load_kit("portraits")
ONE_FILE = sorted({*ROLES} - {*FOLDERS, "perceptual"})


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and a current folder of our own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("GUIDED_MODELS", str(tmp_path / "mine"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cached(hub: Path, repository: str, model: Path, revision: str = "main") -> Path:
    """A model's files as the hub's client lays a repository out; its snapshot."""
    root = hub / f"models--{repository.replace('/', '--')}"
    commit = hashlib.sha1(revision.encode()).hexdigest()
    shutil.copytree(model, root / "snapshots" / commit)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / revision).write_text(commit)
    (root / "snapshots" / commit / "card.toml").unlink(missing_ok=True)
    return root / "snapshots" / commit


@pytest.mark.parametrize("role", sorted(KIT))
def test_every_form_leads_to_a_roles_files(role: str, places: Path) -> None:
    model = SHIPPED / KIT[role]
    by_card = Reference.parse(KIT[role], role).locate(whole=True)
    assert by_card.folder == model
    main = by_card.main.relative_to(model)
    snapshot = cached(places / "hub", "someone/model", model)
    old = cached(places / "hub", "someone/model", model, "v1")
    forms = {
        str(model): model,
        f"local-dir:{model}": model,
        "someone/model": snapshot,
        "hf-hub:someone/model": snapshot,
        "someone/model@v1": old,
    }
    for text, folder in forms.items():
        where = Reference.parse(text, role).locate()
        assert where.folder == folder, text
        if role in ONE_FILE:
            assert where.file == folder / main, text
    whole_cache = places / "hub" / "models--someone--model"
    if role in ONE_FILE:
        assert Reference.parse(str(model / main), role).locate().file == model / main
    assert Reference.parse(str(whole_cache), role).locate().folder == snapshot


def test_the_kind_is_read_from_the_text() -> None:
    kinds = {
        "clip": "card",
        "ViT-B-32/laion2b_s34b_b79k": "card",
        "ViT-L-14/openai": "open_clip",
        "ViT-B-32": "open_clip",
        "laion/CLIP-ViT-B-32": "hub",
        "hf-hub:laion/CLIP": "hub",
        "local-dir:a/b": "folder",
        "weights/net.pt": "file",
        "object:CLIP": "object",
    }
    assert {text: Reference.parse(text, "scorer").kind for text in kinds} == kinds
    assert Reference.parse(object(), "scorer").text == "object:object"
    assert Reference.parse("laion/CLIP@v2", "scorer").revision == "v2"
    assert Reference.parse("ViT-L-14/openai", "denoiser").kind == "hub"  # no CLIP there


@pytest.mark.parametrize("role", ["scorer", "language", "generator", "denoiser", "text_gan"])
@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("owner/..", UsageError, "cannot be the name of a repository"),
        ("hf-hub:alone", UsageError, "OWNER/NAME@REVISION"),
        ("local-dir:nowhere", MissingWeights, "no folder nowhere"),
        ("nowhere.safetensors", MissingWeights, "nowhere.safetensors"),
        ("someone/else", MissingWeights, "guided models get someone/else --online"),
    ],
)
def test_what_leads_nowhere_says_so(
    role: str, text: str, error: type[GuidedError], says: str
) -> None:
    with pytest.raises(error) as caught:
        Reference.parse(text, role).locate()
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("role", "text", "says"),
    [
        ("scorer", "clop", "Did you mean 'clip'"),
        ("scorer", "ViT-B-33/openai", "Did you mean 'ViT-B-32'"),
        ("scorer", "ViT-B-32/openia", "no weights called 'openia'. Did you mean 'openai'"),
        ("language", "gtp2", "Did you mean 'gpt2'"),
        ("generator", "stylegan", "Did you mean 'stylegan2'"),
        ("generator", "clip", "is a scorer, not a generator"),
        ("scorer", "judge-clip", "is a judge, not a scorer"),
    ],
)
def test_mistyped_names_get_the_nearest_of_the_role(role: str, text: str, says: str) -> None:
    with pytest.raises((UsageError, MissingWeights, CannotDo)) as caught:
        Reference.parse(text, role).locate()
    assert says in str(caught.value)


def test_one_file_is_taken_where_it_belongs_to_a_folder(places: Path) -> None:
    alone = places / "net.safetensors"
    alone.write_bytes(b"x")
    for role, mark in FOLDERS.items():
        with pytest.raises(UsageError, match="is a folder with"):
            Reference.parse(str(alone), role).locate()
        (places / mark).parent.mkdir(exist_ok=True)
        (places / mark).write_text("{}")
        assert Reference.parse(str(alone), role).locate().folder == places
        (places / mark).unlink()


def test_a_folder_of_several_weight_files_asks_which(places: Path) -> None:
    for ending in WEIGHTS[:2]:
        (places / f"a{ending}").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"holds 2 weight files.*a\.pt, a\.pth"):
        Reference.parse(str(places), "generator").locate()


def test_open_clips_tables_are_read_without_it() -> None:
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    assert set(architectures.architectures()) == set(open_clip.list_models())
    for name, tag in open_clip.list_pretrained():
        ours, theirs = architectures.source_of(name, tag) or {}, get_pretrained_cfg(name, tag)
        for key in ("hf_hub", "url"):
            assert ours.get(key, "") == (theirs.get(key) or ""), (name, tag, key)


def test_an_option_goes_before_the_kit_and_notes_say_what_was_used() -> None:
    notes: dict[str, str] = {}
    models = Models(
        KIT, {"generator": str(SHIPPED / "stylegan2" / "model.safetensors")}, notes=notes
    )
    assert models.named("generator").endswith("model.safetensors")
    assert models.need("generator") == models.choosing({}).need("generator")
    assert notes["model.safetensors"] == notes["stylegan2"]
    assert models.has("identity")
    assert not models.choosing({"identity": "none.pt"}).has("identity")
    with pytest.raises(CannotDo, match="No mapper is named"):
        models.need("mapper")
