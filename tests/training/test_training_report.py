"""The report of a training: what was logged is in its tables and its charts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.training.report import losses, settings, thinned, tracked_alignment
from utils.training.word_report import _by_layer, _during_training, _word_retrieval, changed_pairs


NUMBERS = st.floats(0.001, 1000)


def shown(sections) -> set[str]:
    """What is in the cells of the tables of sections."""
    return {
        str(cell) for section in sections for table in section.tables for row in table.content.rows for cell in row
    }


@given(
    st.dictionaries(st.integers(0, 10**6), st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=2, max_size=20),
    st.booleans(),
)
def test_every_loss_is_shown_at_its_step(values, evaluated):
    names = ("loss", "alignment_loss_hi", "eval_hi_loss" if evaluated else "regularization_loss")
    history = [{**dict(zip(names, losses_at)), "step": step, "epoch": 0.5} for step, losses_at in values.items()]
    (section,) = losses([*history, {"train_loss": 7.25, "step": 10**6}])
    assert shown([section]) == {f"{one:.4g}" for row in values.values() for one in row} | {f"{s:g}" for s in values}
    assert len(section.charts) == len(section.tables) == (3 if evaluated else 2)
    for table in section.tables:
        for row in table.content.rows:
            step = next(step for step in values if f"{step:g}" == row[0])
            for name, cell in zip(table.content.columns[1:], row[1:]):
                names_here = {one.removeprefix("eval_").replace("_", " "): one for one in names}
                assert cell == f"{values[step][names.index(names_here[name])]:.4g}"


def test_nothing_is_shown_of_one_step_or_of_what_is_no_number():
    assert losses([{"loss": 1.0, "step": 1}, {"train_loss": 1.0, "step": 1}]) == []
    assert losses([{"loss": None, "step": 1}, {"loss": None, "step": 2}]) == []
    assert losses([]) == tracked_alignment([]) == []
    (section,) = losses([{"loss": math.nan, "step": 1}, {"loss": 0.0, "step": 2}, {"loss": 2.0, "step": 3}])
    section.charts[0].draw()  # (a logarithmic axis has no place for 0)
    assert {"nan", "0", "2"} <= shown([section])


@given(st.integers(2, 3000))
def test_long_lines_are_thinned_evenly(n):
    kept = list(thinned({k: float(k) for k in range(n)}))
    assert (kept[0], kept[-1], len(kept)) == (0, n - 1, min(n, 200))
    steps = {after - before for before, after in zip(kept, kept[1:])}
    assert max(steps) - min(steps) <= 1


def test_tracked_alignment():
    history = [
        {"alignment_hi_share_nearer": 0.5, "alignment_hi_median_related": 0.25, "alignment_loss": 3.0, "step": step}
        for step in (0, 10)
    ]
    (section,) = tracked_alignment(history)
    assert [chart.title for chart in section.charts] == ["Share of links", "Cosine distance (median)"]
    assert shown([section]) == {"0", "10", "0.5", "0.25"}


def test_settings_have_every_result():
    record = {"hyperparameters": {"learning_rate": 5e-5, "layers": [1, -1], "no": None}, "versions": {"torch": "2"}}
    assert {"5e-05", "1 -1", "2", "0.125", "eval_x"} <= shown(settings(record, {"eval_x": 0.125}))


# --- Word retrieval ---

AFTER = {
    "eval_hi-Latn-en_word_retrieval_accuracy": 0.75, "eval_hi-Latn-en_layer1_word_retrieval_accuracy": 0.25,
    "eval_en-hi-Latn_word_retrieval_accuracy": 0.5, "eval_word_retrieval_accuracy": 0.9, "eval_loss": 1.0, "step": 9,
}  # fmt: skip
PREDICTIONS = {
    "hi-Latn-en": [{"gold": 4, "prediction": 4}, {"gold": 4, "prediction": 2}],
    "en-hi-Latn": [{"gold": 4, "prediction": 2}, {"gold": 4, "prediction": 2}],
}


def test_word_retrieval_by_direction_and_layer_before_and_after():
    after = _by_layer(AFTER, 2)
    assert after == {"hi-Latn-en": {1: 0.25, 2: 0.75}, "en-hi-Latn": {2: 0.5}}
    section = _word_retrieval(after, {"hi-Latn-en": {1: 0.5, 2: 0.5}, "en-hi-Latn": {2: 0.5}}, PREDICTIONS, 2)
    rows = [row[:4] + row[5:] for row in section.tables[0].content.rows]
    assert rows == [
        ["hi-Latn-en", 1, "50.0", "25.0", "−25.0"],
        ["hi-Latn-en", 2, "50.0", "75.0", "+25.0"],
        ["en-hi-Latn", 2, "50.0", "50.0", "0.0"],
    ]
    low, high = map(float, section.tables[0].content.rows[1][4].split(" to "))
    assert low < 75 < high
    assert [chart.title for chart in section.charts] == ["Layer 2", "hi-Latn-en"]
    for chart in section.charts:
        chart.draw()
    assert "75.0" in section.charts[0].alt
    alone = _word_retrieval(after, {}, PREDICTIONS, 2)
    assert alone.tables[0].content.columns == ["direction", "layer", "accuracy", "95 % interval"]
    assert "--eval_on_start" in alone.notes[-1]


@pytest.mark.parametrize(("n", "sections"), [(1, 0), (2, 0), (3, 1)])
def test_word_retrieval_during_training(n, sections):
    history = [{**AFTER, "step": step} for step in range(n)]
    assert len(found := _during_training(history, 2)) == sections
    assert not found or {"75", "50"} <= shown(found)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_pairs_that_changed(counts):
    before, after = ([{"gold": 9, "prediction": one[k]} for one in counts] for k in (0, 1))
    pairs = [{"source": ["s", str(k)], "english": ["e", str(k)]} for k in range(len(counts))]
    section = changed_pairs({"hi-Latn-en": before}, {"hi-Latn-en": after}, {"hi": [], "hi-Latn": pairs})
    change = [new - old for old, new in counts]
    n = [sum(one > 0 for one in change), sum(one < 0 for one in change), change.count(0)]
    assert section.tables[0].content.rows == [["hi-Latn-en", *map(str, [len(counts), *n])]]
    rows = [row for table in section.tables[1:] for row in table.content.rows]
    for _, text, gold, old, new in rows:
        k = int(text.split()[1])
        assert (text, gold, (old, new)) == (f"s {k}\ne {k}", 9, counts[k])
    gains = [new - old for *_, old, new in rows]
    assert (
        gains
        == sorted([one for one in change if one > 0], reverse=True)[:5] + sorted(one for one in change if one < 0)[:5]
    )
