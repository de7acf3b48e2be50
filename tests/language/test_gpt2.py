from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

from guided.core.language_model import LanguageModel
from guided.core.seeds import Seeds
from guided.errors import CannotDo, CorruptWeights, MissingWeights
from guided.language.gpt2 import Gpt2, context_length
from guided.language.load import find_language, load_language
from guided.language.profile import Profile
from guided.language.sampling import sample_tokens
from guided.language.vocabulary import Vocabulary, tidy
from tests.helpers.tiny_language import tiny_gpt2, vocabulary, write_language


@pytest.fixture(scope="module")
def language() -> Gpt2:
    return tiny_gpt2()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language(tmp_path_factory.mktemp("language"))


def tokens_of(language: Gpt2, rows: int = 3, length: int = 9) -> torch.Tensor:
    draw = Seeds.of(5, rows).uniform((length,), "tokens")
    return (draw * language.vocabulary).long()


def test_it_is_a_language_model(language: Gpt2) -> None:
    assert isinstance(language, LanguageModel)


def test_one_token_after_a_context_equals_the_whole(language: Gpt2) -> None:
    tokens = tokens_of(language)
    whole = language.read(tokens)
    before = language.read(tokens[:, :-1])
    last = language.read(tokens[:, -1:], before.context)
    assert torch.allclose(last.logits, whole.logits, atol=2e-5)
    for name, leaf in whole.context.items():
        assert leaf.shape == (3, 2, 9, 16)
        assert torch.allclose(last.context[name], leaf, atol=2e-5)


def test_reading_warns_of_nothing(language: Gpt2) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = language.read(torch.tensor([[1, 2]]))
        language.read(torch.tensor([[3]]), first.context)


def test_it_agrees_with_transformers_own_loading(folder: Path) -> None:
    own = load_language(f"local-dir:{folder}").language
    theirs = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = tokens_of(own)
    with torch.no_grad():
        expected = theirs(tokens).logits[:, -1]
    assert torch.allclose(own.read(tokens).logits, expected, atol=1e-5)


def test_the_context_can_be_edited_and_differentiated(language: Gpt2) -> None:
    tokens = tokens_of(language)
    past = language.read(tokens[:, :-1]).context
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in past.items()}
    logits = language.read(tokens[:, -1:], leaves).logits
    gradients = torch.autograd.grad(logits[:, 7].sum(), list(leaves.values()))
    assert context_length(past) == 8
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients)
    assert all(parameter.grad is None for parameter in language.model.parameters())
    nudged = {
        name: leaf + 1e-3 * gradient
        for (name, leaf), gradient in zip(past.items(), gradients, strict=True)
    }
    assert (language.read(tokens[:, -1:], nudged).logits[:, 7] > logits[:, 7]).all()


def test_rows_do_not_depend_on_each_other(language: Gpt2) -> None:
    tokens = tokens_of(language, rows=6)
    together = language.read(tokens).logits
    apart = torch.cat([language.read(row[None]).logits for row in tokens])
    assert torch.allclose(together, apart, atol=1e-5)


def test_losses_are_the_models_own(language: Gpt2) -> None:
    tokens = tokens_of(language)
    spoken = torch.stack(
        [language.read(tokens[:, :place]).logits.log_softmax(-1) for place in range(4, 9)], dim=1
    )
    expected = -spoken.gather(2, tokens[:, 4:, None]).squeeze(2).mean(1)
    assert torch.allclose(language.losses(tokens, start=4), expected, atol=2e-5)


def test_too_many_tokens_are_refused(language: Gpt2) -> None:
    tokens = torch.zeros(1, 49, dtype=torch.long)
    with pytest.raises(CannotDo, match="at most 48 tokens, not 49"):
        language.read(tokens)
    with pytest.raises(CannotDo, match="given 1 tokens"):
        language.losses(tokens[:, :1])


def test_samples_belong_to_their_seed(language: Gpt2) -> None:
    settings = {"prompt": [language.begin], "end": language.begin, "length": 8}
    three = sample_tokens(language, Seeds.of(0, 3), **settings)
    last = sample_tokens(language, Seeds.of(2, 1), **settings)
    assert three[2] == last[0]
    assert len({tuple(row) for row in three}) == 3
    assert all(language.begin not in row for row in three)


def test_a_low_temperature_takes_the_likeliest_word(language: Gpt2) -> None:
    begin = language.begin
    settings = {"prompt": [begin], "end": -1, "length": 6, "temperature": 1e-4}
    said = [begin]
    for _ in range(6):
        said.append(int(language.read(torch.tensor([said])).logits[0].argmax()))
    assert sample_tokens(language, Seeds.of(0, 2), **settings) == [said[1:]] * 2
    cut = sample_tokens(language, Seeds.of(0, 2), **{**settings, "end": said[3]})
    assert cut == [said[1 : said.index(said[3], 1)]] * 2


def test_samples_follow_the_model(language: Gpt2) -> None:
    """The first tokens of many samples have the frequencies the model gives them."""
    rows = sample_tokens(
        language, Seeds.of(0, 4000), prompt=[language.begin], end=language.begin, length=1
    )
    probabilities = language.read(torch.tensor([[language.begin]])).logits.softmax(-1)[0]
    counts = torch.zeros(language.vocabulary)
    for row in rows:
        counts[row[0] if row else language.begin] += 1
    expected_gap = 0.5 * (probabilities * (1 - probabilities) / 4000).sqrt().sum()
    assert 0.5 * (counts / 4000 - probabilities).abs().sum() < 1.5 * expected_gap


def test_missing_files_name_the_folder_and_the_command(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match=r"config.json and model.safetensors") as caught:
        load_language(f"local-dir:{tmp_path}")
    assert str(tmp_path) in str(caught.value)
    assert "guided models get" in str(caught.value)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(MissingWeights, match=r"no tokenizer.json"):
        load_language(f"local-dir:{tmp_path}")


def test_an_unknown_public_name_says_how_to_get_it() -> None:
    with pytest.raises(MissingWeights, match="gpt2") as caught:
        find_language("gpt2")
    assert "guided models get gpt2 --online" in str(caught.value)
    with pytest.raises(MissingWeights, match="--online"):
        find_language("nobody/no-such-model")


@pytest.mark.parametrize("damage", ["config", "weights", "kind", "tokenizer", "profile"])
def test_damaged_folders_are_refused(folder: Path, tmp_path: Path, damage: str) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    broken = {
        "config": ("config.json", b"{"),
        "weights": ("model.safetensors", b"x" * 40),
        "kind": ("config.json", b'{"model_type": "bert"}'),
        "tokenizer": ("tokenizer.json", b"[]"),
        "profile": ("captions.toml", b"ending = 3"),
    }[damage]
    (tmp_path / broken[0]).write_bytes(broken[1])
    with pytest.raises((CorruptWeights, CannotDo)):
        load_language(f"local-dir:{tmp_path}")


def test_the_profile_is_read(folder: Path, tmp_path: Path) -> None:
    assert Profile.load(folder).prompts["caption"] == "a portrait of"
    assert Profile.load(tmp_path).prompts["ocr"] == "Image of text that says"


def test_text_round_trips_through_the_vocabulary() -> None:
    words = vocabulary()
    for text in ("a portrait of a smiling person", "This person's hat, é and 漢!", "  two  blanks"):
        assert words.tokenizer.decode(words.encode(text)) == text


def test_pieces_join_to_the_text() -> None:
    words = vocabulary()
    ids = words.encode("a person with red hair and an OWL")
    assert "".join(words.piece(token) for token in ids) == "a person with red hair and an OWL"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a hat , it 's red .", "a hat, it's red."),
        ("do n't ! they 've ; we 're ?", "don't! they've ; we're?"),
        ("I 'm ' here", "I'm'here"),
    ],
)
def test_tidy(text: str, expected: str) -> None:
    assert tidy(text) == expected


def test_unwordly_tokens() -> None:
    words = vocabulary()
    barred = {words.piece(token) for token in words.non_word_tokens}
    assert {"5", "#", "\n", "<|endoftext|>", "�"} <= barred
    assert barred.isdisjoint({" person", " a", "a", ",", ".", "-", "'", " OWL"})


def test_gpt2s_two_files(tmp_path: Path) -> None:
    vocabulary().tokenizer.model.save(str(tmp_path))
    loaded = Vocabulary.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt")
    assert loaded.encode("a cap and a beard") == vocabulary().encode("a cap and a beard")
    assert Vocabulary.load(tmp_path).decode(loaded.encode("a cap .")) == "a cap."
    (tmp_path / "merges.txt").write_text("a\n\nb c d")
    with pytest.raises(CorruptWeights, match="no BPE"):
        Vocabulary.load(tmp_path)


def test_a_preset_of_a_profile_may_want_otherwise(tmp_path: Path) -> None:
    (tmp_path / "captions.toml").write_text("rate = 0.7\n[presets.ocr]\nlength = 3\n", "utf-8")
    profile = Profile.load(tmp_path)
    assert (profile.asked("caption").length, profile.asked("ocr").length) == (15, 3)
    assert profile.asked("ocr").rate == 0.7
    (tmp_path / "captions.toml").write_text("[presets.ocr]\nlenght = 3\n", "utf-8")
    with pytest.raises(CorruptWeights, match="lenght"):
        Profile.load(tmp_path)
