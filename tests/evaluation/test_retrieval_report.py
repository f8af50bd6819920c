"""The report of sentence retrieval."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.evaluation.neighbors import Retrieval
from utils.evaluation.report import retrieval_sections
from utils.evaluation.sentence_pairs import SentencePairs


N = 4
PAIRS = SentencePairs("hi", [f"s{k}" for k in range(N)], [f"e{k}" for k in range(N)], "some data")
NEAREST = st.lists(st.integers(0, N - 1), min_size=N, max_size=N)


def retrieval(nearest) -> Retrieval:
    gold, found = torch.arange(N), torch.tensor(nearest)
    return Retrieval(found, torch.where(found == gold, 1, 2), torch.zeros(N), gold)


@given(NEAREST, NEAREST)
def test_what_only_one_of_two_models_finds(old, new):
    found = {
        name: {"cosine": {way: {k: retrieval(nearest) for k in (1, 2)} for way in PAIRS.directions}}
        for name, nearest in (("base", old), ("adjusted", new))
    }
    first, by_layer, changes = retrieval_sections(found, {"base": 1, "adjusted": 2}, [PAIRS])
    accuracies = {(row[0], row[1]): (row[2], row[3]) for row in first.tables[0].content.rows}
    for name, layer, nearest in (("base", 1, old), ("adjusted", 2, new)):
        value = f"{100 * sum(k == one for k, one in enumerate(nearest)) / N:.1f}"
        assert accuracies[name, "hi-en"] == accuracies[name, "en-hi"] == (layer, value)
        tables = [table for table in by_layer.tables if "MEXA" not in table.caption]
        assert len(tables) == 2
        for table in tables:
            column = list(table.content.columns).index(name)
            assert [row[column] for row in table.content.rows] == [value] * 2
    both = [(k == one, k == other) for k, (one, other) in enumerate(zip(old, new))]
    counts = [both.count(case) for case in ((True, True), (False, True), (True, False), (False, False))]
    assert [row[1:] for row in changes.tables[0].content.rows] == [[str(N), *map(str, counts)]] * 2
    for direction, kind, query, right, wrong in [row for table in changes.tables[1:] for row in table.content.rows]:
        k, (here, there) = int(query[1]), ("s", "e") if direction == "hi-en" else ("e", "s")
        assert (query, right) == (f"{here}{k}", f"{there}{k}")
        assert wrong == f"{there}{(old if kind == 'found now' else new)[k]}"
        assert both[k] == ((False, True) if kind == "found now" else (True, False))


@pytest.mark.parametrize("layers", [[3], [0, 3]])
def test_one_model_is_compared_with_nothing(layers):
    found = {"m": {"cosine": {way: {k: retrieval([0, 1, 2, 0]) for k in layers} for way in PAIRS.directions}}}
    sections = retrieval_sections(found, {"m": 3}, [PAIRS])
    assert len(sections) == len(layers)  # (by layer, if there are several)
