from __future__ import annotations

import pytest
import torch

from guided.core.device import Device
from guided.scorers.identity import PortraitIdentity
from guided.worlds.portraits import KEYS
from guided.worlds.portraits.judging.inversion_figures import inversion_figures
from guided.worlds.portraits.judging.reader import Reader
from tests.helpers.tiny_edit import tiny_identity


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader.load("reader", Device())


def test_a_perfect_inversion_reaches_the_ceiling(reader: Reader) -> None:
    identity = PortraitIdentity(tiny_identity())
    middle = torch.full((3, 128, 128), 0.5)
    found = inversion_figures(lambda images: images, middle, reader, identity, "val", 12)
    assert set(found) == {"kept", "l1", "identity", *(f"kept_{key}" for key in KEYS)}
    assert found["kept"].rate.value == found["kept"].ceiling > 0.95
    assert found["kept"].floor < 0.6
    assert found["l1"].rate.value == 0
    assert found["l1"].floor > 0.1
    assert found["identity"].rate.value == pytest.approx(1, abs=1e-5)


def test_an_inversion_that_sees_nothing_is_at_the_floor(reader: Reader) -> None:
    identity = PortraitIdentity(tiny_identity())
    middle = torch.full((3, 128, 128), 0.5)

    def blind(images: torch.Tensor) -> torch.Tensor:
        return middle.expand(len(images), -1, -1, -1)

    found = inversion_figures(blind, middle, reader, identity, "test", 8)
    for name, figure in found.items():
        assert figure.rate.value == pytest.approx(figure.floor, abs=1e-5), name
