"""English in disguise: the language, the cells, what is kept of them; and that adjustment recovers what it should."""

import json
from itertools import product

import numpy as np
import pytest
import torch
from datasets import Dataset

from benchmarks import controlled_language
from benchmarks.controlled_language import Cell, Results, recovered
from benchmarks.disguise import Text, add_disguised_rows, in_disguise, linked_pair, new_order, reordered
from helpers import tiny
from utils.models.encoders import load_encoder


@pytest.fixture
def random():
    return np.random.default_rng(0)


# --- The language ---


@pytest.mark.parametrize("disturbance", [0, 0.3, 1])
def test_rows_are_as_similar_as_the_disturbance_says(disturbance):
    """Around their mean, the cosine of a row and its copy is the square root of what is left of it."""
    encoder = tiny.model("Bert", head="")
    before = encoder.get_input_embeddings().weight.detach().clone()
    n_rows, special = len(before), [0, 3]
    add_disguised_rows(encoder, special, disturbance, seed=1)
    table = encoder.get_input_embeddings().weight.detach()
    torch.testing.assert_close(table[:n_rows], before, rtol=0, atol=0)
    assert encoder.config.vocab_size == len(table) == 2 * n_rows
    ordinary = [k for k in range(n_rows) if k not in special]
    own, copies = table[ordinary], table[[n_rows + k for k in ordinary]]
    center = own.mean(dim=0)
    cosine = torch.cosine_similarity(own - center, copies - center, dim=1).mean()
    assert float(cosine) == pytest.approx((1 - disturbance) ** 0.5, abs=0.1)
    assert float((copies - center).norm() / (own - center).norm()) == pytest.approx(1, abs=0.1)


def test_only_ordinary_tokens_are_shifted():
    rows = Dataset.from_dict({"input_ids": [[0, 5, 6, 2], [0, 2]], "other": [1, 2]})
    assert in_disguise(rows, "input_ids", special=[0, 2], n_rows=100).to_list() == [
        {"input_ids": [0, 105, 106, 2], "other": 1},
        {"input_ids": [0, 2], "other": 2},
    ]


@pytest.mark.parametrize(("n", "window"), product([0, 1, 2, 30], [0, 3, -1]))
def test_orders(n, window, random):
    order = new_order(n, window, random)
    assert sorted(order) == list(range(n))
    moved = max((abs(place - thing) for place, thing in enumerate(order)), default=0)
    assert moved <= (window if window >= 0 else n)
    assert window or moved == 0


@pytest.mark.parametrize(("window", "wrong"), product([0, 3, -1], [0, 0.5, 1]))
def test_links_lead_to_the_same_word_except_the_wrong_share(window, wrong, random):
    words = [f"w{k}" for k in range(20)]
    pair = linked_pair(words, window, wrong, random)
    assert (sorted(pair["source"]), pair["english"]) == (sorted(words), words)
    false = [pair["source"][i] != words[j] for i, j in pair["links"]]
    assert sum(false) == 20 * wrong
    assert [i for i, _ in pair["links"]] == sorted(j for _, j in pair["links"]) == list(range(20))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.1, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("longest", [3, 6, 30])
def test_the_share_of_wrong_links_is_met_over_a_corpus(share, longest, random):
    """However short its sentences are."""
    wrong = n = 0
    for length in random.integers(2, longest + 1, 3000):
        links = linked_pair([f"w{k}" for k in range(length)], 0, share, random)["links"]
        wrong += sum(i != j for i, j in links)
        n += length
    assert wrong / n == pytest.approx(share, abs=0.02)
    assert linked_pair(["w"], 0, share, random)["links"] == [[0, 0]]


@pytest.mark.parametrize("window", [0, 3, -1])
def test_entities_move_as_a_whole(window, random):
    row = {"tokens": list("abcdefgh"), "ner_tags": ["B-PER", "I-PER", "O", "B-LOC", "B-LOC", "I-LOC", "I-LOC", "O"]}
    moved = reordered(row, "ner_tags", window, random)
    assert sorted(zip(*moved.values())) == sorted(zip(row["tokens"], row["ner_tags"]))
    text = "".join(moved["tokens"])
    assert "ab" in text
    assert "efg" in text


# --- Cells and results ---


def cells(run, monkeypatch, *words):
    """The cells that a command line asks for."""
    asked = []

    def keep(self, cell, text):
        asked.append(cell)
        return {"words": 0.5, "english": 0.9, "disguised": 0.4 + 0.1 * (cell.pairs > 0) + 0.1 * cell.disturbance}

    monkeypatch.setattr(controlled_language.Laboratory, "__init__", lambda self, *_: None)
    monkeypatch.setattr(controlled_language.Laboratory, "run", keep)
    monkeypatch.setattr(controlled_language, "sample_model", lambda: "")
    run(controlled_language.main, *words)
    return asked


def test_one_setting_at_a_time_or_all_combinations(run, monkeypatch, tmp_path, capsys):
    words = (
        "--disturbance",
        0.5,
        1,
        "--alignment_objective",
        "mse",
        "contrastive",
        "--results",
        tmp_path / "results.jsonl",
    )
    words += ("--include_special_tokens", "false", "--alignment_layer", "4,-1", "--seed", 1, 2)
    asked = cells(run, monkeypatch, *words)
    adjusted = [(cell.disturbance, cell.alignment_objective) for cell in asked if cell.pairs and cell.seed == 2]
    assert adjusted == [(0.5, "mse"), (0.5, "contrastive"), (1, "mse")]
    assert {cell.include_special_tokens for cell in asked if cell.pairs} == {False}
    assert {tuple(cell.alignment_layer) for cell in asked if cell.pairs} == {(4, -1)}
    assert [(cell.disturbance, cell.seed) for cell in asked if not cell.pairs] == [(0.5, 1), (0.5, 2), (1, 1), (1, 2)]
    table = capsys.readouterr().out
    assert "| disturbance 1.0 " in table
    # The others of the grid are run, nothing is run again; then nothing at all, with the same table.
    asked = cells(run, monkeypatch, *words, "--grid")
    assert [(cell.disturbance, cell.alignment_objective) for cell in asked] == [(1, "contrastive")] * 2
    capsys.readouterr()
    assert cells(run, monkeypatch, *words) == []
    assert capsys.readouterr().out == table


def test_a_run_that_is_killed_goes_on_where_it_was(run, monkeypatch, tmp_path, capsys):
    """Whatever number of cells was finished: the same table, and no cell twice."""
    words = ("--disturbance", 0.5, 1, "--seed", 1, 2, "--results")
    whole = cells(run, monkeypatch, *words, tmp_path / "whole.jsonl")
    table = capsys.readouterr().out
    lines = (tmp_path / "whole.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    for n_done in range(len(lines)):
        part = tmp_path / f"{n_done}.jsonl"
        part.write_text("".join(lines[:n_done]), encoding="utf-8")
        assert cells(run, monkeypatch, *words, part) == whole[n_done:]
        assert capsys.readouterr().out == table


def test_results_of_other_data_or_settings_are_not_taken(tmp_path):
    results = Results(tmp_path / "results.jsonl")
    results.add(cell := Cell(disturbance=0.5), "data", {"words": 1, "english": 1, "disguised": 1}, 1.0)
    results = Results(tmp_path / "results.jsonl")
    assert results.find(cell, "data")["english"] == 1
    assert results.find(cell, "other data") is None
    assert results.find(Cell(disturbance=0.6), "data") is None
    line = json.loads((tmp_path / "results.jsonl").read_text(encoding="utf-8"))
    del line["settings"]["temperature"]  # written before there was such a setting
    results.lines = [line]
    assert results.find(cell, "data") == line


def test_what_is_recovered():
    original, adjusted = {"english": 0.9, "disguised": 0.5}, {"english": 0.1, "disguised": 0.8}
    assert recovered([(original, adjusted)]) == pytest.approx(0.75)
    assert recovered([(original, original), (original, adjusted)]) == pytest.approx(0.375)
    assert recovered([({"english": 0.5, "disguised": 0.5}, adjusted)]) is None


def test_all_cells_are_measured_on_the_same_held_out_sentences(monkeypatch, tmp_path):
    """Also shuffled ones, whatever was drawn for the training; another seed shuffles them in another way."""
    words = [text.split() for text in tiny.TEXT]
    rows = [{"tokens": of, "ner_tags": ["O"] * len(of)} for of in words]
    text = Text(sentences=words, held_out=words, train=rows, test=rows[:2])
    measured = []

    class Trainer:
        def __init__(self, *, eval_dataset, **_):
            measured.append(eval_dataset["source_input_ids"][:])

        def train(self): ...

        def evaluate(self):
            return {"eval_word_retrieval_accuracy": 0.5}

    monkeypatch.setattr(controlled_language, "AlignmentTrainer", Trainer)
    laboratory = controlled_language.Laboratory(tiny.checkpoint(tmp_path / "model"), use_cpu=True)
    for seed in (1, 2):
        for drawn in ({"pairs": 0}, {"pairs": 3}, {"pairs": 4, "wrong_links": 0.5}):
            cell = Cell(word_order=-1, seed=seed, **drawn)
            laboratory._adjust(load_encoder(laboratory.model), cell, text, str(tmp_path))
    assert all(one == measured[0] for one in measured[:3])
    assert all(one == measured[3] for one in measured[3:])
    assert measured[0] != measured[3]


# --- What it shows ---


@pytest.mark.slow
@pytest.mark.xdist_group("sample model")
def test_right_links_recover_the_gap_in_ner_and_wrong_ones_do_not(run, tmp_path):
    """At least half of it, where every token occurs in a pair; next to nothing where links lead to other words."""
    path = tmp_path / "results.jsonl"
    run(controlled_language.main, "--epochs", 6, "--wrong_links", 0, 1, "--results", path, "--use_cpu")
    original, right, wrong = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert original["english"] > original["disguised"] + 0.3
    assert right["english"] > original["english"] - 0.15
    assert recovered([(original, right)]) > 0.5 > 0.2 > recovered([(original, wrong)])
