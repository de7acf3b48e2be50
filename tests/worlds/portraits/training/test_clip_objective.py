from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from guided.errors import CannotDo
from guided.nets.clip_text import encode_trimmed
from guided.training.clip_bundle import END_ID, train_tokenizer
from guided.training.contrastive_losses import hit_rate
from guided.training.fit import fit
from guided.training.objective import BatchContext, TrainingContext
from guided.worlds.portraits import KEYS, UNSEEN_WORDS, draw, sample
from guided.worlds.portraits.attributes import COLOR_KEYS
from guided.worlds.portraits.training import clip, unseen_pairs
from guided.worlds.portraits.training.clip import ClipObjective, Settings
from guided.worlds.portraits.training.clip_bundle import caption_corpus
from guided.worlds.portraits.training.clip_pairs import person_of, shifted
from guided.worlds.portraits.training.color_labels import NEAR
from guided.worlds.portraits.training.truth_losses import masked_cross_entropy, near_miss
from guided.worlds.portraits.training.world_data import codes_of, draw_missing

VISION = {"image_size": 128, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
TEXT = {"width": 32, "heads": 2, "layers": 2, "context_length": 77}
SMALL = {"embed": 16, "vision": VISION, "text": TEXT, "vocabulary": 320, "pictures": 64}


@pytest.fixture(scope="module", autouse=True)
def small_counts() -> Iterator[None]:
    """Tokenizers of fewer captions, and pairs counted on fewer portraits."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(clip, "caption_corpus", partial(caption_corpus, count=600))
        patches.setattr(
            unseen_pairs, "unshown_pairs", cache(partial(unseen_pairs.unshown_pairs, 6000))
        )
        yield


@pytest.fixture(scope="module")
def objective(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClipObjective]:
    pools = tmp_path_factory.mktemp("pools")
    made = ClipObjective(Settings(**SMALL), TrainingContext(pools=pools))
    pool = made.dataset.pool
    draw_missing(pool.folder, "train", 128, 0, 64, 64, os.getppid())
    yield made
    made.close()


def test_batches_know_their_truth(objective: ClipObjective) -> None:
    batch = objective.batch(BatchContext(3, 0, 16))
    assert batch.pixels.shape == (16, 3, 128, 128)
    assert batch.pixels.dtype == torch.uint8
    assert batch.true.shape == (16, 24)
    assert batch.true[:, :16].diagonal().all()
    assert not batch.true[:, 16:].diagonal().any()
    again = objective.batch(BatchContext(3, 0, 16))
    assert torch.equal(batch.tokens, again.tokens)
    assert torch.equal(batch.pixels, again.pixels)
    other = objective.batch(BatchContext(3, 1, 16))
    assert not torch.equal(batch.pixels, other.pixels)


def test_recolored_pictures_are_told_what_is_sure(objective: ClipObjective) -> None:
    settings = Settings(**SMALL, recolored=1.0)
    made = ClipObjective(settings, objective.ctx)
    batch = made.batch(BatchContext(3, 0, 16))
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


def test_colours_change_as_the_pixels_do(objective: ClipObjective) -> None:
    plain = ClipObjective(Settings(**{**SMALL, "recolored": 0.0, "shift": 0}), objective.ctx)
    turned = ClipObjective(Settings(**{**SMALL, "recolored": 1.0, "shift": 0}), objective.ctx)
    before, after = plain.batch(BatchContext(3, 0, 16)), turned.batch(BatchContext(3, 0, 16))
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


def test_captions_may_dwell_on_an_attribute(objective: ClipObjective) -> None:
    made = ClipObjective(Settings(**SMALL, focus={"sign": 1.0}), objective.ctx)
    rng = np.random.default_rng(0)
    person = next(p for p in map(sample, range(99)) if p.attributes["sign"] != "none")
    said = [made.dataset._caption(person, rng, KEYS) for _ in range(40)]
    assert all(len(one.mentioned - {"hat_color"}) <= 3 for one in said)
    assert sum("sign" in one.mentioned for one in said) > 15
    plain = [made.dataset._caption(person.with_attribute("sign", "none"), rng, KEYS)]
    made.close()
    assert plain[0].claims
    with pytest.raises(ValidationError, match="no attribute 'sing'"):
        Settings(**SMALL, focus={"sing": 0.5})


def test_kept_words_never_occur(objective: ClipObjective) -> None:
    for position in range(4):
        batch = objective.batch(BatchContext(5, position, 16))
        texts = objective.tokenizer.batch_decode(batch.tokens, skip_special_tokens=True)
        for word in UNSEEN_WORDS:
            spelled = "-".join(word.lower())
            assert not any(spelled in text for text in texts)


def test_the_loss_falls_and_matches_its_parts(objective: ClipObjective) -> None:
    torch.manual_seed(0)
    model = objective.build().train()
    share = BatchContext(0, 0, 16)
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
    objective: ClipObjective,
) -> None:
    share = BatchContext(0, 0, 8)
    batch = objective.batch(share)
    found = []
    for chunk in (0, 2):
        torch.manual_seed(0)
        model = objective.build().train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        changed = ClipObjective(Settings(**SMALL, chunk=chunk), objective.ctx)
        loss, _ = changed.loss(model, batch, share)
        found.append(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_trained_bundle_loads_in_open_clip(objective: ClipObjective, tmp_path: Path) -> None:
    recipe = {
        "objective": "contrastive", "name": "clip", "samples": 32, "batch": 16, "ema": 8,
        "monitor_samples": 0, "settings": SMALL, "pools": str(objective.ctx.pools),
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


def test_encode_trimmed_does_not_depend_on_buckets(objective: ClipObjective) -> None:
    towers = objective.build().clip.eval()
    ids = objective.batch(BatchContext(0, 0, 16)).tokens
    with torch.no_grad():
        one, four = encode_trimmed(towers, ids), encode_trimmed(towers, ids, buckets=4)
    torch.testing.assert_close(one, four, rtol=1e-4, atol=1e-5)


def test_the_tokenizer_spells_capitals_and_knows_every_byte() -> None:
    from guided.worlds.portraits.grammar.frames import TRAIN

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


# ------------------------------------------------------------------ one tower alone


@pytest.fixture(scope="module")
def started(objective: ClipObjective, tmp_path_factory: pytest.TempPathFactory) -> ClipObjective:
    """An objective that tunes the text tower of a CLIP which is there."""
    file = tmp_path_factory.mktemp("start") / "open_clip_model.safetensors"
    first = objective.build()
    tensors = {name: t.contiguous() for name, t in first.clip.state_dict().items()}  # type: ignore[union-attr, operator]
    save_file(tensors, file)
    ctx = replace(objective.ctx, start=file)
    tuned = ClipObjective(Settings(**SMALL, lock_image=True, keep_texts=1.0, free=1.0), ctx)
    tuned.__dict__["tokenizer"] = objective.tokenizer
    return tuned


def test_a_locked_image_tower_stays_and_texts_learn(started: ClipObjective) -> None:
    share = BatchContext(3, 0, 8)
    model = started.build().train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    loss, parts = started.loss(model, started.batch(share), share)
    loss.backward()
    optimiser.step()
    moved = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert "clip.token_embedding.weight" in moved
    assert not [name for name in moved if name.startswith("clip.visual.")]
    assert "keep_texts" in parts


def test_kept_texts_cost_nothing_until_they_are_read_otherwise(started: ClipObjective) -> None:
    share = BatchContext(3, 0, 8)
    model = started.build()
    started.restore(model, load_file(started.ctx.start))  # type: ignore[arg-type]
    batch = started.batch(share)
    assert batch.kept is not None
    assert batch.kept.shape[0] == 4
    same = started.loss(model, batch, share)[1]["keep_texts"]
    assert float(same.detach()) < 1e-9
    with torch.no_grad():
        model.clip.token_embedding.weight.add_(0.05 * torch.randn(1, 32))  # type: ignore[union-attr, operator]
    other = started.loss(model, batch, share)[1]["keep_texts"]
    assert float(other.detach()) > 1e-5


@pytest.mark.parametrize("key", ["lock_image", "keep_texts"])
def test_tuning_needs_weights_to_start_from(objective: ClipObjective, key: str) -> None:
    made = ClipObjective(Settings(**SMALL, **{key: 1}), objective.ctx)
    made.__dict__["tokenizer"] = objective.tokenizer
    share = BatchContext(3, 0, 8)
    with pytest.raises(CannotDo, match="start=FOLDER"):
        made.loss(made.build(), made.batch(share), share)
    made.close()
