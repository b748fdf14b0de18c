"""Selectors against a plain matcher, and their mistakes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.model import (
    EVERYTHING,
    Operator,
    Requirement,
    Selector,
    SelectorError,
    make_selector,
    parse_selector,
)

KEYS = ("zone", "rack", "in", "a key", 'k"', "é,!")
VALUES = ("a", "b", "notin", "a, b", " x ", "(", '"', "é=", "Hall 3")

Written = tuple[str, str, str, tuple[str, ...]]
"""A requirement in words: its text, the key, the relation, the values."""


def quoted(text: str) -> str:
    return json.dumps(text)


@st.composite
def requirement(draw: st.DrawFn) -> Written:
    key, values = draw(st.sampled_from(KEYS)), tuple(draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=3)))
    space = draw(st.sampled_from(["", " ", "  "]))
    relation = draw(st.sampled_from(["=", "==", "!=", "in", "notin", "", "!"]))
    if relation in ("=", "==", "!="):
        values = values[:1]
        return f"{quoted(key)}{space}{relation}{space}{quoted(values[0])}", key, relation, values
    if relation in ("in", "notin"):
        several = f"{space},{space}".join(map(quoted, values))
        return f"{quoted(key)} {relation}{space}({space}{several}{space})", key, relation, values
    return f"{relation}{space if relation else ''}{quoted(key)}", key, relation, ()


def plainly(written: Written, labels: dict[str, str]) -> bool:
    """As the table of Kubernetes' documentation has it."""
    _, key, relation, values = written
    if relation in ("=", "==", "in"):
        return key in labels and labels[key] in values
    if relation in ("!=", "notin"):
        return key not in labels or labels[key] not in values
    return (key in labels) is (relation == "")


def contradicts(written: list[Written]) -> bool:
    """A label that has to have two values."""
    required: dict[str, set[str]] = {}
    for _, key, relation, values in written:
        if relation in ("=", "==", "in") and len(set(values)) == 1:
            required.setdefault(key, set()).update(values)
    return any(len(values) > 1 for values in required.values())


some_labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))


@pytest.mark.slow
@given(st.lists(requirement(), min_size=1, max_size=4), some_labels)
def test_a_selector_matches_as_a_plain_matcher_says(written: list[Written], labels: dict[str, str]) -> None:
    text = ",".join(each[0] for each in written)
    if contradicts(written):
        with pytest.raises(SelectorError, match="has two values"):
            parse_selector(text)
        return
    selector = parse_selector(text)
    assert selector.matches(labels) is all(plainly(each, labels) for each in written)
    assert parse_selector(str(selector)) == selector
    assert parse_selector(",".join(each[0] for each in reversed(written))) == selector
    assert 1 <= selector.specificity <= len(written)


@given(st.text(alphabet='ab in!=,()"<', max_size=12))
def test_any_text_is_a_selector_that_is_written_alike_or_a_mistake_with_its_place(text: str) -> None:
    selector, mistake = parsed(text)
    if selector is None:
        assert "at character" in mistake or "two values" in mistake or "is empty" in mistake
    else:
        assert parse_selector(str(selector)) == selector


def parsed(text: str) -> tuple[Selector | None, str]:
    try:
        return parse_selector(text), ""
    except SelectorError as error:
        return None, str(error)


def test_kubernetes_syntax_is_read_and_written() -> None:
    selector = parse_selector("zone in (b, a), model != x7, !spare, tier notin (c,d), rack, kind=arm, site==Hall 3")
    assert selector == Selector(
        (("kind", "arm"), ("site", "Hall 3")),
        (
            Requirement("model", Operator.NOT_IN, ("x7",)),
            Requirement("rack", Operator.EXISTS),
            Requirement("spare", Operator.ABSENT),
            Requirement("tier", Operator.NOT_IN, ("c", "d")),
            Requirement("zone", Operator.IN, ("a", "b")),
        ),
    )
    assert str(selector) == 'kind=arm, site="Hall 3", model!=x7, rack, !spare, tier notin (c, d), zone in (a, b)'
    assert EVERYTHING.is_everything
    assert EVERYTHING.matches({})
    assert str(EVERYTHING) == ""


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "the selector is empty: leave it out for all nodes"),
        ("  ", "the selector is empty"),
        ("zone=", "expected a value at character 6, and the text ends"),
        ("zone=a,", "expected the key of a label at character 8, and the text ends"),
        ("=a", "expected the key of a label at character 1, not '=a'"),
        ("!", "expected a key after `!` at character 2"),
        ("zone in a", "expected `\\(` after `in` at character 9, not 'a'"),
        ("zone in ()", "expected a value at character 10, not '\\)'"),
        ("zone in (a b", "expected `,` or `\\)` at character 13"),
        ("zone notin (a,", "expected a value at character 15"),
        ("zone=a rack=3", "expected a comma between two requirements, or a value in quotes at character 8, not 'rack=3'"),
        ("zone=a rack in (3)", "expected a comma between two requirements, or a value in quotes at character 8"),
        ("zone rack", "expected a comma between two requirements at character 6"),
        ("temp>1", "at character 5, not '>1': a selector knows =, !=, in, notin and the presence of a label"),
        ('zone="a', "expected a text in double quotes with the escapes of JSON at character 6"),
        ("zone=a, zone=b", "the label zone has two values; give one, or `zone in \\(a, b\\)` for nodes with either"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, what: str) -> None:
    with pytest.raises(SelectorError, match=what):
        parse_selector(text)


def test_a_selector_has_one_canonical_form() -> None:
    twice = make_selector([("zone", "a")], [Requirement("zone", Operator.IN, ("a", "a")), Requirement("x", Operator.EXISTS)])
    assert twice == Selector((("zone", "a"),), (Requirement("x", Operator.EXISTS),))
