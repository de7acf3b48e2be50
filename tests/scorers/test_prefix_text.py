from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn
from torch.nn import functional

from guided.core.seeds import Seeds
from guided.errors import UsageError
from guided.scorers.clip import ClipScorer, load_clip
from guided.scorers.prefix_text import PrefixTextScorer
from guided.scorers.prefix_tokens import Texts
from tests.helpers import caption_models
from tests.helpers.tiny_clip import write_clip

# Fixtures.
one_thread = caption_models.one_thread
clip_folder = caption_models.clip_folder
scorer = caption_models.scorer


EXACT = 5e-7
VISION = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
PREFIXES = ("", "a", "Image of a", "a photo of the red dog", "It's a big, old house", "x-ray &")
ENDINGS = (
    " cat", " dogs", "s", "ting", "-", "'s", " éa", "<|endoftext|>", " ", " Airplane", "\n\n", "�",
    " &amp;", " re-heated", ".", ",", "LOVE", " LOVE", " OK!", "",
)  # fmt: skip


def stirred(model: nn.Module) -> nn.Module:
    """The model with every vector moved, so that no bias or norm is trivial."""
    for number, (name, value) in enumerate(sorted(model.named_parameters())):
        if value.ndim == 1:
            value.data += 0.2 * Seeds.of(3).normal(tuple(value.shape), f"{number} {name}")[0]
    return model.eval().requires_grad_(False)


def own_clip(**text: object) -> nn.Module:
    torch.manual_seed(0)
    return stirred(
        open_clip.model.CLIP(
            embed_dim=24,
            vision_cfg=VISION,
            text_cfg={"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4,
                      "layers": 3, **text},
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def simple() -> tuple[nn.Module, SimpleTokenizer]:
    return own_clip(), SimpleTokenizer()


def plain(model: nn.Module, tokenize: object, texts: list[str]) -> Tensor:
    with torch.no_grad():
        return functional.normalize(model.encode_text(tokenize(texts)).float(), dim=-1)  # type: ignore


def compare(scorer: PrefixTextScorer, model: nn.Module, tokenize: object) -> None:
    found = scorer.embed_endings(PREFIXES, [ENDINGS] * len(PREFIXES))
    for prefix, rows in zip(PREFIXES, found, strict=True):
        expected = plain(model, tokenize, [prefix + ending for ending in ENDINGS])
        assert (rows - expected).abs().max() <= EXACT, prefix


def test_it_equals_the_plain_tower(simple: tuple[nn.Module, SimpleTokenizer]) -> None:
    scorer = PrefixTextScorer(*simple)
    compare(scorer, *simple)
    compare(scorer, *simple)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.text(max_size=30), min_size=1, max_size=4),
    st.lists(st.text(max_size=8) | st.sampled_from(ENDINGS), min_size=1, max_size=6),
)
def test_any_texts(
    simple: tuple[nn.Module, SimpleTokenizer], prefixes: list[str], endings: list[str]
) -> None:
    scorer = PrefixTextScorer(*simple)
    found = scorer.embed_endings(prefixes, [endings] * len(prefixes))
    for prefix, rows in zip(prefixes, found, strict=True):
        expected = plain(*simple, [prefix + ending for ending in endings])
        assert (rows - expected).abs().max() <= EXACT


PLAIN_TEXT = st.text(st.sampled_from("abcdefgXYZ ,.'-"), max_size=24)


@settings(max_examples=60, deadline=None)
@given(PLAIN_TEXT, st.lists(PLAIN_TEXT, min_size=1, max_size=8))
@pytest.mark.parametrize("kind", ["simple", "own"])
def test_ids_put_together_are_those_of_the_whole(
    kind: str, own: Path, prefix: str, endings: list[str]
) -> None:
    tokenize, texts = _texts(kind, own)
    (found,) = texts.rows([prefix], [endings])
    assert texts.tower is not None
    for ids, ending in zip(found, endings, strict=True):
        row = tokenize([prefix + ending])
        end = int(texts.tower.ends(row)[0])
        assert ids == tuple(row[0, : end + 1].tolist())


_KEPT: dict[str, tuple[object, Texts]] = {}


def _texts(kind: str, own: Path) -> tuple[object, Texts]:
    if kind not in _KEPT:
        if kind == "simple":
            scorer = PrefixTextScorer(own_clip(), SimpleTokenizer())
        else:
            scorer = PrefixTextScorer.of(load_clip(f"local-dir:{own}"))
        assert scorer.texts._splits
        _KEPT[kind] = scorer.texts.tokenize, scorer.texts
    return _KEPT[kind]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("own"))


@pytest.mark.parametrize("pool", ["eos", "argmax"])
def test_own_tokenizer_and_pooling(tmp_path: Path, pool: str) -> None:
    loaded = load_clip(f"local-dir:{write_clip(tmp_path / pool, pool_type=pool)}")
    stirred(loaded.model)
    scorer = PrefixTextScorer.of(loaded)
    assert scorer.tower is not None
    compare(scorer, loaded.model, loaded.texts.tokenizer)


def test_a_tower_of_its_own_module() -> None:
    torch.manual_seed(0)
    model = stirred(
        open_clip.model.CustomTextCLIP(
            embed_dim=24,
            vision_cfg=VISION,
            text_cfg={"context_length": 40, "vocab_size": 49408, "width": 32, "heads": 2,
                      "layers": 2, "proj_bias": True, "ls_init_value": 0.1},
        )
    )  # fmt: skip
    tokenize = SimpleTokenizer(context_length=40)
    scorer = PrefixTextScorer(model, tokenize)
    assert scorer.tower is not None
    compare(scorer, model, tokenize)


@pytest.mark.parametrize(
    "text", [{"no_causal_mask": True, "pool_type": "last"}, {"embed_cls": True}]
)
def test_other_towers_run_whole(text: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = stirred(
        open_clip.model.CustomTextCLIP(
            embed_dim=24,
            vision_cfg=VISION,
            text_cfg={"context_length": 30, "vocab_size": 49408, "width": 32, "heads": 2,
                      "layers": 2, **text},
        )
    )  # fmt: skip
    tokenize = SimpleTokenizer(context_length=30)
    scorer = PrefixTextScorer(model, tokenize)
    assert scorer.tower is None
    compare(scorer, model, tokenize)
    with pytest.raises(UsageError, match="not causal"):
        PrefixTextScorer(model, tokenize, precision="bf16")


def test_texts_longer_than_the_context(simple: tuple[nn.Module, SimpleTokenizer]) -> None:
    scorer = PrefixTextScorer(*simple)
    prefixes = ["dog " * count + "dog" for count in (70, 73, 74, 75, 76, 90)]
    found = scorer.embed_endings(prefixes, [ENDINGS] * len(prefixes))
    for prefix, rows in zip(prefixes, found, strict=True):
        expected = plain(*simple, [prefix + ending for ending in ENDINGS])
        assert (rows - expected).abs().max() <= EXACT


def test_only_new_positions_are_computed(simple: tuple[nn.Module, SimpleTokenizer]) -> None:
    scorer = PrefixTextScorer(*simple)
    words = [" cat", " dog", " house", " tree"]
    scorer.embed_endings(["a photo of a big red"], [words])
    assert scorer.counts.positions == 7 + 4 * 2
    scorer.embed_endings(["a photo of a big red dog"], [words])
    assert scorer.counts.positions == 7 + 8 + 1 + 8
    scorer.embed_endings(["a photo of a big red dog"], [[" dogs", "s"]])
    assert scorer.counts.positions == 24 + 2 + 2
    scorer.forget()
    scorer.embed_endings(["a photo of a big red dog"], [words])
    assert scorer.counts.positions == 28 + 8 + 8


def test_equal_texts_are_computed_once(simple: tuple[nn.Module, SimpleTokenizer]) -> None:
    scorer = PrefixTextScorer(*simple)
    first, second = scorer.embed_endings(["a", "a big"], [[" big dog", " Big DOG"], [" dog"]])
    assert scorer.counts.asked == 3
    assert scorer.counts.distinct == 1
    assert torch.equal(first[0], second[0])


def test_a_small_memory_changes_nothing(simple: tuple[nn.Module, SimpleTokenizer]) -> None:
    tight = PrefixTextScorer(*simple, nodes=12)
    for prefix in ("a big dog", "a small cat", "two red birds", "a big dog in the house"):
        (rows,) = tight.embed_endings([prefix], [ENDINGS])
        expected = plain(*simple, [prefix + ending for ending in ENDINGS])
        assert (rows - expected).abs().max() <= EXACT


def test_many_prefixes_in_one_call(simple: tuple[nn.Module, SimpleTokenizer]) -> None:
    scorer = PrefixTextScorer(*simple)
    places = ["house", "tree", "road", "river", "hill", "boat", "car", "door"]
    prefixes = [f"a {word} near the {other} and so on" for word in places for other in places]
    found = scorer.embed_endings(prefixes, [[" cat", "s"]] * 64)
    expected = plain(*simple, [p + e for p in prefixes for e in (" cat", "s")])
    assert (torch.cat(found) - expected).abs().max() <= EXACT


def test_bf16_is_near_and_says_that_it_is_not_exact(
    simple: tuple[nn.Module, SimpleTokenizer],
) -> None:
    exact, near = PrefixTextScorer(*simple), PrefixTextScorer(*simple, precision="bf16")
    assert exact.exact
    assert not near.exact
    (rows,) = near.embed_endings(["a photo of a"], [ENDINGS])
    (expected,) = exact.embed_endings(["a photo of a"], [ENDINGS])
    gap = float((rows - expected).abs().max())
    assert EXACT < gap < 2e-2
    assert simple[0].transformer.resblocks[0].mlp.c_fc.weight.dtype == torch.float32  # type: ignore


def test_nothing_asked_nothing_done(scorer: ClipScorer) -> None:
    words = PrefixTextScorer.of(scorer)
    (rows,) = words.embed_endings(["a"], [[]])
    assert rows.shape == (0, 24)
    with pytest.raises(UsageError, match="2 prefixes need as many lists of endings, not 1"):
        words.embed_endings(["a", "b"], [["c"]])


def test_texts_equal_the_scorers(scorer: ClipScorer) -> None:
    texts = ["a red square", "the dog", "a red square", "a person with a hat on the grass"]
    found = PrefixTextScorer.of(scorer).embed_texts(texts)
    assert torch.allclose(found, scorer.embed_texts(texts), atol=1e-6)
