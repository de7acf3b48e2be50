"""Edits whose words leave a value open, or name a hat's colour."""

from __future__ import annotations

from guided.worlds.portraits.judging.edit_cases import FREE_WORD_EDITS, Edit, cases, edit_named

BEARD = Edit("a beard", "a beard", (("beard", "full"),), also=(("beard", "goatee"),))
RED_CAP = Edit("a red cap", "a red cap", (("hat", "cap"), ("hat_color", "red")))


def test_any_of_the_values_left_open_is_reached() -> None:
    source = cases(BEARD, 1)[0].source
    for value, reached in (("full", True), ("goatee", True), ("moustache", False)):
        assert BEARD.reached(source.with_attribute("beard", value).attributes) is reached
    assert not BEARD.possible(source.with_attribute("beard", "goatee"))
    assert BEARD.possible(source)


def test_a_perfect_edit_may_show_each_value_left_open() -> None:
    for case in cases(BEARD, 6):
        values = [after.attributes["beard"] for after in case.truths]
        assert values == sorted(values, key=["full", "goatee"].index)
        assert set(values) <= {"full", "goatee"}
    assert any(len(case.truths) == 2 for case in cases(BEARD, 6))


def test_a_named_color_is_the_new_hat_s_only_one() -> None:
    for case in cases(RED_CAP, 12):
        assert [after.attributes["hat_color"] for after in case.truths] == ["red"]
        assert case.source.attributes["clothing"] != "red"


def test_clothes_do_not_take_the_hat_s_color() -> None:
    edit = Edit("a red shirt", "a red shirt", (("clothing", "red"),))
    source = cases(Edit("cap", "cap", (("hat", "cap"),)), 1)[0].truths[0]
    assert not edit.possible(source.with_attribute("hat_color", "red"))


def test_free_edits_are_known_by_their_words() -> None:
    for edit in FREE_WORD_EDITS:
        assert edit_named(edit.name) is edit
        assert edit.text == edit.prompt == edit.name
