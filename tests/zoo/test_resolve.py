"""Cards, their checks, the search for models, kits, and the shipped files themselves."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from guided import zoo
from guided.errors import (
    CannotDo,
    CorruptWeights,
    MissingWeights,
    UnsafeWeights,
    UsageError,
)
from guided.zoo import cards, check, checksums, folders, hub, kits, resolve
from guided.zoo.add import add
from guided.zoo.packing import save_weights


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of this test alone, and the environment restored afterwards."""
    monkeypatch.setenv("GUIDED_MODELS", str(tmp_path / "mine"))
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "1")
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    for module in (resolve, check):
        monkeypatch.setattr(module, "SHIPPED", shipped)
    monkeypatch.setattr("guided.zoo.add.SHIPPED", shipped)
    monkeypatch.setattr(hub, "cached", lambda card: None)
    checksums.forget()


def trained(**changes: Any) -> dict[str, Any]:
    table: dict[str, Any] = {
        "name": "small", "role": "reader", "kind": "reader", "file": "model.safetensors",
        "licence": "Apache-2.0", "sha256": "0" * 64, "size": 10, "parameters": 5,
        "recipe": "recipes/train/reader.toml", "data_seed": 0, "git_revision": "abc",
        "samples_seen": 1000, "core_hours": 1.5, "grade": "cpu",
        "metrics": {"accuracy": {"value": 0.9, "floor": 0.1, "ceiling": 1.0}},
    }  # fmt: skip
    return {key: value for key, value in (table | changes).items() if value is not None}


def ship(root: Path, name: str = "small", **changes: Any) -> Path:
    folder = root / "shipped" / name
    folder.mkdir(parents=True)
    file = save_weights(folder / "model.safetensors", {"a": torch.ones(3)})
    (folder / "words.json").write_text("{}")
    card = trained(
        name=name, sha256=checksums.fresh_digest(file), size=file.stat().st_size,
        companions={"words.json": hashlib.sha256(b"{}").hexdigest()}, **changes,
    )  # fmt: skip
    cards.write_card(cards.card_from(card, "test"), folder / "card.toml")
    return folder


def test_a_card_survives_the_round_trip(tmp_path: Path) -> None:
    card = cards.card_from(trained(notes='quotes " and\nlines', companions={"a/b.txt": ""}), "x")
    path = cards.write_card(card, tmp_path / "card.toml")
    assert cards.read_card(path) == card
    assert card.metrics["accuracy"].ceiling == 1.0
    assert card.files == ["model.safetensors", "a/b.txt"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"license": "MIT"}, "unknown key 'license'. Did you mean 'licence'"),
        ({"size": "10"}, "size: "),
        ({"size": 0}, "size: "),
        ({"sha256": "abc"}, "sha256: "),
        ({"sha256": None}, "sha256 and size are needed"),
        ({"recipe": None}, "a trained model also needs recipe"),
        ({"core_hours": None}, "needs core_hours or gpu_minutes"),
        ({"metrics": {}}, "needs metrics"),
        ({"metrics": {"a": {"value": float("nan")}}}, "metrics.a.value"),
        ({"metrics": {"a": {"value": 1.0, "flor": 0}}}, "metrics.a.flor"),
        ({"grade": "tpu"}, "grade: "),
        ({"file": "../x"}, "file: '../x' is not a plain file name"),
        ({"file": "/etc/passwd"}, "is not a plain file name"),
        ({"file": "a\\b"}, "is not a plain file name"),
        ({"file": "card.toml"}, "is not a plain file name"),
        ({"companions": {"../x": ""}}, "is not a plain file name"),
        ({"companions": {"x": "zz"}}, "companions.x"),
        ({"name": "../x"}, "name: "),
        ({"origin": "public"}, "a public model needs its source"),
    ],
)
def test_wrong_cards_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CorruptWeights, match=said.replace("(", r"\(")):
        cards.card_from(trained(**changes), "the card")


def test_unreadable_cards_are_refused(tmp_path: Path) -> None:
    for i, data in enumerate((b"name = ", b"\xff\xfe", b"a = " + b"[" * 5000, b"#" * (2 << 20))):
        path = tmp_path / f"{i}.toml"
        path.write_bytes(data)
        with pytest.raises(CorruptWeights, match=f"{i}.toml"):
            cards.read_card(path)


def test_a_shipped_model_is_found_and_checked(tmp_path: Path) -> None:
    folder = ship(tmp_path)
    found = resolve.find("small", "reader")
    assert (found.path, found.place) == (folder / "model.safetensors", "shipped")
    assert found.folder == folder
    assert found.sha256 == checksums.fresh_digest(found.path)
    assert [card.name for card, here in resolve.catalogue() if here] == ["small"]
    assert "small" in resolve.names()


def test_damage_is_seen_whatever_the_file(tmp_path: Path) -> None:
    folder = ship(tmp_path)
    model = folder / "model.safetensors"
    good = model.read_bytes()
    model.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(
        CorruptWeights, match=r"model\.safetensors is damaged.*Install guided again"
    ):
        resolve.find("small")
    model.write_bytes(good + b"x")
    with pytest.raises(CorruptWeights, match=r"bytes, but its card says"):
        resolve.find("small")
    model.write_bytes(good)
    resolve.find("small")
    (folder / "words.json").write_text("[]")
    with pytest.raises(CorruptWeights, match=r"words\.json is damaged"):
        resolve.find("small")
    (folder / "words.json").unlink()
    with pytest.raises(MissingWeights, match=r"lacks its file .*words\.json"):
        resolve.find("small")


def test_hashes_are_kept_for_unchanged_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(tmp_path)
    resolve.find("small")
    calls: list[Path] = []
    real = checksums.fresh_digest
    monkeypatch.setattr(checksums, "fresh_digest", lambda path: (calls.append(path), real(path))[1])
    resolve.find("small")
    assert calls == []
    model = tmp_path / "shipped" / "small" / "model.safetensors"
    os.utime(model, ns=(1, 1))
    resolve.find("small")
    assert calls == [model]


def test_roles_are_respected(tmp_path: Path) -> None:
    ship(tmp_path)
    ship(tmp_path, "guide", role="scorer")
    ship(tmp_path, "judge", role="judge")
    with pytest.raises(CannotDo, match=r"'small' is a reader, not a scorer.*role: .*guide"):
        resolve.find("small", "scorer")
    resolve.find("guide", "judge")
    with pytest.raises(CannotDo, match="'judge' is a judge, not a scorer"):
        resolve.find("judge", "scorer")


def test_a_model_of_a_kit_that_is_not_here_is_named_with_what_to_do(tmp_path: Path) -> None:
    ship(tmp_path)
    with pytest.raises(MissingWeights, match=r"language 'gpt2-portraits' of the kit.*not on") as no:
        resolve.find("gpt2-portraits")
    assert "--kit photo" in str(no.value.hint)
    assert "scripts/build gpt2-portraits" in str(no.value.hint)
    with pytest.raises(MissingWeights) as alone:  # the other kit has none in that role
        resolve.find("delta")
    assert "--kit" not in str(alone.value.hint)


@pytest.mark.parametrize(
    "name", ["../small", "..", "/etc", "a/../../b", "", ".", "a\0b", "x" * 5000]
)
def test_hostile_names_find_nothing(tmp_path: Path, name: str) -> None:
    ship(tmp_path)
    with pytest.raises(MissingWeights, match="There is no model called"):
        resolve.find(name)


def test_a_name_that_is_not_known_is_told_what_there_is_for_its_role(tmp_path: Path) -> None:
    ship(tmp_path)
    with pytest.raises(MissingWeights) as caught:
        resolve.find("smal", "reader")
    assert "Did you mean 'small'?" in caught.value.hint
    with pytest.raises(MissingWeights) as caught:
        resolve.find("smal", "vae")
    assert "small" not in caught.value.hint
    assert caught.value.hint.startswith("Own files")


def test_a_card_of_another_name_is_refused(tmp_path: Path) -> None:
    folder = ship(tmp_path)
    folder.rename(folder.with_name("other"))
    with pytest.raises(CorruptWeights, match="is that of 'small'"):
        resolve.find("other")


def test_a_missing_public_model_says_everything() -> None:
    with pytest.raises(MissingWeights) as caught:
        resolve.find("gpt2", "language")
    said = str(caught.value)
    place = str(folders.user_folder() / "gpt2")
    parts = [
        "'gpt2'",
        "model.safetensors and 4 more",
        "548 MB",
        "openai-community/gpt2",
        "MIT",
        place,
    ]
    for part in [*parts, "guided models get gpt2 --online"]:
        assert part in said
    with pytest.raises(
        MissingWeights, match=r"guided models add model_ir_se50\.pth --name ir-se50"
    ):
        resolve.find("ir-se50")
    with pytest.raises(MissingWeights, match=r"Did you mean 'gpt2'.*guided models add FILE --name"):
        resolve.find("gpt")


def test_public_files_may_be_placed_by_hand() -> None:
    folder = folders.user_folder() / "gpt2"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "merges.txt", "tokenizer.json"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(MissingWeights):
        resolve.find("gpt2")
    (folder / "vocab.json").write_bytes(b"x")
    assert resolve.find("gpt2").path == folder / "model.safetensors"
    flat = folders.user_folder() / "model_ir_se50.pth"
    flat.write_bytes(b"x")
    assert resolve.find("ir-se50", "identity").path == flat


def test_adding_a_file(tmp_path: Path) -> None:
    file = tmp_path / "my net.pt"
    torch.save({"w": torch.ones(2, 3)}, file)
    with pytest.raises(UsageError, match="'my net' cannot be a model's name"):
        add(file)
    found = add(file, "mine")
    assert found.path == folders.user_folder() / "mine" / "my net.pt"
    assert found.path.read_bytes() == file.read_bytes()
    again = resolve.find("mine", "generator")
    assert (again.place, again.card.parameters, again.card.format) == ("yours", 6, "torch")
    found.path.write_bytes(b"broken")
    with pytest.raises(CorruptWeights, match="guided models add FILE --name mine"):
        resolve.find("mine")


def test_adding_a_public_file_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "model_ir_se50.pth"
    torch.save({"w": torch.ones(2)}, file)
    assert add(file).card.name == "ir-se50"
    found = resolve.find("ir-se50", "identity")
    assert (found.card.kind, found.card.licence[:3]) == ("ir_se50", "MIT")


def test_what_cannot_be_added(tmp_path: Path) -> None:
    ship(tmp_path)
    file = tmp_path / "evil.pt"
    file.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UnsafeWeights):
        add(file, "evil")
    assert not (folders.user_folder() / "evil").exists()
    torch.save({"w": torch.ones(2)}, file)
    with pytest.raises(UsageError, match="'small' is the name of a shipped model"):
        add(file, "small")
    with pytest.raises(UsageError, match="cannot be a model's name"):
        add(file, "../up")
    with pytest.raises(MissingWeights, match="There is no weight file"):
        add(tmp_path / "none.pt")


def test_check_all_tells_every_model(tmp_path: Path) -> None:
    ship(tmp_path)
    broken = ship(tmp_path, "other")
    (broken / "words.json").write_text("[]")
    nonsense = ship(tmp_path, "third") / "card.toml"
    nonsense.write_text("name = 3")
    results = {result["name"]: result["error"] for result in check.check_all()}
    assert results["small"] == ""
    assert "words.json is damaged" in results["other"]
    assert "not a model card" in results["third"]


def test_the_network_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(MissingWeights):
        resolve.find("gpt2")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert constants.HF_HUB_OFFLINE is True
    folders.settle_network(online=True)
    assert os.environ["HF_HUB_OFFLINE"] == "0"
    assert constants.HF_HUB_OFFLINE is False
    folders.settle_network(online=False)


def test_online_downloads_once_and_only_public_hub_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    folder = tmp_path / "snapshot"
    folder.mkdir()

    def download(card: cards.Card) -> Path:
        asked.append(card.repository)
        for name in card.files:
            (folder / name).write_bytes(b"x")
        return folder

    monkeypatch.setattr(hub, "download", download)
    monkeypatch.setattr(hub, "cached", lambda card: folder if asked else None)
    with pytest.raises(MissingWeights):
        resolve.find("gpt2")
    assert asked == []
    assert resolve.find("gpt2", online=True).place == "hub"
    assert asked == ["openai-community/gpt2"]
    resolve.find("gpt2", online=True)
    assert len(asked) == 1
    with pytest.raises(MissingWeights, match="guided models add"):
        resolve.find("e4e-ffhq", online=True)


def test_user_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDED_MODELS", "/x/y")
    assert folders.user_folder() == Path("/x/y")
    monkeypatch.delenv("GUIDED_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert folders.user_folder() == Path("/c/guided/models")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert folders.user_folder() == Path.home() / ".cache" / "guided" / "models"


@pytest.mark.parametrize("path", sorted(folders.PUBLIC.glob("*.toml")), ids=lambda path: path.stem)
def test_public_cards(path: Path) -> None:
    card = cards.read_card(path)
    assert card.origin == "public"
    assert path.stem == cards.folder_name(card.name)
    assert card.role in kits.ROLES
    assert card.source.startswith("https://")
    assert card.repository == "" or card.source.endswith(card.repository)


def test_every_shipped_file_is_on_a_card_and_whole() -> None:
    """Of whatever this checkout ships: no stray file, no damage, 40 MiB at most."""
    checksums.forget()
    total = 0
    for folder in sorted(path for path in folders.SHIPPED.glob("*") if path.is_dir()):
        card = cards.read_card(folder / cards.CARD_FILE)
        assert card.origin == "trained"
        assert card.role in kits.ROLES
        checksums.verify(folder, card)
        paths = [path for path in folder.rglob("*") if path.is_file()]
        files = {path.relative_to(folder).as_posix() for path in paths}
        assert files == {cards.CARD_FILE, *card.files}
        assert all(card.companions.values()), "a shipped companion needs its sha256"
        total += sum(path.stat().st_size for path in paths)
    assert total <= 40 << 20


def test_the_public_names_and_no_torch() -> None:
    assert set(zoo.__all__) == set(zoo._HOMES)
    for name in zoo.__all__:
        assert getattr(zoo, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        zoo.nothing  # noqa: B018
    script = "import sys; from guided.zoo import find, load_kit, names; names(); load_kit('photo')"
    script += "; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
