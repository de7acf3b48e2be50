from __future__ import annotations

import pytest
import torch

from guided.errors import CorruptWeights, ShapeError
from guided.nets.e4e import StyleEncoder, build_encoder
from guided.nets.irse50 import IRSE50, build_irse50, crop_face
from guided.nets.mappers import (
    LevelsMapper,
    SingleMapper,
    StyleSpaceMapper,
    build_mapper,
    mapped,
)
from tests.helpers.tiny_faces import STYLE, WIDTHS, seeded


@pytest.fixture(scope="module")
def face_state() -> dict[str, torch.Tensor]:
    return seeded(lambda: IRSE50(WIDTHS, 12)).state_dict()


@pytest.fixture(scope="module")
def encoder_state() -> dict[str, torch.Tensor]:
    return seeded(lambda: StyleEncoder(WIDTHS, 8, STYLE)).state_dict()


def test_face_embeddings_are_unit_and_of_any_width(face_state) -> None:
    net = build_irse50(face_state)
    with torch.no_grad():
        found = net(torch.zeros(2, 3, 112, 112))
    assert found.shape == (2, 12)
    assert torch.allclose(found.norm(dim=1), torch.ones(2))
    with pytest.raises(ShapeError, match="112"):
        net(torch.zeros(2, 3, 100, 100))


def test_the_crop_of_a_ramp() -> None:
    """A picture that rises from left to right is cut at columns 32 to 219 of 256."""
    ramp = (torch.arange(256.0) + 0.5).expand(1, 1, 256, 256)
    face = crop_face(ramp)
    assert face.shape == (1, 1, 112, 112)
    assert float(face[..., 0].mean()) == pytest.approx(33, abs=0.51)
    assert float(face[..., -1].mean()) == pytest.approx(219, abs=0.51)
    assert torch.allclose(crop_face(ramp.repeat_interleave(4, 2).repeat_interleave(4, 3)), face)


def test_what_misses_in_face_weights_is_named(face_state, encoder_state) -> None:
    state = dict(face_state)
    del state["body.7.shortcut_layer.0.weight"], state["body.5.res_layer.1.weight"]
    with pytest.raises(CorruptWeights, match=r"body\.5\.res_layer\.1\.weight"):
        build_irse50(state)
    with pytest.raises(CorruptWeights, match=r"output_layer\.3\.weight"):
        build_irse50(encoder_state)
    with pytest.raises(CorruptWeights, match=r"styles\.0\.linear\.weight"):
        build_encoder(face_state)


def test_e4e_adds_offsets_to_one_style_and_psp_does_not(encoder_state) -> None:
    picture = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        e4e = build_encoder(encoder_state)(picture)
        psp = build_encoder(encoder_state, "psp")(picture)
    assert e4e.shape == (1, 8, STYLE)
    assert torch.allclose(e4e[:, 0], psp[:, 0])
    assert torch.allclose(e4e[:, 1:], psp[:, 1:] + psp[:, :1], atol=1e-6)


def test_mappers_are_recognised_by_their_names() -> None:
    for make, kind in (
        (lambda: LevelsMapper(STYLE), LevelsMapper),
        (lambda: LevelsMapper(STYLE, ("course", "fine")), LevelsMapper),
        (lambda: SingleMapper(STYLE), SingleMapper),
        (lambda: StyleSpaceMapper({0: 8, 2: 6}), StyleSpaceMapper),
    ):
        net = seeded(make)
        built = build_mapper(net.state_dict())
        assert type(built) is kind
        assert built.state_dict().keys() == net.state_dict().keys()


def test_an_absent_group_changes_nothing() -> None:
    mapper = seeded(lambda: LevelsMapper(STYLE, ("medium",)))
    change = mapped(mapper, torch.randn(2, 10, STYLE))
    assert not change[:, :4].any()
    assert not change[:, 8:].any()
    assert change[:, 4:8].any()


def test_the_layer_axis_is_normalised() -> None:
    """The public mappers normalise over axis 1: scaling a group's rows together cancels out."""
    mapper = seeded(lambda: LevelsMapper(STYLE))
    codes = torch.randn(1, 10, STYLE)
    scaled = codes.clone()
    scaled[:, :4] *= 3
    assert torch.allclose(mapper(codes)[:, :4], mapper(scaled)[:, :4], atol=1e-5)


def test_mappers_refuse_the_other_space() -> None:
    with pytest.raises(ShapeError, match="StyleSpace codes"):
        mapped(seeded(lambda: StyleSpaceMapper({0: 8})), torch.zeros(1, 8, 8))
    with pytest.raises(ShapeError, match="W\\+ code"):
        mapped(seeded(lambda: SingleMapper(STYLE)), [torch.zeros(1, 8)])
