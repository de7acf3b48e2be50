from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from guided.captioning.base import Captioner
from guided.captioning.fuse import Fuse
from guided.captioning.zerocap import Zerocap
from guided.core.objective import Objective
from guided.core.run import Step
from guided.core.seeds import Seeds
from guided.errors import CannotDo, UsageError
from guided.guidance import zerocap
from guided.guidance.caption_decoder import CaptionConfig, CaptionDecoder, PartialCaptions
from guided.guidance.decode import Beams, Proposal, Rows
from guided.guidance.logits_processors import LogitBias
from guided.guidance.zerocap import CaptionModels, ZeroCap, fuse, merits, normalize
from guided.guidance.zerocap_sentences import Ranking, Sentence, sentences
from guided.guidance.zerocap_target import mixed, turned
from guided.language.gpt2 import Gpt2
from guided.language.profile import Profile
from guided.losses.fluency import Fluency
from guided.losses.word_clip import WordClip
from guided.scorers.clip import ClipScorer
from guided.scorers.prefix_text import PrefixTextScorer
from tests.helpers import caption_models

# Fixtures.
one_thread = caption_models.one_thread
clip_folder = caption_models.clip_folder
scorer = caption_models.scorer
words = caption_models.words
language = caption_models.language


OBJECTIVE = WordClip(candidates=64) + 0.2 * Fluency()
MOVING = Zerocap(candidates=40, iterations=3).of_profile(Profile())
WEIGHING = Fuse(candidates=40, weight=20.0)


def targets(count: int) -> Tensor:
    return functional.normalize(Seeds.of(20, count).normal((24,), "targets"), dim=1)


@pytest.fixture
def config(language: Gpt2) -> CaptionConfig:
    barred = tuple(token for token in language.words.non_word_tokens if token != language.begin)
    return CaptionConfig(
        "a portrait of", language.begin, barred, beams=3, length=4, shortest=2
    )  # fmt: skip


@pytest.fixture
def decoder(language: Gpt2, words: PrefixTextScorer) -> CaptionDecoder:
    return CaptionDecoder(language, words, language.words.piece)


def write(
    decoder: CaptionDecoder,
    aims: Tensor,
    config: CaptionConfig,
    captioner: Captioner = MOVING,
    objective: Objective = OBJECTIVE,
) -> tuple[list[Step[PartialCaptions]], list[list[Sentence]]]:
    steps, run = [], decoder.write(aims, config, captioner, objective)
    while True:
        try:
            steps.append(next(run))
        except StopIteration as end:
            return steps, end.value


CAPTIONERS = pytest.mark.parametrize("captioner", [MOVING, WEIGHING])


@CAPTIONERS
def test_every_beam_comes_with_its_scores(
    decoder: CaptionDecoder,
    config: CaptionConfig,
    language: Gpt2,
    scorer: ClipScorer,
    captioner: Captioner,
) -> None:
    aims = targets(2)
    steps, found = write(decoder, aims, config, captioner)
    assert [step.index for step in steps] == list(range(1, len(steps) + 1))
    assert all(len(step.draft.texts) == 2 for step in steps if step.draft)
    for aim, several in zip(aims, found, strict=True):
        assert 1 <= len(several) <= 3
        assert [s.total for s in several] == sorted((s.total for s in several), reverse=True)
        for sentence in several:
            assert sentence.text.startswith("a portrait of")
            cosine = float(scorer.embed_texts([sentence.text])[0] @ aim)
            assert sentence.clip == pytest.approx(cosine, abs=1e-5)
            assert sentence.total == pytest.approx(sentence.clip - 0.01 * sentence.language)


@CAPTIONERS
def test_captions_do_not_depend_on_the_batch(
    decoder: CaptionDecoder, config: CaptionConfig, captioner: Captioner
) -> None:
    aims = targets(4)
    _, together = write(decoder, aims, config, captioner)
    _, backwards = write(decoder, aims.flip(0), config, captioner)
    for row, aim in enumerate(aims):
        _, (alone,) = write(decoder, aim[None], config, captioner)
        for others in (together[row], backwards[3 - row]):
            assert [s.text for s in others] == [s.text for s in alone]
            for one, other in zip(others, alone, strict=True):
                assert one.total == pytest.approx(other.total, abs=1e-4)


def test_the_reference_way_does_not_depend_on_other_pictures_either(
    decoder: CaptionDecoder, config: CaptionConfig
) -> None:
    chosen = replace(config, reference=True)
    aims = targets(3)
    _, together = write(decoder, aims, chosen)
    _, (alone,) = write(decoder, aims[1:2], chosen)
    assert [s.text for s in together[1]] == [s.text for s in alone]
    assert together[1][0].total == pytest.approx(alone[0].total, abs=1e-4)


@CAPTIONERS
def test_guidance_raises_the_cosine(
    decoder: CaptionDecoder, config: CaptionConfig, captioner: Captioner
) -> None:
    aims = targets(6)
    keen = Zerocap(candidates=40, iterations=5).of_profile(Profile())
    _, guided = write(decoder, aims, config, keen if captioner is MOVING else captioner)
    _, unguided = write(decoder, aims, config, Fuse(candidates=40, weight=0.0))
    gain = [a[0].clip - b[0].clip for a, b in zip(guided, unguided, strict=True)]
    assert sum(gain) / len(gain) > 0.02


def test_without_iterations_there_is_only_the_language_model(
    decoder: CaptionDecoder, config: CaptionConfig
) -> None:
    _, still = write(decoder, targets(2), config, MOVING.model_copy(update={"rate": 0.0}))
    assert [s.text for s in still[0]] != []
    assert {s.text for s in still[0]} == {s.text for s in still[1]}


def test_barred_tokens_are_never_written(
    decoder: CaptionDecoder, config: CaptionConfig, language: Gpt2
) -> None:
    for captioner in (MOVING, WEIGHING):
        _, found = write(decoder, targets(2), replace(config, length=6), captioner)
        for several in found:
            for sentence in several:
                assert all(char.isalpha() or char in " ,.'-" for char in sentence.text)
                assert "endoftext" not in sentence.text


def test_stopping_midway_is_enough_to_cancel(
    decoder: CaptionDecoder, config: CaptionConfig
) -> None:
    run = decoder.write(targets(1), config, MOVING, OBJECTIVE)
    first = next(run)
    assert first.draft is not None
    assert first.total == 4
    run.close()
    with pytest.raises(StopIteration):
        next(run)


def test_words_are_streamed(decoder: CaptionDecoder, config: CaptionConfig) -> None:
    steps, _ = write(decoder, targets(1), config)
    lengths = [len(step.draft.texts[0][0]) for step in steps if step.draft]
    assert lengths == sorted(lengths)
    assert set(steps[0].losses) == {"word_clip", "fluency", "total"}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": "a big red hat " * 30}, "The prompt has .* room for 43"),
        ({"beams": 0}, "at least 1 beam"),
        ({"length": 0}, "at least 1 token"),
    ],
)
def test_impossible_wishes(
    decoder: CaptionDecoder, config: CaptionConfig, change: dict[str, object], match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        write(decoder, targets(1), replace(config, **change))


def test_an_empty_prompt_is_fine_without_gradients(
    decoder: CaptionDecoder, config: CaptionConfig
) -> None:
    _, (found,) = write(decoder, targets(1), replace(config, prompt=""), WEIGHING)
    assert found[0].text


def test_a_loss_that_is_not_finite_is_named(decoder: CaptionDecoder, config: CaptionConfig) -> None:
    with pytest.raises(CannotDo, match="'word_clip' is not finite"):
        write(decoder, torch.full((1, 24), float("nan")), config)


def test_the_memory_gives_what_a_whole_reading_would(
    language: Gpt2, words: PrefixTextScorer
) -> None:
    """Contexts carried from step to step equal contexts computed anew."""
    models = CaptionModels(language, words, targets(1), language.words.piece)
    guide = zerocap.Fuse(models, LogitBias(language.begin), candidates=30)
    prompt = [language.begin, *language.encode("a portrait of")]
    first = torch.tensor([prompt])
    zero = torch.zeros(1, dtype=torch.long)
    yes = torch.ones(2, dtype=torch.bool)
    guide.propose(Rows(first, zero, zero, 0, yes[:1]))
    longer = torch.tensor([[*prompt, 7], [*prompt, 9]])
    second: Proposal = guide.propose(Rows(longer, zero.repeat(2), zero.repeat(2), 1, yes))
    expected = language.read(longer).logits.log_softmax(-1)
    assert torch.allclose(second.log_probabilities, expected, atol=2e-5)
    parent = torch.tensor([1, 0, 1])
    longest = torch.cat([longer[parent], torch.tensor([[11], [12], [13]])], dim=1)
    third = guide.propose(Rows(longest, zero.repeat(3), parent, 2, torch.ones(3).bool()))
    expected = language.read(longest).logits.log_softmax(-1)
    assert torch.allclose(third.log_probabilities, expected, atol=2e-5)


def test_stopped_rows_are_not_read(
    decoder: CaptionDecoder, config: CaptionConfig, language: Gpt2, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = ZeroCap.propose

    def counted(self: ZeroCap, rows: Rows) -> Proposal:
        seen.append(len(rows.tokens))
        assert bool(rows.running.all())
        return original(self, rows)

    monkeypatch.setattr(ZeroCap, "propose", counted)
    write(decoder, targets(1), replace(config, length=6, end_bonus=14.0, shortest=1))
    assert seen[0] == 1
    assert sum(seen) < 1 + 3 * 5


def test_fusing_bars_and_mixes() -> None:
    guided = torch.tensor([[0.0, float("-inf")]])
    plain = torch.tensor([[-1.0, -2.0]])
    assert fuse(guided, plain, 0.75).tolist() == [[-0.25, float("-inf")]]
    assert torch.equal(fuse(guided, plain, 1.0), guided)
    assert torch.equal(fuse(guided, plain, 0.0), plain)


def test_normalising_over_beams_and_samples() -> None:
    values = Seeds.of(4, 5).normal((7,), "v")
    owner = torch.tensor([0, 0, 0, 1, 1])
    each = normalize(values, owner, "beam").exp().sum(-1)
    assert torch.allclose(each, torch.ones(5))
    shared = normalize(values, owner, "sample").exp().sum(-1)
    assert float(shared[:3].sum()) == pytest.approx(1.0)
    assert float(shared[3:].sum()) == pytest.approx(1.0)


def test_mixing_targets() -> None:
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    found = mixed(torch.stack([first, second]), [1.0, -1.0])
    assert found.tolist() == pytest.approx([0.5**0.5, -(0.5**0.5)])
    long = mixed(torch.stack([3 * first, 4 * second]), [1.0, 1.0])
    assert long.tolist() == pytest.approx([0.6, 0.8])
    with pytest.raises(CannotDo, match="cancel each other"):
        mixed(torch.stack([first, first]), [1.0, -1.0])
    with pytest.raises(UsageError, match="2 terms need as many weights, not 1"):
        mixed(torch.stack([first, second]), [1.0])


def test_a_difference_has_the_length_its_weights_name() -> None:
    own, first = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    near = torch.tensor([0.0, 1.0, 0.1])
    for second in (near, torch.tensor([0.0, 1.0, 0.01])):
        found = turned(own, torch.stack([second, first]), [1.0, -1.0])
        assert found.tolist() == pytest.approx([0.5**0.5, 0.0, 0.5**0.5], abs=1e-6)
    half = turned(own, torch.stack([near, first]), [0.5, -0.5])
    assert float(half[2] / half[0]) == pytest.approx(0.5)
    added = turned(own, first[None], [3.0])
    assert float(added[1] / added[0]) == pytest.approx(3.0)
    taken = turned(own, first[None], [-3.0])
    assert float(taken[1] / taken[0]) == pytest.approx(-3.0)
    pair = torch.stack([near, first]), [1.0, -1.0]
    assert turned(5 * own, *pair).tolist() == pytest.approx(turned(own, *pair).tolist())
    assert turned(2 * own, first[None][:0], []).tolist() == own.tolist()
    with pytest.raises(CannotDo, match="cancel each other"):
        turned(own, torch.stack([first, first]), [1.0, -1.0])
    with pytest.raises(UsageError, match="1 terms need as many weights, not 2"):
        turned(own, first[None], [1.0, 2.0])


def test_a_merit_ranks_beams_by_all_they_say(
    decoder: CaptionDecoder, config: CaptionConfig, scorer: ClipScorer
) -> None:
    """With a heavy merit the words written are the likely ones of the highest cosine."""
    aims = targets(6)
    still, slow = replace(config, fluency=0.0), MOVING.model_copy(update={"rate": 1e-9})
    heavy = slow.model_copy(update={"weight": 50.0})
    _, deaf = write(decoder, aims, still, slow)
    _, keen = write(decoder, aims, still, heavy)
    gains = [a[0].clip - b[0].clip for a, b in zip(keen, deaf, strict=True)]
    assert sum(gains) / len(gains) > 0.02
    _, (alone,) = write(decoder, aims[2:3], still, heavy)
    assert [s.text for s in alone] == [s.text for s in keen[2]]


def test_the_reference_way_knows_no_merit(decoder: CaptionDecoder, config: CaptionConfig) -> None:
    chosen, once = replace(config, reference=True), MOVING.model_copy(update={"iterations": 1})
    _, plain = write(decoder, targets(1), chosen, once)
    _, keen = write(decoder, targets(1), chosen, once.model_copy(update={"weight": 50.0}))
    assert plain == keen


def test_merits_bar_all_but_the_likeliest(words: PrefixTextScorer, language: Gpt2) -> None:
    models = CaptionModels(language, words, targets(1), language.words.piece)
    tokens = torch.tensor([[language.begin, *language.encode("a portrait of")]])
    zero = torch.zeros(1, dtype=torch.long)
    rows = Rows(tokens, zero, zero, 0, torch.ones(1, dtype=torch.bool))
    likely = Seeds.of(8).normal((language.vocabulary,), "likely").log_softmax(-1)
    found = merits(models.candidates(rows), likely, 7, 3.0)[0]
    kept = likely[0].topk(7).indices
    assert set(found.isfinite().nonzero().squeeze(1).tolist()) == set(kept.tolist())
    text = "a portrait of" + language.words.piece(int(kept[0]))
    cosine = float(words.embed_texts([text])[0] @ targets(1)[0])
    assert float(found[kept[0]]) == pytest.approx(3 * cosine, abs=1e-5)


def test_sentences_without_an_end_rank_lower(language: Gpt2, words: PrefixTextScorer) -> None:
    prompt = [language.begin, *language.encode("a portrait of")]
    tokens = torch.tensor([[[*prompt, 300, 301], [*prompt, 302, language.begin]]])
    lengths, zeros = torch.tensor([[2, 2]]), torch.zeros(1, 2)
    beams = Beams(tokens, len(prompt), lengths, zeros, zeros, torch.tensor([[False, True]]))
    plain, dear = (
        sentences(beams, language, words, targets(1), language.begin, Ranking(unfinished=cost))[0]
        for cost in (0.0, 5.0)
    )
    before = {sentence.text: sentence.total for sentence in plain}
    gaps = [before[sentence.text] - sentence.total for sentence in dear]
    assert gaps == pytest.approx([0.0, 5.0])
    assert dear[0].text == language.decode([*prompt[1:], 302])


def test_merits_are_for_the_words_that_are_likely_without_guidance(
    language: Gpt2, words: PrefixTextScorer
) -> None:
    """What is barred or guided away from does not make room for less likely words."""
    models = CaptionModels(language, words, targets(1), language.words.piece)
    tokens = torch.tensor([[language.begin, *language.encode("a portrait of")]])
    zero = torch.zeros(1, dtype=torch.long)
    likely = language.read(tokens).logits[0].topk(7).indices.tolist()
    guide = ZeroCap(
        models, OBJECTIVE, LogitBias(language.begin, tuple(likely[:3])), iterations=1, candidates=7,
        weight=3.0,
    )  # fmt: skip
    found = guide.propose(Rows(tokens, zero, zero, 0, torch.ones(1, dtype=torch.bool)))
    assert found.merit is not None
    assert set(found.merit[0].isfinite().nonzero().flatten().tolist()) == set(likely)
