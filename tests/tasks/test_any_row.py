"""Whatever a row holds: an example, or one sentence about what is wrong."""

from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import run_ner
import run_nli
import run_pawsx
import run_pos
from utils.core.errors import InputError
from utils.tasks.question_answering import read_question
from utils.tasks.sentence_pairs import read_sentence_pair
from utils.tasks.tagging import read_conll, read_conllu, read_tagged


GOOD = {"premise": "a", "hypothesis": "b", "label": "neutral", "tokens": ["a"], "ner_tags": ["O"], "pos_tags": ["X"],
        "context": "In Paris 55", "question": "q", "answers": {"text": ["Paris"], "answer_start": [3]}}  # fmt: skip
KNOWN = ["en:a", "O", "B-LOC", "neutral", "0", "-1", "LABEL_1", "Paris", "55", 10**400]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(KNOWN))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["text", "answer_start", "x"]), inner, max_size=3)
    ),
    max_leaves=10,
)
PAIR = partial(read_sentence_pair, columns=("premise", "hypothesis"))
READERS = [
    (partial(PAIR, classes=run_nli.LABELS), ("premise", "hypothesis", "label")),
    (partial(PAIR, classes=run_pawsx.LABELS, labels=["x", "LABEL_0"]), ("premise", "hypothesis", "label")),
    (run_ner.read_sentence, ("tokens", "ner_tags")),
    (partial(read_tagged, column="pos_tags", labels=run_pos.LABELS), ("tokens", "pos_tags")),
    (read_question, ("context", "question", "answers")),
    (partial(read_question, unanswerable=True), ("context", "question", "answers")),
]


@pytest.mark.parametrize(("read", "columns"), READERS)
@settings(max_examples=40)
@given(data=st.data())
def test_any_values(read, columns, data):
    changed = data.draw(st.lists(st.sampled_from([*columns, "id"]), min_size=1, max_size=2))
    row = {name: GOOD[name] for name in columns} | {name: data.draw(VALUES) for name in changed}
    with suppress(InputError):
        assert set(columns) <= set(read(row, "Row 1"))


@pytest.mark.parametrize("read", [read_conllu, partial(read_conll, column="ner_tags")])
@settings(max_examples=40)
@given(text=st.text(alphabet="a\t\n #1-.BOX:en\r\x0b\u2028 "))
def test_any_lines(tmp_path_factory, read, text):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text(text, newline="")
    with suppress(InputError):
        for _, row in read(str(path)):
            tokens, tags = (values for name, values in row.items() if name != "id")
            assert len(tokens) == len(tags) > 0
