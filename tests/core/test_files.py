"""Files are written whole, and JSON is valid whatever is in it."""

import json
import math

import numpy as np
import pytest

from utils.core.files import write_json, write_json_lines, write_text


def strict(text: str):
    def refuse(token):
        raise ValueError(token)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("value", "read"),
    [(math.nan, None), (math.inf, None), (-math.inf, None), (np.float32("nan"), None), (np.float32(0.5), 0.5),
     (np.int64(3), 3), (np.bool_(True), True), (0.1, 0.1), ("नदी", "नदी"), (True, True), (None, None)],
)  # fmt: skip
@pytest.mark.parametrize("nest", [lambda v: v, lambda v: [v, (v,)], lambda v: {"a": {"b": [v]}}])
def test_json_is_valid(tmp_path, value, read, nest):
    write_json(tmp_path / "a.json", {"x": nest(value)})
    write_json_lines(tmp_path / "a.jsonl", [{"x": nest(value)}] * 2)
    expected = {"x": json.loads(json.dumps(nest(read)))}
    assert strict((tmp_path / "a.json").read_text("utf-8")) == expected
    assert [strict(line) for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines()] == [expected] * 2


def test_half_a_surrogate_pair_is_written_as_json_does(tmp_path):
    write_json(tmp_path / "a.json", {"x": "\ud800"})
    assert strict((tmp_path / "a.json").read_text("utf-8")) == {"x": "\ud800"}


def test_what_was_there_stays_if_writing_fails(tmp_path):
    write_text(tmp_path / "a", "good")
    with pytest.raises(TypeError):
        write_text(tmp_path / "a", None)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "good"
