from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from guided.core.device import Device
from guided.core.images import to_tensor
from guided.errors import CannotDo, CorruptWeights, MissingWeights, ShapeError
from guided.nets.reader import ReaderNet
from guided.tasks.base import TaskContext
from guided.worlds.portraits import KEYS, VALUES, draw, sample
from guided.worlds.portraits.judging.reader import Reader, accuracy
from guided.worlds.portraits.tasks import read
from guided.worlds.portraits.training.reading import CLASSES, architecture
from guided.zoo import resolve
from guided.zoo.cards import Card, write_card
from guided.zoo.checksums import fresh_digest
from guided.zoo.packing import save_weights

CPU = Device("cpu")


@pytest.fixture(scope="module")
def reader() -> Reader:
    """A reader with random weights."""
    torch.manual_seed(0)
    return Reader(ReaderNet(CLASSES, (8, 8, 8), (0, 0, 0), 4, 16), CPU)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return to_tensor([draw(sample(seed, "val"), 128) for seed in range(12)])


def test_a_reading_names_every_attribute(reader: Reader, images: Tensor) -> None:
    readings = reader.read(images)
    assert len(readings) == 12
    for reading in readings:
        assert list(reading.attributes) == list(KEYS)
        for key, odds in reading.probabilities.items():
            assert tuple(odds) == VALUES[key]
            assert sum(odds.values()) == pytest.approx(1, abs=1e-5)
            if key != "hat_color":
                assert reading.attributes[key] == max(odds, key=odds.__getitem__)
        assert (reading.attributes["hat_color"] is None) == (reading.attributes["hat"] == "none")


def test_rows_of_a_batch_are_read_alone(reader: Reader, images: Tensor) -> None:
    together = reader.read(images)
    for row in (0, 7):
        alone = reader.read(images[row : row + 1])[0]
        assert alone.attributes == together[row].attributes
        assert alone.distance == pytest.approx(together[row].distance, rel=1e-3, abs=1e-6)
    features = reader.features(images)
    assert features.shape == (12, 16)
    assert bool((features >= 0).all())
    assert torch.allclose(features[3:4], reader.features(images[3:4]), atol=1e-4)
    assert reader.read(images[:0]) == []
    assert reader.features(images[:0]).shape == (0, 16)


def test_other_sizes_are_brought_to_the_reader_s(reader: Reader) -> None:
    portrait = sample(4, "val")
    small, large = (to_tensor(draw(portrait, size)) for size in (128, 384))
    near = reader.read(small)[0].probabilities["background"]
    far = reader.read(large)[0].probabilities["background"]
    assert all(abs(near[value] - far[value]) < 0.05 for value in near)


def test_other_shapes_are_refused(reader: Reader) -> None:
    with pytest.raises(ShapeError, match=r"images must have the shape \[b, 3, h, w\]"):
        reader.read(torch.zeros(3, 128, 128))


def test_pictures_far_from_the_drawn_ones_are_told_of(reader: Reader, images: Tensor) -> None:
    net = reader.net
    before = net.domain_limit.clone()
    net.domain_limit = torch.tensor(1e-6)
    try:
        reading = reader.read(images[:1])[0]
    finally:
        net.domain_limit = before
    assert not reading.drawn
    assert "not a drawn portrait" in reading.warning
    inside = reader.read(images[:1])[0]
    assert inside.drawn
    assert inside.warning == ""


def test_accuracy_is_counted_where_the_portrait_shows_it(reader: Reader, images: Tensor) -> None:
    portraits = [sample(seed, "val") for seed in range(12)]
    table = accuracy(reader, portraits, images)
    readings = reader.read(images)
    for key, entry in table.items():
        rows = [i for i, portrait in enumerate(portraits) if portrait.visible()[key]]
        likeliest = [
            max(readings[i].probabilities[key].items(), key=lambda p: p[1])[0] for i in rows
        ]
        right = [
            portraits[i].attributes[key] == value for i, value in zip(rows, likeliest, strict=True)
        ]
        assert entry.count == len(rows)
        assert entry.value == pytest.approx(np.mean(right))
        values = [portraits[i].attributes[key] for i in rows]
        assert entry.floor == pytest.approx(max(map(values.count, values)) / len(values))
    with pytest.raises(ShapeError, match="3 portraits cannot judge 12 pictures"):
        accuracy(reader, portraits[:3], images)


# --------------------------------------------------------------------------- files


def _ship(folder: Path, reader: Reader, role: str = "reader", **config: Any) -> None:
    """Put a reader into a user's folder of models."""
    place = folder / "toy"
    place.mkdir(parents=True)
    weights = save_weights(place / "model.safetensors", reader.net.state_dict(), "fp32")
    text = json.dumps({**architecture(reader.net), **config})
    (place / "config.json").write_text(text)
    card = Card(
        name="toy", role=role, kind="reader", file="model.safetensors", origin="added",
        licence="none", sha256=fresh_digest(weights), size=weights.stat().st_size,
        companions={"config.json": fresh_digest(place / "config.json")},
    )  # fmt: skip
    write_card(card, place / "card.toml")


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(resolve, "user_folder", lambda: tmp_path)
    return tmp_path


def test_a_reader_is_loaded_by_name(models: Path, reader: Reader, images: Tensor) -> None:
    _ship(models, reader)
    loaded = Reader.load("toy", CPU)
    assert torch.equal(loaded.features(images), reader.features(images))
    assert loaded.sha256 == fresh_digest(models / "toy" / "model.safetensors")
    assert not any(p.requires_grad for p in loaded.net.parameters())


def test_what_is_no_reader_is_refused(models: Path, reader: Reader) -> None:
    with pytest.raises(MissingWeights, match="no model called 'toy'"):
        Reader.load("toy", CPU)
    _ship(models, reader, features=17)
    with pytest.raises(CorruptWeights, match=r"does not fit this version.*build reader"):
        Reader.load("toy", CPU)


def test_the_verb_reads_files_and_names_those_it_cannot(
    models: Path, reader: Reader, tmp_path: Path, caplog: Any
) -> None:
    reader.net.domain_limit = torch.tensor(1e4)
    _ship(models, reader)
    good, wide, bad = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
    draw(sample(1), 128).save(good)
    Image.new("RGB", (200, 90), "teal").save(wide)
    bad.write_bytes(b"no picture")
    ctx = TaskContext(device_name="cpu", kit={"reader": "toy"})
    steps = read.run(read.Options(images=[str(good), str(bad), str(wide)]), ctx)
    assert next(steps).total == 3
    with pytest.raises(StopIteration) as end, caplog.at_level(logging.WARNING):
        next(steps)
    answer = end.value.value.answer
    assert [entry["file"] for entry in answer["results"]] == [str(good), str(wide)]
    assert set(answer["results"][0]) == {"file", "attributes", "probabilities"}
    assert [entry["file"] for entry in answer["errors"]] == [str(bad)]
    assert ctx.notes == {"toy": fresh_digest(models / "toy" / "model.safetensors")}


def test_the_verb_needs_a_reader(tmp_path: Path) -> None:
    with pytest.raises(CannotDo, match="No reader is named"):
        next(read.run(read.Options(images=["x.png"]), TaskContext(device_name="cpu")))


# --------------------------------------------------------------------------- the shipped reader


@pytest.fixture(scope="module")
def shipped() -> Reader:
    try:
        return Reader.load("reader", CPU)
    except MissingWeights as error:
        pytest.skip(f"no shipped reader: {error}")


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_shipped_reader_reads_well(shipped: Reader, split: Any) -> None:
    portraits = [sample(seed, split) for seed in range(20_000, 20_160)]
    table = accuracy(shipped, portraits, [draw(portrait, 128) for portrait in portraits])
    mean = np.mean([entry.value for entry in table.values()])
    assert mean >= (0.985 if split == "val" else 0.97), table
    assert all(entry.value > entry.floor for entry in table.values())


def test_the_shipped_reader_knows_a_photograph_from_a_portrait(shipped: Reader) -> None:
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(image) for image in load_sample_images().images]
    crops = [
        photo.crop((x, 0, x + 420, 420)).resize((128, 128)) for photo in photos for x in (0, 200)
    ]
    noise = torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    assert not any(reading.drawn for reading in shipped.read(to_tensor(crops)))
    assert not any(reading.drawn for reading in shipped.read(noise))
    portraits = to_tensor([draw(sample(seed, "test"), 128) for seed in range(64)])
    assert sum(reading.drawn for reading in shipped.read(portraits)) >= 62
