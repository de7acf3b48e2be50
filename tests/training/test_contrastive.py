from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from guided.errors import UsageError
from guided.nets.clip_text import encode_trimmed
from guided.portraits import KEYS, UNSEEN_WORDS, draw, sample
from guided.portraits.attributes import COLOR_KEYS
from guided.training.clip_bundle import END_ID, caption_corpus, train_tokenizer
from guided.training.clip_folder import captioned_files
from guided.training.clip_pairs import person_of, shifted
from guided.training.color_truth import NEAR
from guided.training.contrastive import ContrastiveObjective, Settings
from guided.training.fit import fit
from guided.training.objective import Share, Surroundings
from guided.training.truth_losses import hit_rate, masked_cross_entropy, near_miss
from guided.training.world_data import codes_of, draw_missing

VISION = {"image_size": 128, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
TEXT = {"width": 32, "heads": 2, "layers": 2, "context_length": 77}
SMALL = {"embed": 16, "vision": VISION, "text": TEXT, "vocabulary": 320, "pictures": 64}


@pytest.fixture(scope="module")
def objective(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContrastiveObjective]:
    pools = tmp_path_factory.mktemp("pools")
    made = ContrastiveObjective(Settings(**SMALL), Surroundings(pools=pools))
    pool = made.source.pool
    draw_missing(pool.folder, "train", 128, 0, 64, 64, os.getppid())
    yield made
    made.close()


def test_batches_know_their_truth(objective: ContrastiveObjective) -> None:
    batch = objective.batch(Share(3, 0, 16))
    assert batch.pixels.shape == (16, 3, 128, 128)
    assert batch.pixels.dtype == torch.uint8
    assert batch.true.shape == (16, 24)
    assert batch.true[:, :16].diagonal().all()
    assert not batch.true[:, 16:].diagonal().any()
    again = objective.batch(Share(3, 0, 16))
    assert torch.equal(batch.tokens, again.tokens)
    assert torch.equal(batch.pixels, again.pixels)
    other = objective.batch(Share(3, 1, 16))
    assert not torch.equal(batch.pixels, other.pixels)


def test_recolored_pictures_are_told_what_is_sure(objective: ContrastiveObjective) -> None:
    settings = Settings(**SMALL, recolored=1.0)
    made = ContrastiveObjective(settings, objective.around)
    batch = made.batch(Share(3, 0, 16))
    made.close()
    colors = [KEYS.index(key) for key in COLOR_KEYS]
    assert 0.1 < float((batch.codes[:, colors] == -1).float().mean()) < 0.9
    assert (batch.codes[:, KEYS.index("expression")] >= 0).all()
    assert batch.true[:, :16].diagonal().all()
    assert not (batch.true & batch.excused).any()
    for place, key in enumerate(COLOR_KEYS):
        said = batch.spoken[:16, place]
        off = (said - batch.colors[:, place]).norm(dim=1)
        assert (off[~said.isnan().any(1)] < NEAR).all(), key


def test_colours_change_as_the_pixels_do(objective: ContrastiveObjective) -> None:
    plain = ContrastiveObjective(
        Settings(**{**SMALL, "recolored": 0.0, "shift": 0}), objective.around
    )
    turned = ContrastiveObjective(
        Settings(**{**SMALL, "recolored": 1.0, "shift": 0}), objective.around
    )
    before, after = plain.batch(Share(3, 0, 16)), turned.batch(Share(3, 0, 16))
    plain.close(), turned.close()
    shirt = COLOR_KEYS.index("clothing")
    for batch in (before, after):
        shown = batch.pixels.float() / 255
        off = (shown - batch.colors[:, shirt, :, None, None]).abs().amax(1)
        assert (off.flatten(1).amin(1) < 0.02).all()
    assert (before.colors - after.colors)[:, shirt].abs().amax(1).min() > 0.01
    said = turned.tokenizer.batch_decode(before.tokens, skip_special_tokens=True)
    named = ~before.spoken.isnan().all(2)
    assert named.any()
    assert all(
        "shirt" in text or "clothes" in text or "wear" in text or "top" in text
        for text, some in zip(said, named[:, shirt].tolist(), strict=True)
        if some
    )
    hatless = before.codes[:, KEYS.index("hat")] == 0
    hats = before.colors[:, COLOR_KEYS.index("hat_color")].isnan().all(1)
    assert torch.equal(hats, hatless)


def test_captions_may_dwell_on_an_attribute(objective: ContrastiveObjective) -> None:
    made = ContrastiveObjective(Settings(**SMALL, focus={"sign": 1.0}), objective.around)
    rng = np.random.default_rng(0)
    person = next(p for p in map(sample, range(99)) if p.attributes["sign"] != "none")
    said = [made.source._caption(person, rng, KEYS) for _ in range(40)]
    assert all(len(one.mentioned - {"hat_color"}) <= 3 for one in said)
    assert sum("sign" in one.mentioned for one in said) > 15
    plain = [made.source._caption(person.with_attribute("sign", "none"), rng, KEYS)]
    made.close()
    assert plain[0].claims
    with pytest.raises(ValidationError, match="no attribute 'sing'"):
        Settings(**SMALL, focus={"sing": 0.5})


def test_kept_words_never_occur(objective: ContrastiveObjective) -> None:
    for position in range(4):
        batch = objective.batch(Share(5, position, 16))
        texts = objective.tokenizer.batch_decode(batch.tokens, skip_special_tokens=True)
        for word in UNSEEN_WORDS:
            spelled = "-".join(word.lower())
            assert not any(spelled in text for text in texts)


def test_the_loss_falls_and_matches_its_parts(objective: ContrastiveObjective) -> None:
    torch.manual_seed(0)
    model = objective.build().train()
    share = Share(0, 0, 16)
    batch = objective.batch(share)
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    totals = []
    for _ in range(8):
        loss, parts = objective.loss(model, batch, share)
        weights = {
            key: getattr(objective.settings, key) for key in parts if key in Settings.model_fields
        }
        assert float(loss.detach()) == pytest.approx(
            sum(weight * float(parts[key].detach()) for key, weight in weights.items()), rel=1e-5
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        totals.append(float(loss.detach()))
    assert totals[-1] < 0.9 * totals[0]


def test_chunks_give_the_same_gradients_without_batch_statistics(
    objective: ContrastiveObjective,
) -> None:
    share = Share(0, 0, 8)
    batch = objective.batch(share)
    found = []
    for chunk in (0, 2):
        torch.manual_seed(0)
        model = objective.build().train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        changed = ContrastiveObjective(Settings(**SMALL, chunk=chunk), objective.around)
        loss, _ = changed.loss(model, batch, share)
        found.append(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_trained_bundle_loads_in_open_clip(
    objective: ContrastiveObjective, tmp_path: Path
) -> None:
    recipe = {
        "objective": "contrastive", "name": "clip", "samples": 32, "batch": 16, "ema": 8,
        "monitor_samples": 0, "settings": SMALL, "pools": str(objective.around.pools),
        "work": str(tmp_path / "work"), "nice": 0, "precision": "fp32",
    }  # fmt: skip
    steps = fit(recipe)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result = end.value
    for name, content in result.files.items():
        (tmp_path / name).write_bytes(content)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    ids = tokenizer(["a person with red hair", "a shirt that says OK"])
    assert ids.shape == (2, 77)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            encode_trimmed(model, ids), model.encode_text(ids), rtol=1e-4, atol=1e-5
        )
        seen = model.encode_image(preprocess(draw(sample(0)))[None])
    assert seen.shape == (1, 16)
    assert "samples_seen = 32" in result.files["card.toml"].decode()


def test_encode_trimmed_does_not_depend_on_buckets(objective: ContrastiveObjective) -> None:
    clip = objective.build().clip.eval()
    ids = objective.batch(Share(0, 0, 16)).tokens
    with torch.no_grad():
        one, four = encode_trimmed(clip, ids), encode_trimmed(clip, ids, buckets=4)
    torch.testing.assert_close(one, four, rtol=1e-4, atol=1e-5)


def test_the_tokenizer_spells_capitals_and_knows_every_byte() -> None:
    from guided.portraits.frames import TRAIN

    tokenizer = train_tokenizer(caption_corpus(TRAIN, 0, 400), 400, 20)
    plain = tokenizer("Pink hair")["input_ids"]
    assert plain == tokenizer("pink hair")["input_ids"]
    assert plain[0] == 1
    assert plain[-1] == END_ID
    assert "o-k" in tokenizer.decode(tokenizer("says OK")["input_ids"])
    assert (
        tokenizer.decode(tokenizer("żółw 🐢")["input_ids"], skip_special_tokens=True).strip()
        == "żółw 🐢"
    )
    assert len(tokenizer("hair " * 100, truncation=True)["input_ids"]) == 20


def test_codes_give_the_person_back() -> None:
    person = sample(11)
    coded = np.array(codes_of(person), np.uint8)
    assert person_of(coded).attributes == person.attributes


def test_shifted_keeps_shape_and_moves_within_reach() -> None:
    pixels = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    pixels[:, :, 8, 8] = 200
    moved = shifted(pixels, 3, torch.Generator().manual_seed(0), groups=4)
    assert moved.shape == pixels.shape
    for image in moved:
        places = (image[0] == 200).nonzero()
        assert len(places) == 1
        assert (places[0] - 8).abs().max() <= 3
    assert shifted(pixels, 0, torch.Generator()) is pixels


def test_small_losses_by_hand() -> None:
    assert float(near_miss(torch.zeros(3), torch.zeros(3))) == pytest.approx(math.log(2))
    assert float(near_miss(torch.zeros(0), torch.zeros(0))) == 0
    logits = torch.tensor([[0.0, 0.0], [5.0, 0.0]])
    hidden = masked_cross_entropy(logits, torch.tensor([-1, -1]))
    assert float(hidden) == 0
    assert float(masked_cross_entropy(logits, torch.tensor([0, -1]))) == pytest.approx(math.log(2))
    true = torch.tensor([[False, False], [True, False]])
    assert float(hit_rate(logits, true)) == 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, color in (("a", "red"), ("b", "blue"), ("c", "red")):
        Image.new("RGB", (40, 30), color).save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("a red card\n", "utf-8")
    lines = [
        {"file": "b.png", "caption": "a blue card"},
        {"file": "c.png", "captions": ["a red card"]},
    ]
    (tmp_path / "more.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return tmp_path


def test_a_users_folder_can_be_trained_on(folder: Path) -> None:
    assert [entry.file.name for entry in captioned_files(folder)] == ["a.png", "b.png", "c.png"]
    settings = Settings(**{**SMALL, "vision": {**VISION, "image_size": 32}})
    made = ContrastiveObjective(settings, Surroundings(data=folder))
    batch = made.batch(Share(0, 0, 6))
    assert batch.pixels.shape == (6, 3, 32, 32)
    assert batch.true.diagonal().all()
    red = batch.pixels[:, 0, 0, 0] > 128
    assert torch.equal(batch.true, red[:, None] == red[None, :])
    loss, parts = made.loss(made.build().train(), batch, Share(0, 0, 6))
    assert torch.isfinite(loss)
    unknown = ("attributes", "claims", "colors", "hard_negatives")
    assert [float(parts[name].detach()) for name in unknown] == [0, 0, 0, 0]
    assert made.monitor(made.build()) == {}


def test_other_tables_and_records_of_runs_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "steps.jsonl").write_text('{"index": 1}\n', "utf-8")
    lines = [{"file_name": "a.png", "text": "one card"}, {"file": "b.png", "captions": ["x", "y"]}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    assert [entry.captions for entry in captioned_files(tmp_path)] == [("one card",), ("x", "y")]


def test_folders_without_captions_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no captioned picture"):
        captioned_files(tmp_path)
    with pytest.raises(UsageError, match="There is no folder"):
        captioned_files(tmp_path / "none")
    (tmp_path / "x.jsonl").write_text('{"file": 3', "utf-8")
    with pytest.raises(UsageError, match=r"x\.jsonl, line 1"):
        captioned_files(tmp_path)
