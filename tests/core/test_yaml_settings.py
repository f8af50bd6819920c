"""Settings in YAML, which come from anywhere."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.outcomes import refusal
from utils.core.settings import parse_yaml


BOMB = "\n".join(["a: &a [x, x, x]", *(f"{b}: &{b} [*{a}, *{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi"))])


def test_values_are_text():
    assert parse_yaml("{a: no, b: 1e-4, c: [1, ~]}", "It") == {"a": "no", "b": "1e-4", "c": ["1", "~"]}


@pytest.mark.parametrize(
    "text",
    [BOMB, "*a", "a: &b [*b]", "\f", "{a: [", "a: 1\na: 2", "? [a]\n: b", "[" * 5000, "!!python/object:os.system x"],
)
def test_what_cannot_be_read_is_refused(text):
    message = refusal(lambda: parse_yaml(text, "--nli"))
    assert message is None or message.startswith("--nli ")
    assert (message is None) == ("python" in text)  # (a tag means nothing: all values are text)


@given(st.text(max_size=30) | st.text("*&[]{}:,?-|>!%@`'\"#~ \n\tab1", max_size=40))
@example("&a ")
def test_any_text_is_read_or_refused_in_one_line(text):
    refusal(lambda: parse_yaml(text, "--nli"))
