"""What is lost of long texts, and their windows: whole, in order, each within the context."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided.core.long_texts import MOST_WINDOWS, cut_of, is_longer, split, windows
from guided.errors import UsageError


def count(text: str) -> int:
    """A token for each 3 characters of a word, and two for the ends."""
    return 2 + sum(-(-len(word) // 3) for word in text.split())


TEXTS = st.text(st.sampled_from("ab \n"), max_size=120)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.integers(3, 20))
def test_windows_hold_every_word_in_order_and_fit(text: str, limit: int) -> None:
    parts = windows(text, count, limit) if len(text) < 3 * MOST_WINDOWS else [text]
    if len(text) >= 3 * MOST_WINDOWS:
        return
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(count(part) <= limit for part in parts)
    assert (len(parts) == 1) is (count(text) <= limit)
    whole = all(count(word) <= limit for word in text.split())
    if whole:
        assert [word for part in parts for word in part.split()] == text.split()
        for one, other in itertools.pairwise(parts):  # as many words as fit
            assert count(f"{one} {other.split()[0]}") > limit


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(3, 20))
def test_what_is_lost_is_the_rest(text: str, limit: int) -> None:
    cut = cut_of(text, count, limit)
    assert (cut is not None) is is_longer(text, count, limit) is (count(text) > limit)
    if cut is not None:
        head, rest = split(text, count, limit)
        assert (cut.tokens, cut.limit, cut.lost) == (count(text), limit, rest)
        assert count(head) <= limit
        assert rest


def test_a_cut_names_the_lost_words_briefly() -> None:
    cut = cut_of("one two six ten red hat", count, 5)
    assert cut is not None
    assert "has 8 tokens; this scorer reads 5: the rest was left out, 'ten red hat'" in str(cut)
    assert "--long-text windows" in str(cut)
    assert len(str(cut_of("word " * 9999, count, 5))) < 400


def test_few_prefixes_of_a_huge_text_are_counted() -> None:
    looked = []

    def counted(text: str) -> int:
        looked.append(len(text))
        return count(text)

    head, _ = split("abc " * 100_000, counted, 77)
    assert head == " ".join(["abc"] * 75)
    assert max(looked) < 1000
    assert len(looked) < 40


def test_too_many_windows_are_refused_with_the_limit() -> None:
    assert len(windows("abc " * MOST_WINDOWS, count, 3)) == MOST_WINDOWS
    with pytest.raises(UsageError, match=f"longer than {MOST_WINDOWS} windows of 3 tokens"):
        windows("abc " * (MOST_WINDOWS + 1), count, 3)
