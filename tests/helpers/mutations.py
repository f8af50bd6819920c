"""Inputs that are almost right, for Hypothesis: damaged files and JSON values, and command lines of given dataclasses."""

import json
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any

from hypothesis import strategies as st


_BYTES = (
    b"", b'"', b"'", b"\t", b",", b"\n", b"\r", b"\r\n", b" ", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xe0", b"{", b"}", b"[", b"]",
    b"[" * 3000, b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-1", b"0", b"9" * 400, b"9" * 5000, b'"\\ud800"', b"\\", b"|||", b" ||| ",
    b"-", b"0-0", b"#", b"\xc2\xa0", b"\xe2\x80\x8b", b"B-", b"I-PER", b"_", b"a" * 300, b"\x1f\x8b", b"PK\x03\x04", b"PAR1",
)  # fmt: skip
_TEXTS = (
    "", " ", "-1", "0", "1", "2", "1e999", "nan", "-inf", "9" * 30, "9" * 400, "true", "false", "none", "x", "../x", "/proc/x/y", "a,b", "=", "a=b",
    "hi", "en", "hi=x", "hi-en", "hi=", "{}", "{", "[1]", '{"a": NaN}', "*a", "&a [*a]", "\0", "\n", "\x1b[31m", "\ud800", "é" * 200, "x" * 300,
    "<script>", "~", "-", "--", "all", "steps", "epoch", "main", "data", "good", "junk.tsv", "full_shard",
)  # fmt: skip


def json_values() -> st.SearchStrategy[Any]:
    """Any JSON value, with what JSON of Python also has: numbers that are not finite or huge, half surrogate pairs."""
    odd = st.sampled_from(
        [None, True, -1, 0, 2**63, 10**400, float("nan"), float("inf"), "", "\ud800", "\0", "../../x", [], {}]
    )
    leaves = odd | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(_TEXTS)
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    )


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A file of which parts are lost, repeated, or replaced by others; sometimes anything at all."""
    if draw(st.integers(0, 15)) == 0:
        return draw(st.binary(max_size=100))
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(content)))
        end = draw(st.integers(begin, min(len(content), begin + 40)) | st.just(len(content)))
        part = draw(st.sampled_from(_BYTES) | st.just(content[begin:end] * 2) | st.binary(max_size=4))
        content = content[:begin] + part + content[end:]
    return content


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value in which some parts are others, missing or renamed."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        value = _change_part(draw, value)
    return value


def _change_part(draw: st.DrawFn, value: Any) -> Any:
    keys: Sequence[Any] = (
        list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    if not keys or draw(st.integers(0, 4)) == 0:
        return draw(json_values())
    key = draw(st.sampled_from(keys))
    if draw(st.integers(0, 5)) == 0:
        part = value.pop(key)
        if isinstance(value, dict) and draw(st.booleans()):
            value[draw(st.sampled_from(_TEXTS))] = part
    else:
        value[key] = _change_part(draw, value[key])
    return value


@st.composite
def command_lines(draw: st.DrawFn, groups: Sequence[type]) -> list[str]:
    """Words of a command line for the arguments of these dataclasses, with values that may or may not fit their types."""
    words: list[str] = []
    items = [item for group in groups for item in fields(group) if item.init]
    for item in draw(st.lists(st.sampled_from(items), max_size=5)):
        words += [f"--{item.name}", *draw(st.lists(_values(item), max_size=2))]
    if draw(st.integers(0, 9)) == 0:
        words.insert(draw(st.integers(0, len(words))), draw(st.sampled_from(_TEXTS) | st.text(max_size=5)))
    return words


def _values(item: Field) -> st.SearchStrategy[str]:
    numbers = st.integers().map(str) | st.floats().map(str)
    fitting = {"int": numbers, "float": numbers, "bool": st.sampled_from(["true", "false", "1", "no"])}
    kinds = [strategy for name, strategy in fitting.items() if name in str(item.type)]
    choices = [st.sampled_from([str(one) for one in item.metadata["choices"]])] if item.metadata.get("choices") else []
    return st.one_of(st.sampled_from(_TEXTS), *kinds, *choices)
