"""The script that judges edits, on tiny random models: every row, stopped and gone on."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from guided.core.device import Device
from guided.nets.delta import DeltaNet
from guided.nets.reader import ReaderNet
from guided.nets.stylegan2 import StyleGAN2Shape
from guided.worlds.portraits.judging import edit_methods, edit_methods_diffusion
from guided.worlds.portraits.judging.reader import Reader
from guided.worlds.portraits.judging.runs import edits
from guided.worlds.portraits.training.reading import CLASSES
from tests.helpers import small_own, tiny_edit, tiny_faces
from tests.helpers.tiny_clip import write_clip

pytestmark = pytest.mark.soak


GALLERY = Path(__file__).resolve().parents[4] / "scripts" / "gallery"
#: With the world's z, so that its own latents can be asked for.
SHAPE = StyleGAN2Shape(32, 16, 128, 2, (8, 8, 8, 8))
ALL = ("no-edit", "oracle", "oracle-generator", "label-direction", "styleclip-optimise",
       "styleclip-direction", "tuned-optimise", "tuned-direction", "optimise", "direction",
       "mapper", "delta", "refine", "delta-auto", "refine-auto", "mapper-auto",
       *edit_methods_diffusion.DIFFUSION_METHODS)  # fmt: skip
Judged = Callable[..., int]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Few steps, and few settings of what is tuned."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("TUNED_ON", 3), ("NEAR", (0.008,)), ("SAME", (0.0, 0.05)), ("FACTORS", (1.0, 1.5)),
            ("BETAS", (0.01, 0.15)), ("ALPHAS", (2.0, 4.1)),
        ):  # fmt: skip
            patch.setattr(edit_methods, name, value)
        patch.setitem(edit_methods.PUBLISHED, "steps", 2)
        patch.setitem(edit_methods.OURS["optimise"], "steps", 2)
        for settings in edit_methods_diffusion.SETTINGS.values():
            patch.setitem(settings, "steps", 2)
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    identity, delta, directions = (
        folder / f"{name}.safetensors" for name in ("identity", "delta", "directions")
    )
    save_file(tiny_edit.tiny_identity().state_dict(), identity)
    tiny_edit.write_delta(delta, SHAPE.rows)
    stylegan = tiny_faces.tiny_stylegan2(0, SHAPE)
    channels = sum(len(layer.conv.modulation.bias) for layer in [stylegan.conv1, *stylegan.convs])
    relevance = torch.randn(channels, 24, generator=torch.Generator().manual_seed(0))
    save_file({"relevance": torch.nn.functional.normalize(relevance, dim=1)}, directions)
    mapper = tiny_faces.write_mapper(folder / "mappers-pink.pt")
    (folder / "mappers").mkdir()
    mapper.rename(folder / "mappers" / "pink-hair.pt")
    clip, vae = write_clip(folder / "clip"), small_own.write_autoencoder(folder / "vae")
    return {
        "generator": str(tiny_faces.write_generator(folder / "stylegan2.pt", shape=SHAPE)),
        "inverter": str(tiny_edit.write_inverter(folder / "inverter.safetensors", SHAPE.rows)),
        "scorer": f"local-dir:{clip}",
        "denoiser": f"local-dir:{small_own.write_denoiser(folder / 'denoiser', vae, clip)}",
        "judge": f"local-dir:{write_clip(folder / 'judge', seed=1)}",
        "identity": str(identity), "delta": str(delta), "directions": str(directions),
        "mappers": str(folder / "mappers"),
    }  # fmt: skip


@pytest.fixture
def judging(models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judged:
    def untaught(*_: object) -> Reader:
        torch.manual_seed(0)
        net = ReaderNet(CLASSES, widths=(8, 8, 8), blocks=(1, 1, 1), head=4, features=16)
        return Reader(net, Device("cpu"), "untaught")

    monkeypatch.setattr(Reader, "load", untaught)

    def run(*more: str, without: str = "") -> int:
        words = ["--out", str(tmp_path / "out"), "--count", "2", "--seeds", "1"]
        for role, file in models.items():
            if role != without:
                words += [f"--{role}", file]
        return edits.main([*words, *more])

    return run


def found(folder: Path) -> dict:
    read: dict = json.loads((folder / "out" / "edits.json").read_text("utf-8"))
    return read


def test_every_row_is_judged(
    judging: Judged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judging("--edits", "pink hair,top hat", "--sheet", str(tmp_path / "sheet.png")) == 0
    table = capsys.readouterr().out
    answer = found(tmp_path)
    assert tuple(answer["rows"]) == ALL
    rows = answer["rows"]
    assert rows["oracle"]["oracle"] == pytest.approx(0, abs=1e-6)
    assert rows["oracle"]["outside"] == pytest.approx(0, abs=1e-3)
    assert rows["no-edit"]["oracle"] == 1
    assert rows["no-edit"]["identity"] == pytest.approx(1, abs=1e-4)
    for still in ("gain", "outside"):
        assert rows["no-edit"][still] == pytest.approx(0, abs=1e-6)
    assert rows["no-edit"]["off"]["value"] == 0
    moved = [name for name in ALL[2:] if rows[name]["oracle"] != 1]
    assert set(moved) >= {"oracle-generator", "label-direction", "optimise", "mapper", "delta",
                          "tuned-optimise", "tuned-direction", "delta-auto",
                          *edit_methods_diffusion.DIFFUSION_METHODS}  # fmt: skip
    assert [rows[name]["count"] for name in ("delta", "optimise", "mapper", "p2p")] == [4, 2, 2, 2]
    assert list(answer["by_edit"]["mapper"]) == ["pink hair"]
    assert set(answer["tuned"]) == {"optimise", "direction/pink hair", "direction/top hat"}
    assert set(answer["inversion"]) == {"kept", "l1", "identity"}
    assert set(answer["alone"]) == set(ALL)
    assert all(f"| {name} |" in table for name in ALL)
    assert "it chooses for the baseline" in table
    with Image.open(tmp_path / "sheet.png") as page:
        assert page.size[0] == 32 * (1 + len(ALL))


@pytest.mark.soak
def test_it_goes_on_where_it_stopped(
    judging: Judged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ("--edits", "bald,sunglasses", "--only", "no-edit,delta")
    assert judging(*chosen, "--minutes", "1e-9") == 1
    assert "no-edit: stopped before bald-0-0-2; run again to go on" in capsys.readouterr().out
    assert judging(*chosen) == 0
    whole = found(tmp_path)["rows"]
    files = sorted((tmp_path / "out" / "rows" / "delta").iterdir())
    assert len(files) == 2
    files[0].unlink()
    times = files[1].stat().st_mtime_ns
    assert judging(*chosen) == 0
    again = found(tmp_path)["rows"]
    assert files[0].is_file()
    assert files[1].stat().st_mtime_ns == times
    for rows in (whole, again):
        rows["delta"].pop("seconds")
    assert again == whole


def test_rows_without_a_model_are_left_out(
    judging: Judged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = judging("--edits", "bald", "--only", "oracle,mapper,delta", without="mappers")
    assert status == 0
    assert list(found(tmp_path)["rows"]) == ["oracle", "delta"]
    assert "mapper is left out: There is no model called 'mapper-bald'" in capsys.readouterr().out
    chosen = ("--edits", "bald", "--only", "oracle,sdedit,p2p")
    assert judging(*chosen, "--denoiser", "nowhere") == 0
    assert list(found(tmp_path)["rows"]) == ["oracle"]
    said = capsys.readouterr().out
    for name in ("sdedit", "p2p"):
        assert f"{name} is left out: There is no model called 'nowhere'" in said
    assert judging(*chosen, "--generator", "nowhere") == 1
    assert "No edit can be judged: There is no model called 'nowhere'" in capsys.readouterr().out


def test_another_denoiser_is_another_row(
    judging: Judged, models: dict[str, str], tmp_path: Path
) -> None:
    chosen = ("--edits", "bald", "--only", "no-edit,sdedit")
    assert judging(*chosen) == 0
    first = found(tmp_path)["rows"]
    vae, clip = (Path(models["delta"]).parent / name for name in ("vae", "clip"))
    other = small_own.write_denoiser(tmp_path / "other", vae, clip, seed=1)
    assert judging(*chosen, "--denoiser", f"local-dir:{other}") == 0
    second = found(tmp_path)["rows"]
    assert first["no-edit"] == second["no-edit"]
    assert first["sdedit"]["outside"] != second["sdedit"]["outside"]


def test_another_delta_mapper_is_another_row(
    judging: Judged, models: dict[str, str], tmp_path: Path
) -> None:
    chosen = ("--edits", "bald", "--only", "no-edit,delta")
    assert judging(*chosen) == 0
    first = found(tmp_path)["rows"]
    other = tmp_path / "other.safetensors"
    net = tiny_faces.seeded(lambda: DeltaNet(SHAPE.rows, 16, 24, middle=12, hidden=16), 6)
    save_file(net.state_dict(), other)
    assert judging(*chosen, "--delta", str(other)) == 0
    second = found(tmp_path)["rows"]
    assert first["no-edit"] == second["no-edit"]
    assert first["delta"]["outside"] != second["delta"]["outside"]


def test_unknown_rows_and_edits_are_refused(
    judging: Judged, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in ((("--only", "magic"), "there is no row 'magic'"),
                        (("--edits", "green nose"), "there is no edit 'green nose'")):  # fmt: skip
        with pytest.raises(SystemExit):
            judging(*words)
        assert said in capsys.readouterr().err


@pytest.mark.soak
def test_the_gallery_shows_the_edits(
    models: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loader = importlib.machinery.SourceFileLoader("gallery", str(GALLERY))
    spec = importlib.util.spec_from_loader("gallery", loader)
    assert spec is not None
    gallery = importlib.util.module_from_spec(spec)
    loader.exec_module(gallery)
    kit = {role: file for role, file in models.items() if role != "mappers"}
    monkeypatch.setattr("guided.zoo.kits.load_kit", lambda _: kit)
    assert gallery.edits().size == (12 * 128, 3 * (128 + 14))
    kit["delta"] = str(tmp_path / "none.safetensors")
    monkeypatch.setattr(gallery, "GALLERY", tmp_path)
    monkeypatch.setattr("sys.argv", ["gallery", "edits"])
    gallery.main()
    assert "edits is left out: There is no delta file" in capsys.readouterr().out
    assert not (tmp_path / "edits.png").exists()
