"""What is said of models that are named wrongly: the true cause, and a next step that works."""

from __future__ import annotations

from pathlib import Path

import pytest

from guided.core.image_arrays import image_in_memory
from guided.core.images import open_image
from guided.errors import LONGEST, GuidedError, ImageError, MissingWeights, UsageError
from guided.models.references import Reference


@pytest.mark.parametrize(
    ("name", "role", "full"),
    [
        ("gpt2-medium", "language", "openai-community/gpt2-medium"),
        ("distilgpt2", "language", "distilbert/distilgpt2"),
        ("stable-diffusion-xl-base-1.0", "denoiser", "stabilityai/stable-diffusion-xl-base-1.0"),
        ("PixArt-XL-2-512x512", "denoiser", "PixArt-alpha/PixArt-XL-2-512x512"),
    ],
)
def test_a_bare_name_of_the_hub_is_told_its_owner(name: str, role: str, full: str) -> None:
    with pytest.raises(MissingWeights) as error:
        Reference.parse(name, role).locate()
    assert repr(full) in error.value.message
    assert f"guided models get {full} --online" in error.value.hint
    assert Reference.parse(full, role).kind == "hub"


@pytest.mark.parametrize(
    ("file", "role", "hint"),
    [
        ("sd.safetensors", "denoiser", "from_single_file"),
        ("sd.ckpt", "denoiser", r"Get the \.safetensors file"),
        ("sd.gguf", "denoiser", r"Get the \.safetensors file"),
        ("clip.safetensors", "scorer", "ARCHITECTURE/FILE"),
        ("gpt2.safetensors", "language", "Name such a folder"),
        ("gan.gguf", "generator", r"Weight files end in \.pt"),
    ],
)
def test_a_single_file_where_a_folder_is_meant(
    tmp_path: Path, file: str, role: str, hint: str
) -> None:
    (tmp_path / file).write_bytes(b"x")
    with pytest.raises(UsageError, match=hint):
        Reference.parse(str(tmp_path / file), role).locate()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture.*Save it as JPEG or PNG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC picture"),
        (b"\xff\x0a\x01\x02", "a JPEG XL picture"),
        (b"8BPS\0\x01", "a Photoshop file"),
        (b"%PDF-1.7", "a PDF"),
        (b"<svg xmlns='a'>", "a drawing"),
        (b"<!DOCTYPE html>", "a web page.*Download the picture itself"),
        (b"\0\0\0\x18ftypmp42", "a film"),
        (b"something else", "not a picture in a format that is read here.*Formats: PNG"),
    ],
)
def test_a_file_is_called_what_it_is_whatever_its_name(
    tmp_path: Path, content: bytes, kind: str
) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(content)
    for given in (lambda: open_image(file), lambda: image_in_memory(content)):
        with pytest.raises(ImageError, match=kind):
            given()


def test_messages_are_short() -> None:
    error = GuidedError("begin " + "x" * 9000 + " end", hint="y" * 9000)
    assert len(str(error)) < 2048
    assert (error.message[:6], error.message[-4:]) == ("begin ", " end")
    assert len(error.message) <= LONGEST
