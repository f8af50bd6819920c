"""The report of a task: scores with intervals, the transfer gap ranked, and what another run predicts differently."""

import json

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from helpers.outcomes import refusal
from helpers.runs import NER, NLI, write_nli, write_run
from utils.core.columns import content_fingerprint
from utils.tasks.registry import TASKS
from utils.tasks.report import changed_examples, read_baseline, scores_by_language
from utils.tasks.summary import summarize


def answers(right):
    return [
        {"id": f"x{k}", "gold": "neutral", "prediction": "neutral" if one else "entailment"}
        for k, one in enumerate(right)
    ]


RIGHT = st.lists(st.booleans(), min_size=1, max_size=30)


@given(st.dictionaries(st.sampled_from(["en", "hi", "ru", "es"]), RIGHT, min_size=1))
def test_every_score_and_gap_is_shown_and_gaps_are_ranked(right):
    task, predictions = TASKS["nli"], {name: answers(of_set) for name, of_set in right.items()}
    accuracy = {name: sum(of_set) / len(of_set) for name, of_set in right.items()}
    measured = {f"eval_{name}_accuracy": value for name, value in accuracy.items()}
    results = summarize(measured, "eval", list(right), [name for name in right if name != "en"], task)
    (section,) = scores_by_language(task, results, "eval", predictions)
    content = section.tables[0].content
    rows = {row[0]: dict(zip(content.columns, row)) for row in content.rows}
    for name, value in accuracy.items():
        assert rows[name]["accuracy"] == f"{100 * value:.1f}"
        low, high = map(float, rows[name]["95 % interval of accuracy"].split(" to "))
        assert low - 0.05 <= 100 * value <= high + 0.05
        assert rows[name]["examples"] == str(len(right[name]))
        if "en" in right and name != "en":
            assert rows[name]["gap"] == f"{100 * (accuracy['en'] - value):.1f}".replace("-0.0", "0.0").replace(
                "-", "−"
            )
    names = [row[0] for row in content.rows if row[0] in right]
    assert names == sorted(right, key=lambda name: (name != "en", -accuracy[name], name))
    assert (len(section.charts) == 2) == ("en" in right and len(right) > 1)
    if len(section.charts) == 2:
        places = {name: section.charts[1].alt.index(f" {name} ") for name in right if name != "en"}
        assert sorted(places, key=places.get) == sorted(places, key=lambda name: (accuracy[name], name))
    if len(right) > ("en" in right):
        zero_shot = [value for name, value in accuracy.items() if name != "en"]
        assert rows["zero-shot mean"]["accuracy"] == f"{100 * sum(zero_shot) / len(zero_shot):.1f}"


# --- What another run predicts differently ---

EXAMPLES = {
    "hi": Dataset.from_dict(
        {"id": ["x0", "x1", "x2"], "premise": ["<script>", "b", "c"], "hypothesis": ["d", "नदी", "f"],
         "label": ["neutral"] * 3}
    )
}  # fmt: skip


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=3, max_size=3))
def test_examples_that_changed(right):
    before, now = ({"hi": answers([one[k] for one in right])} for k in (0, 1))
    (section,) = changed_examples(TASKS["nli"], EXAMPLES, now, before, "runs/base")
    better, worse = right.count((False, True)), right.count((True, False))
    assert section.tables[0].content.rows == [["hi", "3", *map(str, (better + worse, better, worse))]]
    rows = section.tables[1].content.rows if better + worse else []
    assert len(section.tables) == 1 + bool(rows)
    assert [row[1] for row in rows] == ["better"] * better + ["worse"] * worse
    texts = ["<script>\nd", "b\nनदी", "c\nf"]
    for _, kind, text, gold, old, new in rows:
        here, there = ("entailment", "neutral") if kind == "better" else ("neutral", "entailment")
        assert (gold, old, new) == ("neutral", here, there)
        assert right[texts.index(text)] == ((False, True) if kind == "better" else (True, False))


def test_of_tags_those_that_differ():
    examples = {"hi": Dataset.from_dict({"id": ["0", "1"], "tokens": [["Anna", "runs"], ["no", "Oslo"]]})}
    gold = [["B-PER", "O"], ["O", "B-LOC"]]
    before = {"hi": [{"gold": gold[0], "prediction": ["O", "O"]}, {"gold": gold[1], "prediction": ["O", "O"]}]}
    now = {"hi": [{"gold": gold[0], "prediction": ["B-PER", "O"]}, {"gold": gold[1], "prediction": ["O", "O"]}]}
    (section,) = changed_examples(TASKS["ner"], examples, now, before, "base")
    assert section.tables[0].content.rows == [["hi", "2", "1", "1", "0"]]
    assert section.tables[1].content.rows == [["hi", "better", "Anna runs", "Anna: B-PER", "Anna: O", "Anna: B-PER"]]


def test_of_questions_the_answers():
    examples = {"hi": Dataset.from_dict({"id": ["0"], "context": ["A long story."], "question": ["Who?"]})}
    answer = {"id": "0", "gold": ["Anna", "Anna", "she"], "exact_match": 1.0}
    before, now = (
        {"hi": [{**answer, "prediction": "", "f1": 0.0}]},
        {"hi": [{**answer, "prediction": "Anna", "f1": 1.0}]},
    )
    (section,) = changed_examples(TASKS["qa"], examples, now, before, "base")
    assert section.tables[1].content.rows == [["hi", "better", "Who?\nA long story.", "Anna / she", "", "Anna"]]


def test_without_a_baseline_nothing_is_compared():
    assert changed_examples(TASKS["nli"], EXAMPLES, {"hi": answers([1, 1, 1])}, {}, "None") == []


@pytest.fixture
def baseline(tmp_path):
    return write_nli(tmp_path / "base", [1, 0, 1], sha256=content_fingerprint(EXAMPLES["hi"]))


def test_the_predictions_of_the_baseline(baseline):
    found = read_baseline(str(baseline), TASKS["nli"], "eval", {**EXAMPLES, "ru": EXAMPLES["hi"]})
    assert {name: [row["prediction"] for row in rows] for name, rows in found.items()} == {
        "hi": ["neutral", "entailment", "neutral"]
    }


def remove_record(folder):
    (folder / "run.json").unlink()


def cut_predictions(folder):
    path = folder / "predictions" / "hi.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")


def spoil_predictions(folder):
    path = folder / "predictions" / "hi.jsonl"
    path.write_text(path.read_text().replace('"prediction"', '"guess"'))


def remove_predictions(folder):
    (folder / "predictions" / "hi.jsonl").unlink()


def change_examples(folder):
    record = json.loads((folder / "run.json").read_text())
    record["eval_data"]["hi"]["sha256"] = "e" * 64
    (folder / "run.json").write_text(json.dumps(record))


def measure_nothing(folder):
    write_run(folder, NLI, {}, {})


def be_of_another_task(folder):
    write_run(folder, NER, {"hi": answers([1, 1, 1])}, {})


def predict(folder):
    write_nli(folder, [1, 0, 1], prefix="predict")
    record = json.loads((folder / "run.json").read_text())
    record["predict_data"] = record.pop("eval_data")
    (folder / "run.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    "fault",
    [remove_record, cut_predictions, spoil_predictions, remove_predictions, change_examples, measure_nothing,
     be_of_another_task, predict],
)  # fmt: skip
def test_a_baseline_that_cannot_be_compared_is_refused(baseline, fault):
    fault(baseline)
    assert str(baseline) in refusal(lambda: read_baseline(str(baseline), TASKS["nli"], "eval", EXAMPLES))
