from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from guided.core.faces import Landmarks, Square, align, cut, paste_back, read_landmarks
from guided.errors import ImageError, UsageError

UPRIGHT = Landmarks.of([100, 110, 140, 110, 104, 152, 136, 152])


def smooth(width: int = 240, height: int = 260) -> Image.Image:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (9, 8, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def test_the_square_of_an_upright_face_by_hand() -> None:
    """Eyes 40 apart, mouth 42 below: half a side is max(2 * 40, 1.8 * 42) times the unit axes."""
    square = Square.of(UPRIGHT)
    assert square.side == pytest.approx(160)
    assert square.across == pytest.approx((160, 0))
    assert square.down == pytest.approx((0, 160))
    middle = np.mean(square.corners, axis=0)
    assert middle == pytest.approx((120.5, 110 + 4.2 + 0.5))


@settings(max_examples=60, deadline=None)
@given(st.floats(-0.7, 0.7), st.floats(0.4, 3), st.floats(-50, 50))
def test_the_square_turns_and_grows_with_the_face(angle: float, scale: float, shift: float) -> None:
    turn = scale * np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    points = np.array([[-20, 0], [20, 0], [-16, 42], [16, 42]]) @ turn.T + 200 + shift
    square = Square.of(Landmarks.of(points.tolist()))
    assert square.side == pytest.approx(160 * scale, rel=1e-6)
    assert math.atan2(square.across[1], square.across[0]) == pytest.approx(angle, abs=1e-6)


def test_aligning_puts_the_points_where_ffhq_has_them() -> None:
    """A dot on each landmark of a tilted face comes out level."""
    photo = Image.new("RGB", (400, 400))
    points = [(150, 180), (230, 200), (140, 260), (205, 277)]
    for x, y in points:
        photo.paste((255, 255, 255), (x - 3, y - 3, x + 4, y + 4))
    face, square = align(photo, Landmarks.of(points), 256)
    (ax, ay), (dx, dy) = square.across, square.down
    pixels = np.asarray(face)[..., 0]
    places = []
    for x, y in points:
        px, py = x + 0.5 - square.corner[0], y + 0.5 - square.corner[1]
        u = (px * ax + py * ay) / square.side**2 * 256
        v = (px * dx + py * dy) / square.side**2 * 256
        places.append((u, v))
        assert pixels[int(v), int(u)] > 200
    assert places[0][1] == pytest.approx(places[1][1], abs=6)


def test_pasting_back_what_was_cut_changes_little_and_nothing_outside() -> None:
    photo = smooth()
    face, square = align(photo, UPRIGHT, 160)
    back = np.asarray(paste_back(photo, face, square)).astype(int)
    assert np.abs(back - np.asarray(photo)).max() <= 2
    inverted = Image.eval(face, lambda value: 255 - value)
    changed = np.asarray(paste_back(photo, inverted, square)).astype(int)
    assert (changed[:30] == np.asarray(photo)[:30]).all()
    assert np.abs(changed[115, 120] - (255 - np.asarray(photo)[115, 120])).max() <= 3


def test_pasting_the_difference_keeps_the_photos_grain() -> None:
    rng = np.random.default_rng(1)
    photo = Image.fromarray(rng.integers(60, 180, (260, 240, 3), dtype=np.uint8))
    face, square = align(photo, UPRIGHT, 64)
    brighter = Image.eval(face, lambda value: min(255, value + 20))
    done = paste_back(photo, brighter, square, before=face, paste="difference")
    moved = np.asarray(done).astype(int) - np.asarray(photo)
    assert moved[115, 120].tolist() == [20, 20, 20]
    with pytest.raises(ImageError, match="before"):
        paste_back(photo, brighter, square, paste="difference")


def test_faces_at_the_edge_are_mirrored() -> None:
    photo = smooth()
    edge = Landmarks.of([5, 10, 45, 10, 9, 52, 41, 52])
    face, square = align(photo, edge, 128)
    assert np.asarray(face).std() > 5
    assert np.asarray(face)[0, 0].max() > 0
    mask = Image.new("L", photo.size, 255)
    assert np.asarray(cut(mask, square, 128)).min() == 255
    with pytest.raises(ImageError, match="outside of the picture of 240 x 260"):
        align(photo, Landmarks.of([900, 10, 940, 10, 904, 52, 936, 52]), 128)


def test_large_faces_are_reduced_without_aliasing() -> None:
    """A fine checkerboard becomes grey, not a moire."""
    board = (np.indices((1300, 1200)).sum(0) % 2 * 255).astype(np.uint8)
    face, _ = align(
        Image.fromarray(board), Landmarks.of([400, 500, 800, 500, 440, 920, 760, 920]), 64
    )
    assert np.asarray(face).std() < 6


def test_landmarks_in_all_forms(tmp_path: Path) -> None:
    four = [[100, 110], [140, 110], [104, 152], [136, 152]]
    five = [*four[:2], [120, 130], *four[2:]]
    dlib = [[0, 0]] * 68
    dlib[36:42], dlib[42:48] = [four[0]] * 6, [four[1]] * 6
    dlib[48], dlib[54] = four[2], four[3]
    names = ("left_eye", "right_eye", "left_mouth", "right_mouth")
    flat = [each for point in four for each in point]
    named = dict(zip(names, four, strict=True))
    forms = [four, five, dlib, flat, named, [four], {"faces": [four]}]
    for i, form in enumerate(forms):
        path = tmp_path / f"{i}.json"
        path.write_text(json.dumps(form))
        assert read_landmarks(str(path)) == [UPRIGHT], form
    assert read_landmarks("100,110,140,110,104,152,136,152") == [UPRIGHT]
    (tmp_path / "two.json").write_text(json.dumps([four, five]))
    assert len(read_landmarks(str(tmp_path / "two.json"))) == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("1,2,3", "neither numbers|pairs of numbers"),
        ("a,b", "neither numbers nor a .json file"),
        ("1,2,3,4,5,6", "4, 5 or 68 points, not 3"),
        ("140,110,100,110,136,152,104,152", "no upright face"),
        ("100,110,100,110,104,152,136,152", "no upright face"),
        ("1,2,nan,4,5,6,7,8", "pairs of numbers"),
        ("nowhere.json", "cannot be read"),
    ],
)
def test_bad_landmarks_say_what_is_wanted(given: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_landmarks(given)


@pytest.mark.parametrize("content", ["[]", "3", '{"faces": []}', '{"left_eye": [1, 2]}', '"text"'])
def test_files_without_a_face(tmp_path: Path, content: str) -> None:
    (tmp_path / "f.json").write_text(content)
    with pytest.raises(UsageError, match=r"holds no face|lacks|points|upright"):
        read_landmarks(str(tmp_path / "f.json"))
