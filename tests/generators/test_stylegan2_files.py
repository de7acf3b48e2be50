from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from guided.core.delta import Delta
from guided.core.device import Device
from guided.core.seeds import Seeds
from guided.errors import CannotDo, CorruptWeights, MissingWeights, ShapeError, UnsafeWeights
from guided.generators.e4e import load_inverter
from guided.generators.latents import pack_delta, read_delta
from guided.generators.stylegan2 import StyleGan2, load_stylegan2
from tests.helpers import tiny_faces
from tests.helpers.tiny_faces import SHAPE, STYLE, tiny_stylegan2


@pytest.fixture(scope="module")
def generator() -> StyleGan2:
    return StyleGan2(tiny_stylegan2(), average=torch.zeros(STYLE))


def test_every_published_layout_gives_the_same_picture(tmp_path: Path) -> None:
    net = tiny_stylegan2()
    state, zero = net.state_dict(), torch.zeros(STYLE)
    torch.save({"g_ema": state, "latent_avg": zero}, tmp_path / "rosinality.pt")
    torch.save(state, tmp_path / "bare.pt")
    save_file(state, tmp_path / "bare.safetensors")
    decoder = {f"decoder.{name}": value for name, value in state.items()}
    torch.save({"state_dict": decoder, "latent_avg": zero}, tmp_path / "e4e.pt")
    tiny_faces.write_nvidia_pickle(tmp_path / "ada.pkl", net)
    w = torch.randn(1, SHAPE.rows, STYLE, generator=torch.Generator().manual_seed(0))
    expected = StyleGan2(net, average=zero).render({"w": w})
    for file in sorted(tmp_path.iterdir()):
        loaded = load_stylegan2(file)
        assert torch.allclose(loaded.render({"w": w}), expected, atol=1e-6), file.name
    ada = load_stylegan2(tmp_path / "ada.pkl")
    assert torch.allclose(ada.average, torch.linspace(-1, 1, STYLE))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return print, ("the pickle was run",)

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"G_ema": Evil()}))
    with pytest.raises(UnsafeWeights):
        load_stylegan2(tmp_path / "evil.pkl")
    torch.save({"g_ema": {}, "args": Evil()}, tmp_path / "training.pt")
    with pytest.raises(UnsafeWeights, match="print"):
        load_stylegan2(tmp_path / "training.pt")


def test_tensorflow_pickles_are_refused_with_the_reason(tmp_path: Path) -> None:
    network = b"\x80\x02cdnnlib.tflib.network\nNetwork\nq\x00)\x81q\x01}q\x02b."
    (tmp_path / "stylegan2-ffhq-config-f.pkl").write_bytes(network)
    with pytest.raises(CannotDo, match="TensorFlow"):
        load_stylegan2(tmp_path / "stylegan2-ffhq-config-f.pkl")


def test_wrong_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match=r"nowhere\.pt"):
        load_stylegan2(tmp_path / "nowhere.pt")
    file = tiny_faces.write_face_network(tmp_path / "faces.pth")
    with pytest.raises(CorruptWeights, match=r"no StyleGAN2 generator.*body\.0"):
        load_stylegan2(file)
    with pytest.raises(CorruptWeights, match=r"styles\.0\.linear\.weight"):
        load_inverter(file, torch.zeros(STYLE))
    encoder = tiny_faces.write_encoder(tmp_path / "e4e.pt")
    assert load_inverter(encoder, torch.zeros(STYLE)).average.shape == (SHAPE.rows, STYLE)
    state = torch.load(encoder, weights_only=True)
    torch.save({"state_dict": state["state_dict"]}, tmp_path / "bare.pt")
    with pytest.raises(ShapeError, match="belong together"):
        load_inverter(tmp_path / "bare.pt", torch.zeros(STYLE + 1))


def test_random_portraits_depend_on_the_seed_alone(generator: StyleGan2) -> None:
    many, one = generator.start(Seeds.of(3, 4)), generator.start(Seeds.of(5))
    assert torch.allclose(many["w"][2:3], one["w"], atol=1e-6)
    assert torch.equal(generator.start(Seeds.of(0), truncation=0.0)["w"], generator.middle()["w"])


def test_pictures_are_in_the_unit_range_unless_kept(generator: StyleGan2) -> None:
    wild = {"w": 5 * generator.start(Seeds.of(0), truncation=3.0)["w"]}
    raw = StyleGan2(generator.net, average=torch.zeros(STYLE), overshoot="keep").render(wild)
    clipped = generator.render(wild)
    assert raw.max() > 1
    assert torch.equal(clipped, raw.clamp(0, 1))


def test_the_mean_is_computed_where_a_file_has_none(generator: StyleGan2) -> None:
    own = StyleGan2(generator.net)
    z = torch.randn(20000, STYLE, generator=torch.Generator().manual_seed(9))
    assert torch.allclose(own.average, generator.net.mapping(z).mean(0), atol=0.1)
    assert torch.equal(own.average, StyleGan2(generator.net).average)


def test_half_precision_is_near(generator: StyleGan2) -> None:
    half = StyleGan2(tiny_stylegan2(), average=torch.zeros(STYLE), device=Device("cpu", "bf16"))
    start = generator.start(Seeds.of(0))
    picture = half.render(start)
    assert picture.dtype == torch.float32
    assert float((picture - generator.render(start)).abs().mean()) < 0.02


def test_spaces(generator: StyleGan2) -> None:
    start = generator.start(Seeds.of(0, 2))
    codes = generator.in_space(start, "s")
    assert torch.allclose(generator.render(codes), generator.render(start), atol=1e-5)
    assert set(codes) - set(generator.movable("s")) == {"s_01", "s_04", "s_07", "s_10"}
    with pytest.raises(CannotDo, match="no W"):
        generator.in_space(codes, "w")
    with pytest.raises(ShapeError, match="s_00 to s_10"):
        generator.render({"z": torch.zeros(1, STYLE)})
    with pytest.raises(ShapeError, match="w must have the shape"):
        generator.render({"w": torch.zeros(1, 3, STYLE)})


def test_a_change_comes_back_from_its_file(generator: StyleGan2, tmp_path: Path) -> None:
    start = generator.start(Seeds.of(0, 2))
    delta = Delta.between(start, {"w": start["w"] + 1}, "optimise")
    (tmp_path / "edit.safetensors").write_bytes(pack_delta(delta))
    read = read_delta(tmp_path / "edit.safetensors")
    assert torch.equal(read.at(0.5)["w"], delta.at(0.5)["w"])
    torch.save({"a.png": {"latent": start["w"][0], "img": torch.zeros(1)}}, tmp_path / "p.pt")
    assert torch.equal(read_delta(tmp_path / "p.pt").start["w"], start["w"][:1])
    torch.save({"weights": torch.zeros(4)}, tmp_path / "no.pt")
    with pytest.raises(CorruptWeights, match=r"no latents; it holds weights \[4\]"):
        read_delta(tmp_path / "no.pt")
