"""Questions: reading them, windows over long contexts, the best spans, answers."""

import gzip
import json
from functools import partial

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from helpers import tiny
from utils.core.errors import InputError
from utils.core.tables import READERS, read_rows
from utils.tasks.examples import encoded
from utils.tasks.question_answering import FEATURES, only_tydi_language, pair_name, read_question, read_squad
from utils.tasks.windows import best_spans, encode_windows, find_answers


READERS_OF_QUESTIONS = {**READERS, ".json": read_squad}
CONTEXT = "Anna's sister crossed the old bridge before 7 o'clock.  Nobody   else did; the river was quiet."
SQUAD = {
    "data": [
        {
            "title": "River",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": "a",
                            "question": "Who crossed the bridge?",
                            "answers": [{"text": "Anna's sister", "answer_start": 0}],
                        },
                        {
                            "id": "b",
                            "question": "When?",
                            "answers": [{"text": "before 7 o'clock", "answer_start": 37}],
                        },
                        {
                            "id": "c",
                            "question": "What was quiet?",
                            "answers": [{"text": "the river", "answer_start": 75}],
                        },
                    ],
                }
            ],
        }
    ]
}


def questions() -> Dataset:
    rows = [
        {"id": qa["id"], "context": CONTEXT, "question": qa["question"],
         "answers": {"text": [qa["answers"][0]["text"]], "answer_start": [CONTEXT.index(qa["answers"][0]["text"])]}}
        for qa in SQUAD["data"][0]["paragraphs"][0]["qas"]
    ]  # fmt: skip
    return Dataset.from_list(rows, features=FEATURES)


def windows(examples=None, kind="wordpiece", max_length=24, stride=4, **options):
    settings = {"max_length": max_length, "stride": stride, "max_question_length": 8, "keep_offsets": True, **options}
    pair = tiny.pair_tokenizer(kind)
    return encoded(examples or questions(), partial(encode_windows, tokenizer=pair, **settings)), pair


# --- Reading ---


@pytest.mark.parametrize("packed", [False, True])
def test_squad_s_own_format(tmp_path, packed):
    path = tmp_path / ("dev.json.gz" if packed else "dev.json")
    content = json.dumps(SQUAD, indent=2).encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    read = [read_question(row, where) for where, row in read_rows(str(path), READERS_OF_QUESTIONS)]
    assert [question["id"] for question in read] == ["a", "b", "c"]
    assert read[2] == {
        "id": "c", "context": CONTEXT, "question": "What was quiet?",
        "answers": {"text": ["the river"], "answer_start": [CONTEXT.index("the river")]},
    }  # fmt: skip


def test_a_table_of_questions(tmp_path):
    path = tmp_path / "dev.jsonl"
    row = {"id": 7, "context": CONTEXT, "question": "Who?", "answers": {"text": ["Nobody"], "answer_start": [56]}}
    path.write_text(json.dumps(row) + "\n")
    (read,) = (read_question(row, where) for where, row in read_rows(str(path), READERS_OF_QUESTIONS))
    assert read["id"] == "7"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "not in the format of SQuAD"),
        ('{"data": [{"paragraphs": [{"qas": [{"id": 1}]}]}]}', "not in the format of SQuAD"),
        ('{"data": [{"paragraphs": [{"context": "", "qas": [{"answers": [{"text": "a"}]}]}]}]}', "not in the format"),
    ],
)
def test_files_that_are_not_squad_s(tmp_path, content, message):
    path = tmp_path / "dev.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        list(read_squad(str(path)))


def test_an_answer_is_looked_for_near_its_place():
    context = "no, no, yes, no"
    for start, found in ((0, 0), (4, 4), (3, 4), (5, 4), (11, 13), (99, 13), (-3, 0)):
        row = {"context": context, "question": "?", "answers": {"text": ["no"], "answer_start": [start]}}
        assert read_question(row, "Row 1")["answers"]["answer_start"] == [found]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"answers": {"text": ["Paris"], "answer_start": [0]}},
            "Row 3 of x has the answer 'Paris', which is not in its context",
        ),
        ({"answers": {"text": [""], "answer_start": [0]}}, "the answer ''"),
        ({"answers": {"text": [], "answer_start": []}}, "has no answer; add --version_2_with_negative"),
        ({"answers": "Nobody"}, "column answers"),
        ({"answers": {"text": ["Nobody"]}}, "column answers"),
        ({"question": None}, "has None in column question"),
    ],
)
def test_bad_questions(change, message):
    row = {"context": CONTEXT, "question": "Who?", "answers": {"text": ["Nobody"], "answer_start": [56]}, **change}
    with pytest.raises(InputError, match=message):
        read_question(row, "Row 3 of x")


def test_no_answer_is_one_in_squad_v2():
    row = {"context": CONTEXT, "question": "Who?", "answers": {"text": [], "answer_start": []}}
    assert read_question(row, "Row 1", unanswerable=True)["answers"] == {"text": [], "answer_start": []}


def test_languages_of_tydi_qa():
    rows = Dataset.from_dict({"id": ["english-1", "russian-2", "english-3"]})
    assert only_tydi_language(rows, "ru")["id"] == ["russian-2"]
    assert len(only_tydi_language(rows, "en")) == 2
    other = Dataset.from_dict({"id": ["57", "58"]})
    assert only_tydi_language(other, "ru") is other


def test_names_of_pairs():
    assert [pair_name("hi", "hi"), pair_name("hi", "en")] == ["hi", "hi-en"]


# --- Windows ---


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "bytes", "gemma"])
@pytest.mark.parametrize("stride", [0, 12])
def test_windows_cover_the_context_and_the_labels_are_the_answer(kind, stride):
    data, tokenizer = windows(kind=kind, max_length=30, stride=stride)
    assert len(data.rows) > len(data.examples)
    labelled = set()
    seen = {number: set() for number in range(3)}
    for row in data.rows:
        example = data.examples[row["example"]]
        assert len(row["input_ids"]) == row["length"] <= 30
        first, n = row["first_context_token"], len(row["begins"])
        for begin, end in zip(row["begins"], row["ends"]):
            seen[row["example"]] |= set(range(begin, end))
        start, end = row["start_positions"], row["end_positions"]
        if start:
            assert first <= start <= end < first + n
            span = example["context"][row["begins"][start - first] : row["ends"][end - first]]
            # A token may take a space, or a neighbour that it is joined with, along; never less than the answer.
            assert example["answers"]["text"][0] in span
            assert len(span) <= len(example["answers"]["text"][0]) + 3
            labelled.add(row["example"])
    if stride:
        assert labelled == {0, 1, 2}
    letters = {k for k, letter in enumerate(CONTEXT) if not letter.isspace()}
    assert all(letters <= covered for covered in seen.values())


def test_training_rows_have_no_offsets():
    data, _ = windows(keep_offsets=False)
    assert "begins" not in data.rows.column_names


def test_a_question_without_end_leaves_room_for_the_context():
    example = {**questions()[0], "question": "Who " * 500}
    data, tokenizer = windows(Dataset.from_list([example], features=FEATURES))
    assert all(len(row["begins"]) >= 8 for row in data.rows.select(range(len(data.rows) - 1)))


def test_unanswerable_questions_point_at_the_first_token():
    example = {**questions()[0], "answers": {"text": [], "answer_start": []}}
    data, _ = windows(Dataset.from_list([example], features=FEATURES))
    assert set(data.rows["start_positions"]) == set(data.rows["end_positions"]) == {0}


# --- Spans ---


def spans_by_hand(start, end, n_tokens, n_best, max_length):
    """Two loops over all spans."""
    spans = [(start[i] + end[j], i, j) for i in range(n_tokens) for j in range(i, min(n_tokens, i + max_length))]
    return sorted(spans, key=lambda span: -span[0])[:n_best]


@given(seed=st.integers(0, 10**6), width=st.integers(1, 40), n_best=st.integers(1, 25), max_length=st.integers(1, 50))
def test_best_spans_are_those_of_two_loops(seed, width, n_best, max_length):
    random = np.random.default_rng(seed)
    starts, ends = random.normal(size=(2, 5, width)).astype(np.float32)
    n_tokens = random.integers(0, width + 1, size=5)
    first, last, values = best_spans(starts, ends, n_tokens, n_best, max_length)
    for k in range(5):
        expected = spans_by_hand(starts[k], ends[k], n_tokens[k], n_best, max_length)
        found = [(v, i, j) for v, i, j in zip(values[k], first[k], last[k]) if v > -np.inf]
        assert [(i, j) for _, i, j in found] == [(i, j) for _, i, j in expected]
        assert [v for v, *_ in found] == pytest.approx([v for v, *_ in expected], rel=1e-5)


def logits_for(data, wanted: dict[int, str], sure: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that point at a text in the context, in every window that holds it; elsewhere a little noise."""
    width = max(data.rows["length"])
    start, end = np.random.default_rng(0).normal(scale=0.1, size=(2, len(data.rows), width))
    for number, row in enumerate(data.rows):
        if (text := wanted.get(row["example"])) is not None:
            for logits, letter in ((start, CONTEXT.index(text)), (end, CONTEXT.index(text) + len(text) - 1)):
                for token, (first, last) in enumerate(zip(row["begins"], row["ends"])):
                    if first <= letter < last:
                        logits[number, row["first_context_token"] + token] = sure
    return start, end


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "bytes"])
def test_answers_are_what_the_logits_point_at(kind):
    """Whatever window they lie in, and in whatever order the windows come."""
    data, _ = windows(kind=kind)
    wanted = {0: "Anna's sister", 1: "before 7", 2: "river was quiet"}
    for ordered in (data, data.longest_first()):
        answers = find_answers(ordered, *logits_for(ordered, wanted))
        assert [answer.text for answer in answers] == list(wanted.values())
        assert all(answer.probability > 0.9 for answer in answers)


def test_an_answer_is_no_longer_than_it_may_be():
    data, _ = windows()
    logits = logits_for(data, {0: "Anna's sister crossed"})
    assert find_answers(data, *logits, max_answer_length=2)[0].text != "Anna's sister crossed"


def test_the_best_window_wins_and_a_span_in_two_windows_counts_once():
    data, _ = windows(stride=10)
    start, end = logits_for(data, {2: "river"}, sure=5.0)
    answer = find_answers(data, start, end, n_best=2)[2]
    assert answer.text == "river"
    rival = np.exp(-(10.0 - 5.2))  # the second best span has one of the two ends at most
    assert answer.probability > 1 / (1 + 3 * rival)


def test_questions_without_answer():
    """SQuAD v2: no answer where every window's first token says so by more than the threshold."""
    data, _ = windows()
    start, end = logits_for(data, {0: "Anna's sister", 1: "before 7", 2: "river"}, sure=3.0)
    for number, row in enumerate(data.rows):
        start[number, 0] = end[number, 0] = {0: 5.0, 1: 5.0, 2: 0.0}[row["example"]]
    unsure = data.rows["example"][:].index(1)
    start[unsure, 0] = end[unsure, 0] = 1.0
    texts = lambda threshold: [a.text for a in find_answers(data, start, end, null_score_diff_threshold=threshold)]  # noqa: E731
    assert texts(0.0) == ["", "before 7", "river"]
    assert texts(100.0) == ["Anna's sister", "before 7", "river"]
    assert texts(-100.0) == ["", "", ""]
    answers = find_answers(data, start, end, null_score_diff_threshold=0.0)
    assert [round(a.null_score_difference) for a in answers] == [4, -4, -6]


@pytest.mark.parametrize("width", [64, 1024])
def test_the_spans_of_a_window_grow_with_its_length_and_no_faster(monkeypatch, width):
    """Every token begins at most as many spans as the longest answer has tokens, and blocks of windows are small."""
    sizes = []

    def argpartition(scores, *args, **kwargs):
        sizes.append(scores.size)
        return np.asarray(scores).argpartition(*args, **kwargs)

    monkeypatch.setattr(np, "argpartition", argpartition)
    logits = np.random.default_rng(0).normal(size=(2, 200, width)).astype(np.float32)
    best_spans(*logits, np.full(200, width), 20, 30)
    assert sum(sizes) == 200 * width * 30
    assert max(sizes) <= 2 * 2**22
