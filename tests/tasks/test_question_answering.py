"""Questions: reading them, windows over long contexts, the best spans, answers."""

import gzip
import json
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

import run_qa
from helpers import tiny
from helpers.places import MISSING, changed, places_in
from utils.core.errors import InputError
from utils.core.tables import READERS, read_rows
from utils.tasks.examples import UnlabeledError, encoded
from utils.tasks.question_answering import FEATURES, only_tydi_language, pair_name, read_question, read_squad
from utils.tasks.windows import best_spans, encode_windows, find_answers, window_sizes


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
    "content",
    [
        "{",
        "7",
        '["a"]',
        '{"data": [{"paragraphs": [{"qas": [{"id": 1}]}]}]}',
        '{"data": [{"paragraphs": [{"context": "", "qas": 7}]}]}',
        '{"data": [{"paragraphs": 7}]}',
        '{"data": [{"paragraphs": [{"context": "", "qas": ["a"]}]}]}',
    ],
)
def test_files_that_are_not_squad_s(tmp_path, content):
    path = tmp_path / "dev.json"
    path.write_text(content)
    with pytest.raises(InputError, match=str(path)):
        list(read_squad(str(path)))


OTHERS = [MISSING, None, True, 7, 1.5, "x", "None", [], {}, [7], [None], ["x"], [[]], {"a": None}, [{}], [{"a": 1}]]
PLACES = [place for place, _ in places_in(SQUAD) if place != ("data",)]


@pytest.mark.parametrize("layout", ["one line", "indented", "articles by line"])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: "-".join(map(str, place)))
def test_every_part_of_squad_missing_or_of_another_type(tmp_path, layout, place):
    """Read as it is, or refused in words that name the file and the question; Python does not show."""
    path = tmp_path / "dev.json"
    for other in OTHERS:
        content = changed(SQUAD, place, other)
        articles = content["data"]
        text = json.dumps(content, indent=2 if layout == "indented" else None)
        path.write_text("\n".join(map(json.dumps, articles)) if layout == "articles by line" else text)
        try:
            found = [read_question(row, where, unanswerable=True) for where, row in read_squad(str(path))]
        except InputError as error:
            message = str(error)
            assert str(path) in message
            for python in ("Error", "None", "True", "[", "{", "<"):
                assert python not in message.replace("'None'", "").replace('{"id": …}', "")
            if "qas" in place[:-1] and "id" not in place and len(place) > 6:
                assert f"Question {'abc'[place[5]]} " in message
        else:
            touched = {"abc"[place[5]]} if len(place) > 5 else set("abc")
            of_file = {row["id"]: row for row in questions().to_list()}
            assert all(row == of_file[row["id"]] for row in found if row.get("id") in set("abc") - touched)
            assert set("abc") - touched <= {row.get("id") for row in found}
            assert all(
                isinstance(row[name], str) for row in found for name in ("id", "context", "question") if name in row
            )


@pytest.mark.parametrize("content", [{"data": {}}, {"version": "2", "data": None}, {"paragraphs": 7}, {"data": 1}])
def test_one_object_on_several_lines_is_no_list(tmp_path, content):
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(content, indent=2))
    with pytest.raises(InputError) as error:
        list(read_squad(str(path)))
    assert "Expecting" not in str(error.value)


@pytest.mark.parametrize("wrong", [True, [], ["a"], {}, {"a": 1}])
def test_ids_are_text_or_numbers(wrong):
    row = {"context": CONTEXT, "question": "Who?", "answers": NOBODY}
    with pytest.raises(InputError, match="Row 1"):
        read_question({**row, "id": wrong}, "Row 1")
    assert [read_question({**row, "id": right}, "Row 1").get("id") for right in ("a", 7, None)] == ["a", "7", None]


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
        ({"answers": [{"text": "Nobody"}]}, "column answers"),
        ({"answers": ["Nobody"]}, "column answers"),
        ({"question": None}, "in column question"),
    ],
)
def test_bad_questions(change, message):
    row = {"context": CONTEXT, "question": "Who?", "answers": {"text": ["Nobody"], "answer_start": [56]}, **change}
    with pytest.raises(InputError, match=message):
        read_question(row, "Row 3 of x")


NOBODY = {"text": ["Nobody"], "answer_start": [56]}
TWO = {"text": ["Nobody", "Nobody   else"], "answer_start": [56, 56]}


@pytest.mark.parametrize(
    ("answers", "read"),
    [
        (NOBODY, NOBODY),
        ({"text": "Nobody", "answer_start": 56}, NOBODY),
        ({"text": "Nobody", "answer_start": [56]}, NOBODY),
        ([{"text": "Nobody", "answer_start": 56}], NOBODY),
        ([{"text": ["Nobody"], "answer_start": [56]}], NOBODY),
        ([{"text": text, "answer_start": 56} for text in TWO["text"]], TWO),
        ({"text": ["Nobody"], "answer_start": ["56"]}, NOBODY),
        ({"text": ["Nobody"], "answer_start": [56.0]}, NOBODY),
        ({"text": ["Nobody"], "answer_start": "56.0"}, NOBODY),
        ({"text": ["Nobody"], "answer_start": [None]}, NOBODY),
        ({"text": ["Nobody"], "answer_start": None}, NOBODY),
        ({"text": TWO["text"], "answer_start": [None, 56]}, TWO),
    ],
)
def test_layouts_of_answers(answers, read):
    row = {"context": CONTEXT, "question": "Who?", "answers": answers}
    assert read_question(row, "Row 1")["answers"] == read


@pytest.mark.parametrize("answers", [None, [], {"text": [], "answer_start": []}, {"text": None, "answer_start": None}])
def test_layouts_of_no_answer(answers):
    row = {"context": CONTEXT, "question": "Who?", "answers": answers}
    assert read_question(row, "Row 1", unanswerable=True)["answers"] == {"text": [], "answer_start": []}
    with pytest.raises(UnlabeledError):
        read_question(row, "Row 1")


WRONG = [
    7,
    1.5,
    True,
    "x",
    [[]],
    {"a": 1},
    ["a", "b", "c"],
    float("nan"),
    float("inf"),
    10**30,
    b"x",
    "'O\r",
    "1e9999",
    "None",
]


@given(
    st.sampled_from(["answers", "text", "answer_start", "context", "question", "item", "start"]),
    st.sampled_from(WRONG),
)
def test_answers_of_wrong_types_are_refused(place, wrong):
    """Of whatever types: an example, or one sentence."""
    answers = {**NOBODY, place: [wrong] if place in ("item", "start") else wrong}
    answers |= {
        "text": answers.pop("item", answers["text"]),
        "answer_start": answers.pop("start", answers["answer_start"]),
    }
    row = {"context": CONTEXT, "question": "Who?", "answers": answers}
    if place in row:
        row[place] = wrong
    for unanswerable in (False, True):
        with suppress(InputError):
            assert read_question(row, "Row 1", unanswerable)["answers"]["text"] in ([], ["Nobody"])


@pytest.mark.parametrize(("n_texts", "n_starts"), [(1, 0), (0, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("unanswerable", [False, True])
def test_as_many_texts_as_starts(n_texts, n_starts, unanswerable):
    row = {
        "context": CONTEXT,
        "question": "?",
        "answers": {"text": ["Nobody"] * n_texts, "answer_start": [56] * n_starts},
    }
    with pytest.raises(InputError, match="Row 1"):
        read_question(row, "Row 1", unanswerable)


@pytest.mark.parametrize("layout", ["articles", "flat", "array"])
@pytest.mark.parametrize("null", [False, True])
def test_layouts_of_json(tmp_path, layout, null):
    """SQuAD's articles, rows under `data`, a list of rows; answers that are null, as in some files of SQuAD v2."""
    rows = [{**row, "answers": None if null else row["answers"]} for row in questions().to_list()]
    article = {"paragraphs": [{"context": CONTEXT, "qas": [{**row, "context": None} for row in rows]}]}
    content = {"articles": {"data": [article]}, "flat": {"version": "2", "data": rows}, "array": rows}[layout]
    (tmp_path / "a.json").write_text(json.dumps(content))
    found = [read_question(row, where, unanswerable=True) for where, row in read_squad(str(tmp_path / "a.json"))]
    none = {"text": [], "answer_start": []}
    assert found == [{**row, "answers": none if null else row["answers"]} for row in rows]


def test_deep_json_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(InputError):
        list(read_squad(str(tmp_path / "a.json")))


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
    labeled = set()
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
            # A token may take a space, or a neighbor that it is joined with, along; never less than the answer.
            assert example["answers"]["text"][0] in span
            assert len(span) <= len(example["answers"]["text"][0]) + 3
            labeled.add(row["example"])
    if stride:
        assert labeled == {0, 1, 2}
    letters = {k for k, letter in enumerate(CONTEXT) if not letter.isspace()}
    assert all(letters <= covered for covered in seen.values())


def test_training_rows_have_no_offsets():
    data, _ = windows(keep_offsets=False)
    assert "begins" not in data.rows.column_names


def test_a_question_without_end_leaves_room_for_the_context():
    example = {**questions()[0], "question": "Who " * 500}
    data, tokenizer = windows(Dataset.from_list([example], features=FEATURES))
    assert all(len(row["begins"]) >= 8 for row in data.rows.select(range(len(data.rows) - 1)))


QUESTIONS = [
    "Who " * 300,
    "🙂" * 100,
    "नदी" * 90,
    "a" * 400,
    "Anna's  " * 80,
    "  \n  ",
    "",
    "?",
    "x" * 70 + " " + "🙂" * 7,
]


@pytest.mark.parametrize("kind", tiny.TOKENIZERS)
@settings(max_examples=30)
@given(st.data())
def test_every_question_leaves_room_for_its_context(kind, data):
    """Whatever the lengths: windows are no longer than they may be, and together hold the context."""
    tokenizer, draw = tiny.pair_tokenizer(kind), data.draw
    length, stride, n_tokens = draw(st.integers(0, 64)), draw(st.integers(1, 500)), draw(st.integers(1, 500))
    examples = [{**question, "question": draw(st.sampled_from(QUESTIONS))} for question in questions()]
    batch = {column: [example[column] for example in examples] for column in FEATURES}
    try:
        sizes = window_sizes(tokenizer, length, stride, n_tokens)
    except InputError:
        assert length < 5
        return
    rows = encode_windows(batch, range(3), tokenizer, length, *sizes, keep_offsets=True)
    assert max(map(len, rows["input_ids"])) <= length
    for number in range(3):
        windows = [k for k, example in enumerate(rows["example"]) if example == number]
        covered = {
            letter for k in windows for span in zip(rows["begins"][k], rows["ends"][k]) for letter in range(*span)
        }
        assert {k for k, letter in enumerate(CONTEXT) if not letter.isspace()} <= covered


def test_sizes_that_leave_room_stay():
    assert window_sizes(tiny.pair_tokenizer(), 384, 128, 64) == (128, 64)
    assert window_sizes(tiny.pair_tokenizer(), 60, 20, 12) == (20, 12)


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


def test_limits_above_the_length_of_a_window_cost_nothing():
    logits = np.random.default_rng(0).normal(size=(2, 3, 10)).astype(np.float32)
    widest, whole = (best_spans(*logits, np.full(3, 10), n, n) for n in (10**9, 100))
    assert all(np.array_equal(one, other) for one, other in zip(widest, whole))


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


@pytest.mark.parametrize("name", ["rajpurkar/squad", "rajpurkar/squad_v2", "squad", "squad_v2"])
def test_models_trained_on_squad_are_evaluated_on_xquad(name):
    assert run_qa.QaDataArguments(dataset_name=name).eval_dataset_name == "google/xquad"


def test_a_folder_that_is_called_like_squad_is_evaluated_itself(tmp_path, monkeypatch):
    (tmp_path / "squad").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run_qa.QaDataArguments(dataset_name="squad").eval_dataset_name is None


# --- Marks that a tokenizer takes off its letters ---

MARKED = ["Jose\u0301", "cafe\u0301", "a\u0323\u0302", "हिं", "São", "plain"]


def tokenizer_without_marks():
    made = tiny.pair_tokenizer("wordpiece")
    made.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    return made


@pytest.mark.parametrize("strips", [True, False])
@settings(max_examples=12)
@given(st.lists(st.sampled_from(MARKED), min_size=1, max_size=6), st.data())
def test_an_answer_keeps_the_marks_of_its_last_letter(strips, words, data):
    """In decomposed text, whether the tokenizer has them or not; also at the end of a window."""
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    context, answer = " ".join(words), " ".join(words[first : last + 1])
    start = len(" ".join(words[:first])) + (first > 0)
    row = {"id": "a", "context": context, "question": "plain", "answers": {"text": [answer], "answer_start": [start]}}
    pair = tokenizer_without_marks() if strips else tiny.pair_tokenizer("wordpiece")
    sizes = {"max_length": 99, "stride": 4, "max_question_length": 8, "keep_offsets": True}
    found = encoded(Dataset.from_list([row], features=FEATURES), partial(encode_windows, tokenizer=pair, **sizes))
    begin, end = (found.rows[f"{name}_positions"][0] for name in ("start", "end"))
    assert 0 < begin <= end
    logits = np.zeros((2, 1, len(found.rows["input_ids"][0])), np.float32)
    logits[0, 0, begin] = logits[1, 0, end] = 9
    (best,) = find_answers(found, *logits, max_answer_length=99)
    assert best.text == answer
