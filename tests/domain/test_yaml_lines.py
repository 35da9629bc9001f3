"""YAML with lines: what is written is read back, hazards are told, and nothing grows without bound."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpustack.domain.yaml_lines import LineFault, Mark, dump_documents, read_documents, resolved

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
    st.sampled_from(
        ["no", "on", "1e3", "1.10", "0x1f", "12:30", "~", "", "<<", "---", "# a", "a: b", "*a", "-"]
    ),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXTS.filter(lambda k: k != "<<"), inner, max_size=4)
    ),
    max_leaves=12,
)


def values(text: str | bytes) -> list[Any]:
    documents, faults = read_documents(text.encode() if isinstance(text, str) else text)
    assert not faults, faults
    return [one.value for one in documents]


def faults(text: str | bytes) -> list[LineFault]:
    return read_documents(text.encode() if isinstance(text, str) else text)[1]


@given(
    st.lists(st.dictionaries(TEXTS.filter(lambda k: k != "<<"), VALUES, min_size=1, max_size=4), max_size=3)
)
@settings(max_examples=60, deadline=None)
def test_what_is_dumped_is_read_back_equal(documents: list[dict[str, Any]]) -> None:
    text = dump_documents(documents)
    assert values(text) == documents
    assert dump_documents(values(text)) == text


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("true", True),
        ("12:30", "12:30"),
        ("010", "010"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("2026-01-31", "2026-01-31"),
        ("1.10", 1.1),
        ("-3", -3),
        ("1e3", 1000.0),
        ("~", None),
        (".inf", ".inf"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_words_without_quotes_mean_what_they_do_in_yaml_1_2(written: str, meant: object) -> None:
    assert resolved(written) == meant and type(resolved(written)) is type(meant)
    assert values(f"a: {written}") == [{"a": meant}]


def test_every_value_has_its_line_and_what_stood_there() -> None:
    (_, two), wrong = read_documents(b"a: 1\n---\n# b\nenv:\n  on: 1.10\nlist:\n- x\n- {y: z}\n")
    assert not wrong
    assert two.value == {"env": {"on": 1.1}, "list": ["x", {"y": "z"}]}
    assert two.mark(("env", "on")) == Mark(5, "1.10")
    assert (two.mark(("list", 1, "y")).line, two.mark(("list", 0)).line) == (8, 7)
    assert two.mark(("env", "on", "deeper")) == two.mark(("env", "on"))
    assert two.mark(("nowhere",)).line == 2


def test_editors_of_all_systems_may_have_written_it() -> None:
    for encoded in (b"\xef\xbb\xbfa: \xc3\xa9\r\nb: 2\r\n", "a: é\nb: 2\n".encode("utf-16")):
        assert values(encoded) == [{"a": "é", "b": 2}]
    assert values(b"\n---\n---\n# nothing\n...\n") == []


def test_aliases_and_merges_mean_what_they_say() -> None:
    text = "base: &b {x: 1, y: [1]}\nother: {<<: *b, x: 2}\nagain: *b\n"
    assert values(text) == [
        {"base": {"x": 1, "y": [1]}, "other": {"x": 2, "y": [1]}, "again": {"x": 1, "y": [1]}}
    ]
    assert "takes a mapping" in faults("a: {<<: 3}")[0].sentence


def test_faults_name_their_line() -> None:
    assert [one.line for one in faults("a: 1\nb: 2\na: 3\nc: !!python/object:os.system x\nd: [\n")] == [
        3,
        4,
        6,
    ]
    assert faults("a:\n\tb: 1\n") == [LineFault(2, "a tab indents this line: YAML takes blanks alone there")]
    assert "repeats what is not there" in faults("a: 1\nb: *c\n")[0].sentence
    assert "within what it repeats" in faults("a: &a\n  b: *a\n")[0].sentence
    assert "too large" in faults(f"a: {'9' * 30}\n")[0].sentence
    assert "not YAML" in faults(b"a: \xff\n")[0].sentence
    assert faults("? [a]\n: b\n")[0].sentence.startswith("a key must be text")


def test_nothing_grows_beyond_its_bounds() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40))
    assert "more than 100000 values" in faults(bomb)[0].sentence
    assert "deep" in faults("[" * 200_000)[0].sentence
    chain = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 80))
    assert "deep" in faults(chain)[0].sentence
    assert "documents" in faults("---\na\n" * 1001)[0].sentence


def test_a_long_text_is_not_repeated_without_end() -> None:
    text = "x" * 10_000
    repeated = f"a: &a {text}\nb: [{', '.join(['*a'] * 2000)}]\n"
    assert "or as much text" in faults(repeated)[0].sentence
    assert values(f"a: &a {text}\nb: [{', '.join(['*a'] * 20)}]\n")[0]["b"] == [text] * 20
    assert values(f"a: {'x' * (1 << 20)}\n")[0]["a"] == "x" * (1 << 20), "one alone is as long as a file"
