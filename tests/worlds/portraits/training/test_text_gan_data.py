from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image

from guided.errors import UsageError
from guided.scorers.clip import ClipScorer
from guided.training import text_gan_data
from guided.training.captioned_images import entries_of
from guided.training.folder_pairs import FolderPairs
from guided.training.objective import BatchContext, TrainingContext
from guided.training.text_gan_data import FolderScenes, Mix, jittered, spoken
from guided.worlds.portraits.attributes import KEYS, VALUES
from guided.worlds.portraits.grammar.claims import Claim
from guided.worlds.portraits.splits import sample
from guided.worlds.portraits.training.latent_world import conditional, facts, geometry_of
from guided.worlds.portraits.training.text_gan_world import WorldScenes, free_codes
from guided.worlds.portraits.training.world_data import ABSENT, codes_of
from tests.helpers.tiny_clip import bundle, scorer  # noqa: F401
from tests.helpers.tiny_text_gan import write_pictures


def folder_scenes(folder: Path, scorer: ClipScorer, mix: Mix) -> FolderScenes:  # noqa: F811
    pairs = FolderPairs(folder, 32, "text_gan", folder, hold_out=False)
    return FolderScenes(pairs, scorer, 8, mix)


HAT, COLOR, CLOTHING = (KEYS.index(key) for key in ("hat", "hat_color", "clothing"))


def test_what_is_not_claimed_stays_in_z() -> None:
    stream = np.random.default_rng(0)
    for seed in range(40):
        person = sample(seed, "train")
        own = np.array(codes_of(person), np.uint8)
        told = free_codes([Claim("glasses", frozenset({str(person.attributes["glasses"])}))], own,
                          stream)  # fmt: skip
        rest = [i for i, key in enumerate(KEYS) if key != "glasses"]
        assert (told[rest] == own[rest]).all()
        z = conditional(told[None], geometry_of(person)[None], stream)
        again, geometry = facts(z)
        seen = [i for i in range(len(KEYS)) if i != COLOR or told[HAT] != 0]
        assert (again[0, seen] == told[seen]).all()
        assert np.allclose(geometry[0], geometry_of(person), atol=1e-9)


def test_what_is_claimed_is_drawn_as_the_world_draws_it() -> None:
    stream, own = np.random.default_rng(1), np.array(codes_of(sample(3, "train")), np.uint8)
    column = KEYS.index("hair_color")
    claim = [Claim("hair_color", frozenset({VALUES["hair_color"][own[column]]}))]
    drawn = [free_codes(claim, own, stream)[column] for _ in range(4000)]
    shares = np.bincount(drawn, minlength=8) / 4000
    assert np.abs(shares - 1 / 8).max() < 0.025


def test_an_open_claim_leaves_the_choice_to_z() -> None:
    seed = next(i for i in range(99) if sample(i, "train").attributes["glasses"] == "square")
    own, stream = np.array(codes_of(sample(seed, "train")), np.uint8), np.random.default_rng(2)
    column, values = KEYS.index("glasses"), VALUES["glasses"]
    some = [Claim("glasses", frozenset({"round", "square", "sunglasses"}))]
    drawn = [values[free_codes(some, own, stream)[column]] for _ in range(400)]
    assert set(drawn) == {"none", "square"}


def test_the_place_of_a_hats_colour_survives_other_clothes() -> None:
    stream = np.random.default_rng(4)
    for seed in range(200):
        own = np.array(codes_of(sample(seed, "train")), np.uint8)
        if own[COLOR] == ABSENT:
            continue
        cloth = VALUES["clothing"][own[CLOTHING]]
        told = free_codes([Claim("clothing", frozenset({cloth}))], own, stream)
        place = [int(c[COLOR]) - int(c[COLOR] > c[CLOTHING]) for c in (own, told)]
        assert place[0] == place[1]
        assert told[COLOR] != told[CLOTHING]


class WholeTexts:
    """A scorer that takes texts of any length: random directions by text, mean colours."""

    name, width, scale = "whole", 24, 1.0

    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        rows = [
            torch.randn(24, generator=torch.Generator().manual_seed(crc32(text.encode())))
            for text in texts
        ]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d(images, (2, 4)).flatten(1)
        return torch.nn.functional.normalize(small, dim=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorldScenes]:
    ctx = TrainingContext(pools=tmp_path_factory.mktemp("pools"))
    scenes = WorldScenes(ctx, WholeTexts(), 32, 48, 1, Mix(0.25, 0.2, 0.1))  # type: ignore[arg-type]
    scenes.drawn = 32
    yield scenes
    scenes.close()


def test_a_batch_of_the_world(world: WorldScenes) -> None:
    batch, again = world.batch(BatchContext(0, 1, 24)), world.batch(BatchContext(0, 1, 24))
    assert torch.equal(batch.z, again.z)
    assert torch.equal(batch.text, again.text)
    assert batch.pictures.shape == (24, 3, 32, 32)
    assert batch.z.shape == (24, 128)
    assert batch.uniform.shape == (48, 8)
    lengths = batch.text.norm(dim=1)
    free = lengths < 1e-6
    assert 0 < int(free.sum()) < 12
    assert torch.allclose(lengths[~free], torch.ones(int((~free).sum())), atol=1e-4)
    assert not batch.mismatched[free].any()
    differ = (batch.text - batch.wrong).abs().sum(1) > 1e-4
    assert bool((differ | ~batch.mismatched).all())
    assert int(batch.mismatched.sum()) > 12


def test_processes_share_a_batch(world: WorldScenes) -> None:
    whole = world.batch(BatchContext(0, 0, 16))
    halves = [world.batch(BatchContext(0, 0, 16, rank, 2)) for rank in (0, 1)]
    for name in ("pictures", "z", "truth"):
        both = torch.cat([getattr(half, name) for half in halves])
        assert torch.equal(both, getattr(whole, name)), name
    assert torch.allclose(torch.cat([half.text for half in halves]), whole.text, atol=1e-4)


def test_words_of_the_world(world: WorldScenes) -> None:
    words = world.words()
    assert {"person", "hat", "green", "smiling"} <= set(words)
    assert "zebra" not in words
    assert spoken(["A red-haired one, 2 x", "a"]) == ["a", "one", "red-haired", "x"]


def test_noise_turns_features_a_little() -> None:
    text = torch.nn.functional.normalize(torch.randn(50, 64), dim=1)
    noisy = jittered(text, torch.randn(50, 64), 0.1)
    assert torch.allclose(noisy.norm(dim=1), torch.ones(50), atol=1e-5)
    assert 0.97 < float((noisy * text).sum(1).min()) < 1
    assert torch.allclose(jittered(text, torch.randn(50, 64), 0.0), text, atol=1e-6)


def write_shard(file: Path, count: int = 4) -> Path:
    with tarfile.open(file, "w") as shard:
        for place in range(count):
            buffer = io.BytesIO()
            Image.new("RGB", (20, 20), (60 * place, 10, 10)).save(buffer, "PNG")
            said = f"number {place}".encode()
            table = json.dumps({"caption": f"number {place}"}).encode()
            text = ("txt", said) if place % 2 else ("json", table)
            for kind, data in (("png", buffer.getvalue()), text):
                info = tarfile.TarInfo(f"{place:03d}.{kind}")
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))
    return file


def test_shards_and_folders_are_read(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar")
    found = entries_of(tmp_path)
    assert [entry.captions for entry in found] == [(f"number {i}",) for i in range(4)]
    assert found[2].open(64).getpixel((0, 0)) == (120, 10, 10)
    plain = entries_of(write_pictures(tmp_path / "plain", 3))
    assert [entry.captions[0] for entry in plain] == ["a red square", "a green square",
                                                      "a blue square"]  # fmt: skip


def test_folders_that_cannot_be_learnt_say_why(tmp_path: Path, scorer: ClipScorer) -> None:  # noqa: F811
    with pytest.raises(UsageError, match="There is no folder"):
        entries_of(tmp_path / "missing")
    with pytest.raises(UsageError, match="There are no images in"):
        entries_of(tmp_path)
    write_pictures(tmp_path / "one", 1)
    with pytest.raises(UsageError, match="this training needs at least 2"):
        folder_scenes(tmp_path / "one", scorer, Mix())
    (tmp_path / "bad.tar").write_bytes(b"not a tar file at all")
    with pytest.raises(UsageError, match=r"bad\.tar cannot be read.*KEY\.jpg"):
        entries_of(tmp_path)


def test_a_batch_of_a_folder(tmp_path: Path, scorer: ClipScorer) -> None:  # noqa: F811
    scenes = folder_scenes(write_pictures(tmp_path), scorer, Mix(0.25, 0.2, 0.0))
    assert scenes.small
    batch, again = scenes.batch(BatchContext(0, 0, 8)), scenes.batch(BatchContext(0, 0, 8))
    assert torch.equal(batch.pictures, again.pictures)
    assert torch.equal(batch.text, again.text)
    assert batch.z.shape == (8, 8)
    assert batch.truth is None
    assert scenes.words() == ["a", "blue", "green", "red", "square"]
    val_set = scenes.validation_set(6)
    assert val_set.images.shape == (6, 3, 32, 32)
    assert val_set.words[0] == "a red square"


def test_what_is_embedded_does_not_depend_on_who_asks_first(
    tmp_path: Path,
    scorer: ClipScorer,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(text_gan_data, "GROUP", 4)
    folder, every = write_pictures(tmp_path, 10), list(range(10))
    first, other = (folder_scenes(folder, scorer, Mix()) for _ in range(2))
    pictures, features = first._pictures(every)
    texts = first._texts(every, [0.0] * 10)
    for row in (9, 3, 0, 7):
        own, feature = other._pictures([row])
        assert torch.equal(own[0], pictures[row])
        assert torch.equal(feature[0], features[row])
        assert torch.equal(other._texts([row], [0.99])[0], texts[row])
        read = scorer.embed_texts([other.entries[row].captions[0]])
        assert torch.allclose(read[0], texts[row], atol=1e-5)


def test_a_text_that_fits_as_well_is_no_mismatch(tmp_path: Path, scorer: ClipScorer) -> None:  # noqa: F811
    scenes = folder_scenes(write_pictures(tmp_path, 4), scorer, Mix(0.0, 0.0, 0.0))
    seen = torch.eye(4, 24)
    texts = torch.eye(4, 24)
    kind, noise = torch.full((4,), 0.5), torch.zeros(4, 24)
    assert scenes._conditions(seen, texts, kind, noise)[2].all()
    alike = texts[:1].expand(4, -1)
    assert not scenes._conditions(alike, alike, kind, noise)[2].any()
