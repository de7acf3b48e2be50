from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from torch.nn import functional

from guided.core.device import Device
from guided.core.protocols import Scorer
from guided.errors import (
    CannotDo,
    CorruptWeights,
    ImageError,
    MissingWeights,
    ShapeError,
    UsageError,
)
from guided.scorers.attention import SelfAttention
from guided.scorers.clip import ClipScorer, load_clip
from guided.scorers.clip_files import find
from guided.scorers.files import read_batches
from tests.helpers.tiny_clip import write_clip

TEXTS = ["a red hat", "a dog on the grass", "a", "the blue sky and a yellow square", "a red hat"]


def reference(bundle: Path) -> tuple[torch.nn.Module, object, object]:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{bundle}")
    return model.eval(), open_clip.get_tokenizer(f"local-dir:{bundle}"), transform


def test_it_is_a_scorer(scorer: ClipScorer) -> None:
    assert isinstance(scorer, Scorer)
    assert scorer.width == 24
    assert scorer.scale == pytest.approx(1 / 0.07, rel=1e-4)
    assert not any(p.requires_grad for p in scorer.model.parameters())
    assert not scorer.model.training


def test_features_equal_open_clips(scorer: ClipScorer, bundle: Path) -> None:
    model, tokenizer, _ = reference(bundle)
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        pictures = model.encode_image(scorer.preprocess.normalize(images), normalize=True)
        texts = model.encode_text(tokenizer(TEXTS), normalize=True)
    torch.testing.assert_close(scorer.embed_images(images), pictures, rtol=0, atol=1e-6)
    torch.testing.assert_close(scorer.embed_texts(TEXTS), texts, rtol=0, atol=1e-6)
    assert scorer.texts.trims


def test_every_attention_was_replaced_under_its_own_names(scorer: ClipScorer, bundle: Path) -> None:
    found = [m for m in scorer.model.modules() if isinstance(m, SelfAttention)]
    assert len(found) == 4
    assert set(scorer.model.state_dict()) == set(reference(bundle)[0].state_dict())


def test_pictures_are_differentiable_and_rows_do_not_mix(scorer: ClipScorer) -> None:
    images = torch.rand(2, 3, 40, 48, requires_grad=True)
    rows = scorer.embed_images(images)
    (gradient,) = torch.autograd.grad(rows[0].sum(), images)
    assert float(gradient[0].abs().sum()) > 0
    assert float(gradient[1].abs().sum()) == 0
    alone = torch.cat([scorer.embed_images(images[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(rows, alone, rtol=0, atol=1e-5)


def test_embeddings_have_length_one(scorer: ClipScorer) -> None:
    for rows in (scorer.embed_texts(TEXTS), scorer.embed_images(torch.rand(2, 3, 32, 32))):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))


def test_equal_texts_are_encoded_once(scorer: ClipScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    encode = scorer.texts._encode
    monkeypatch.setattr(scorer.texts, "_encode", lambda ids: seen.append(len(ids)) or encode(ids))
    rows = scorer.embed_texts(["a dog"] * 9 + ["a cat"])
    assert sum(seen) == 2
    assert torch.equal(rows[0], rows[8])


def test_order_is_kept_across_batches(bundle: Path) -> None:
    small = load_clip(f"local-dir:{bundle}")
    small.texts._batch = 2
    texts = [f"a {'red ' * (i % 5)}hat {i}" for i in range(11)]
    singles = torch.cat([small.embed_texts([text]) for text in texts])
    torch.testing.assert_close(small.embed_texts(texts), singles, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "text_cfg",
    [{"no_causal_mask": True}, {"pool_type": "last"}, {"pool_type": "first"}],
    ids=["sees-padding", "last", "first"],
)
def test_towers_that_need_the_padding_run_at_full_length(tmp_path: Path, text_cfg: dict) -> None:
    folder = write_clip(tmp_path, **text_cfg)
    scorer, (model, tokenizer, _) = load_clip(f"local-dir:{folder}"), reference(folder)
    with torch.no_grad():
        expected = model.encode_text(tokenizer(TEXTS), normalize=True)
    torch.testing.assert_close(scorer.embed_texts(TEXTS), expected, rtol=0, atol=1e-6)
    assert not scorer.texts.trims


def test_a_text_that_is_too_long_is_cut_and_named(
    scorer: ClipScorer, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, tokenizer, _ = reference(bundle)
    long = "a cat " * 834
    assert len(long) > 5000
    with caplog.at_level(logging.WARNING):
        row = scorer.embed_texts([long, "a cat"])[0]
    assert "5004 characters) has" in caplog.text
    assert f"this scorer reads {scorer.context_length}" in caplog.text
    with torch.no_grad():
        expected = model.encode_text(tokenizer([long]), normalize=True)[0]
    torch.testing.assert_close(row, expected, rtol=0, atol=1e-6)


def test_many_cut_texts_are_summed_up(scorer: ClipScorer, caplog: pytest.LogCaptureFixture) -> None:
    scorer.embed_texts([f"{i} " * 40 for i in range(7)])
    assert len(caplog.records) == 3
    assert "5 more texts were too long" in caplog.text


def test_cut_texts_are_named_once_for_a_scorer(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = load_clip(f"local-dir:{bundle}")
    for _ in range(3):
        scorer.embed_texts(["hat " * 40, "a cat"])
    assert len(caplog.records) == 1
    assert "the rest was left out, 'hat" in caplog.text
    scorer.texts.report(["dog " * 40, "dog " * 40, "a cat", "red " * 50])
    scorer.embed_texts(["dog " * 40, "red " * 50])
    assert len(caplog.records) == 2
    assert "2 captions are longer than the context" in caplog.text
    assert "(lost: 'dog dog" in caplog.text


def test_a_long_text_in_windows_is_their_mean_by_tokens(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = load_clip(f"local-dir:{bundle}")
    whole, limit = scorer.reading("windows"), scorer.context_length
    assert whole.reading("windows") is whole
    assert whole.reading("cut").texts.long_text == scorer.texts.long_text == "cut"
    assert torch.equal(whole.embed_texts(TEXTS), scorer.embed_texts(TEXTS))
    text = "dog " * (limit - 2) + "a red hat"
    assert whole.cuts([text]) == []
    got = whole.embed_texts(["a cat", text])
    assert not caplog.records
    one, two = scorer.embed_texts([("dog " * (limit - 2)).strip(), "a red hat"])
    rest = whole.texts._count("a red hat") - 2
    expected = functional.normalize((limit - 2) * one + rest * two, dim=0)
    torch.testing.assert_close(got[1], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(got[0], scorer.embed_texts(["a cat"])[0], rtol=0, atol=1e-5)
    cut = scorer.embed_texts([text])[0]
    assert float(got[1] @ cut) < 0.9999


def test_the_length_of_a_cut_text_is_counted_right(scorer: ClipScorer) -> None:
    limit = scorer.context_length
    words = "dog " * (limit - 2)
    assert scorer.cuts([words]) == []
    (cut,) = scorer.cuts([words + "dog"])
    assert (cut.tokens, cut.limit) == (limit + 1, limit)


def test_bf16_is_near_fp32(scorer: ClipScorer, bundle: Path) -> None:
    quick = load_clip(f"local-dir:{bundle}", Device("cpu", "bf16"))
    images = torch.rand(8, 3, 32, 32)
    for a, b in (
        (quick.embed_images(images), scorer.embed_images(images)),
        (quick.embed_texts(TEXTS), scorer.embed_texts(TEXTS)),
    ):
        assert a.dtype == torch.float32
        assert float((a * b).sum(1).min()) > 0.999
    assert quick.fingerprint == scorer.fingerprint


def test_files_come_back_in_order_with_their_errors(scorer: ClipScorer, tmp_path: Path) -> None:
    files = []
    for i in range(7):
        files.append(tmp_path / f"{i}.png")
        Image.new("RGB", (20 + i, 30), (30 * i, 200 - 20 * i, 10)).save(files[-1])
    files.insert(3, tmp_path / "gone.png")
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 nothing")
    files.insert(5, tmp_path / "bad.jpg")
    good = [f for f in files if f.name not in ("gone.png", "bad.jpg")]
    for threads in (0, 2):
        found = list(scorer.embed_files(files, batch=4, threads=threads))
        assert [file for pixels, _ in found for file in pixels.files] == good
        assert {f.name for pixels, _ in found for f in pixels.errors} == {"gone.png", "bad.jpg"}
        rows = torch.cat([rows for _, rows in found])
        alone = torch.stack([scorer.preprocess.pixels(file) for file in good])
        torch.testing.assert_close(rows, scorer.embed_pixels(alone), rtol=0, atol=1e-5)


def test_prepared_bytes_give_the_same_as_the_picture(scorer: ClipScorer) -> None:
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    rows = scorer.embed_pixels(pixels)
    torch.testing.assert_close(rows, scorer.embed_images(pixels.float() / 255), rtol=0, atol=1e-6)
    with pytest.raises(ShapeError, match="pixels must have the shape"):
        scorer.embed_pixels(torch.zeros(1, 3, 31, 32, dtype=torch.uint8))


def test_the_fingerprint_is_that_of_the_content(
    bundle: Path, scorer: ClipScorer, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    assert load_clip(f"local-dir:{copy}").fingerprint == scorer.fingerprint
    other = write_clip(tmp_path / "other", seed=1)
    assert load_clip(f"local-dir:{other}").fingerprint != scorer.fingerprint
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"] = [0.1, 0.1, 0.1]
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    assert load_clip(f"local-dir:{copy}").fingerprint != scorer.fingerprint


def test_a_model_in_memory_has_a_fingerprint_too(bundle: Path) -> None:
    model, tokenizer, _ = reference(bundle)
    first = ClipScorer(model, tokenizer, name="mine").fingerprint
    model, tokenizer, _ = reference(bundle)
    assert ClipScorer(model, tokenizer, name="yours").fingerprint == first
    with torch.no_grad():
        model.logit_scale += 1
    assert ClipScorer(model, tokenizer, name="yours").fingerprint != first


def test_wrong_input_is_refused(scorer: ClipScorer) -> None:
    with pytest.raises(ShapeError, match="images must have the shape"):
        scorer.embed_images(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ShapeError, match="at least one text"):
        scorer.embed_texts([])
    with pytest.raises(ShapeError, match="list of at least one text"):
        scorer.embed_texts("a cat")


def test_a_file_that_does_not_fit_is_named(bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    weights = broken / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(CorruptWeights, match=r"open_clip_model\.safetensors"):
        load_clip(f"local-dir:{broken}")
    weights.unlink()
    with pytest.raises(MissingWeights, match="has no weights in"):
        load_clip(f"local-dir:{broken}")
    (broken / "open_clip_config.json").write_text("{}")
    with pytest.raises(CorruptWeights, match="has no 'model_cfg'"):
        load_clip(f"local-dir:{broken}")
    with pytest.raises(MissingWeights, match=r"needs the file open_clip_config\.json"):
        load_clip(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("ViT-B-32/laion2b_s34b_b79k", "open_clip_model.*about 605 MB", "models get"),
        ("ViT-L-14/openai", r"needs the file .*; it comes from", "with --online"),
        ("hf-hub:nobody/nothing", r"needs the file open_clip_config\.json", "with --online"),
    ],
)
def test_models_that_are_not_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, message: str, hint: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingWeights, match=message) as caught:
        load_clip(name)
    assert hint in caught.value.hint


def test_a_tag_brings_its_own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("guided.scorers.clip_files._cached", lambda settings: tmp_path / "w")
    assert find("ViT-B-32/openai").quick_gelu
    assert not find("ViT-B-32/datacomp_xl_s13b_b90k").quick_gelu
    assert not find("ViT-B-32-quickgelu/openai").quick_gelu
    siglip = find("ViT-B-16-SigLIP/webli").preprocess
    assert tuple(siglip["mean"]) == (0.5, 0.5, 0.5)
    assert siglip["resize_mode"] == "squash"


def test_a_judge_is_no_scorer(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDED_MODELS", str(tmp_path))
    shutil.copytree(bundle, tmp_path / "my-judge")
    lines = {
        "name": "my-judge", "role": "judge", "kind": "open_clip", "origin": "added",
        "licence": "MIT", "file": "open_clip_model.safetensors",
    }  # fmt: skip
    weights = (tmp_path / "my-judge" / lines["file"]).read_bytes()
    lines["sha256"] = hashlib.sha256(weights).hexdigest()
    card = f"size = {len(weights)}\n" + "\n".join(
        f'{key} = "{value}"' for key, value in lines.items()
    )
    (tmp_path / "my-judge" / "card.toml").write_text(card)
    with pytest.raises(CannotDo, match="'my-judge' is a judge, not a scorer"):
        load_clip("my-judge")
    assert load_clip("my-judge", role="judge").name == "my-judge"


def test_names_that_mean_nothing() -> None:
    with pytest.raises(UsageError, match="There is no scorer 'ViT-B-23/openai'") as caught:
        find("ViT-B-23/openai")
    assert "ViT-B-32" in caught.value.hint
    with pytest.raises(UsageError, match="no weights called 'opnai'") as caught:
        find("ViT-B-32/opnai")
    assert "openai" in caught.value.hint
    with pytest.raises(UsageError, match="There is no scorer ''"):
        find("")


def test_a_weight_file_can_stand_for_a_tag(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = open_clip.create_model("ViT-S-32-alt") if _has("ViT-S-32-alt") else None
    if model is None:
        pytest.skip("this open_clip has no small architecture")
    path = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    scorer = load_clip(f"ViT-S-32-alt/{path}")
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        expected = model.eval().encode_image(scorer.preprocess.normalize(images))
    torch.testing.assert_close(
        scorer.embed_images(images), functional.normalize(expected, dim=1), rtol=0, atol=1e-5
    )


def _has(name: str) -> bool:
    return name in open_clip.list_models()


@pytest.mark.soak
def test_a_full_size_vit_b_32_in_the_public_format(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model, _, transform = open_clip.create_model_and_transforms("ViT-B-32")
    config = {"model_cfg": open_clip.get_model_config("ViT-B-32"), "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        tmp_path / "open_clip_pytorch_model.safetensors",
    )
    Image.linear_gradient("L").convert("RGB").resize((640, 427)).save(tmp_path / "x.png")
    scorer = load_clip(f"local-dir:{tmp_path}")
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    with torch.no_grad():
        picture = model.eval().encode_image(transform(Image.open(tmp_path / "x.png"))[None])
        texts = model.encode_text(tokenizer(TEXTS), normalize=True)
    ((_, row),) = scorer.embed_files([tmp_path / "x.png"])
    assert float(functional.cosine_similarity(row, picture)) > 0.99999
    torch.testing.assert_close(scorer.embed_texts(TEXTS), texts, rtol=0, atol=1e-5)


def test_files_are_read_at_most_two_batches_ahead() -> None:
    files, started = [Path(f"{i}.png") for i in range(40)], []

    def decode(path: Path) -> torch.Tensor:
        started.append(path)
        return torch.tensor([float(path.stem)])

    batches = read_batches(files, decode, batch=2, threads=1)
    rows: list[float] = []
    for number, pixels in enumerate(batches, start=1):
        end = time.monotonic() + (0.2 if number == 1 else 0)
        while time.monotonic() < end and len(started) <= 6:
            time.sleep(0.01)
        assert len(started) <= 2 * (number + 2)
        rows.extend(float(row) for row in pixels.rows)
    assert rows == [float(i) for i in range(40)]


@pytest.mark.parametrize("threads", [0, 2])
def test_a_file_that_cannot_be_read_is_told_and_the_others_stay_with_their_rows(
    threads: int,
) -> None:
    def decode(path: Path) -> torch.Tensor:
        if path.stem == "bad":
            raise ImageError("it is bad")
        return torch.tensor([float(path.stem)])

    files = ["0.png", "bad.png", "2.png", "3.png", "4.png"]
    first, second = read_batches(files, decode, batch=3, threads=threads)
    for pixels, numbers in ((first, [0, 2]), (second, [3, 4])):
        assert [float(row) for row in pixels.rows] == numbers
        assert pixels.files == [Path(f"{number}.png") for number in numbers]
    assert (first.errors, second.errors) == ({Path("bad.png"): "it is bad"}, {})
