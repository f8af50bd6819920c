"""One table with a column per language: every language is pulled to every other one."""

import json

import pytest

import run_align
import run_distances
from helpers import tiny
from helpers.outcomes import refusal
from utils.core.errors import InputError
from utils.core.records import read_record
from utils.experiments.evaluated_sets import evaluated_sets
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.corpus import LinkableCorpus, ParallelCorpus


LANGUAGES = ["en", "hi", "ru"]
DIRECTIONS = ["hi-en", "ru-en", "en-hi", "ru-hi", "en-ru", "hi-ru"]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "all.tsv"
    lines = ["n\tru\ten\thi"]
    for k in range(60):
        lines.append("\t".join([str(k), *(tiny.TEXT[n].replace("7", f"{k}") for n in (2, 0, 4))]))
    path.write_text("\n".join(lines) + "\n")
    return path


def read(table, **arguments) -> ParallelCorpus:
    data = ParallelDataArguments(languages=LANGUAGES, anchor_language="each", **arguments)
    return ParallelCorpus.read(data, tiny.tokenizer(), "avg", [str(table)], None)


def test_every_language_to_every_other(table):
    corpus = read(table)
    assert sorted(corpus.pairs) == sorted(DIRECTIONS)
    for direction, bitext in corpus.pairs.items():
        one, other = direction.split("-")
        assert bitext["source"][:] == corpus.pairs[f"{other}-{one}"]["english"][:]
        assert len(bitext) == 60


def test_no_row_is_held_out_in_one_direction_and_learned_from_in_another(table):
    corpus = read(table)
    linkable = LinkableCorpus(corpus.pairs, {}, {}, decides=corpus.decides)
    numbers = [
        {
            tuple(word for word in words if word.isdigit())
            for bitext in part.pairs.values()
            for words in bitext["english"]
        }
        for part in linkable.split(0.3)
    ]
    sizes = [{len(bitext) for bitext in part.pairs.values()} for part in linkable.split(0.3)]
    assert all(len(size) == 1 for size in sizes)
    assert 5 < sizes[1].pop() < 30
    assert numbers[0] & numbers[1] == {()}  # (the Hindi sentences have none)


@pytest.mark.parametrize(
    "wrong",
    [{"languages": ["hi"]}, {"source_column": "a"}, {"english_column": "a"}, {"romanize": ["hi"]},
     {"streaming": True, "parallel_dataset": "a"}],
)  # fmt: skip
def test_what_does_not_go_with_it_is_refused(wrong):
    with pytest.raises(InputError):
        ParallelDataArguments(**{"languages": LANGUAGES, "anchor_language": "each", **wrong})


def test_columns_have_the_codes_of_languages(table):
    table.write_text("a\tb\tc\none\tek\tодин\n")
    with pytest.raises(InputError):
        read(table)
    data = ParallelDataArguments(languages=LANGUAGES, anchor_language="each")
    with pytest.raises(InputError):
        ParallelCorpus.read(data, tiny.tokenizer(), "avg", [str(table), str(table)], None)


def test_an_adjustment(tmp_path, run, table, capsys):
    model = tiny.checkpoint(tmp_path / "encoder")
    data = ["--languages", *LANGUAGES, "--anchor_language", "each", "--parallel_file", table]
    quick = ["--use_cpu", "--disable_tqdm", "true", "--do_train", "--do_eval", "--validation_split_percentage", 30]
    sampled = ["--max_train_pairs", 20, "--language_sampling", "uniform", "--logging_steps", 2]
    adjusted = tmp_path / "adjusted"
    run(run_align.main, "--model", model, *data, "--output_dir", adjusted, *quick, *sampled)
    results = json.loads((adjusted / "all_results.json").read_text())
    assert {f"eval_{direction}_word_retrieval_accuracy" for direction in DIRECTIONS} <= set(results)
    assert {f"train_alignment_loss_{direction}" for direction in DIRECTIONS} <= set(results)
    assert set(evaluated_sets(adjusted, read_record(adjusted / "run.json", ""))) == set(DIRECTIONS)
    card = (adjusted / "README.md").read_text()
    assert "English" not in card.split("## Use")[0]
    assert "each" not in card.split("## How")[0].split("---")[1]
    distances = ["--models", str(adjusted), *map(str, data), "--output_dir", str(tmp_path / "distances")]
    assert refusal(lambda: run(run_distances.main, *distances))
