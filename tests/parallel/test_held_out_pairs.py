"""Held-out pairs are not those of the training."""

import gzip
import json

import pytest

from helpers import tiny
from utils.core.errors import InputError
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.corpus import ParallelCorpus
from utils.parallel.data_sets import check_held_out


PAIRS = [(tiny.TEXT[4].replace("7", str(k)), tiny.TEXT[0].replace("7", str(k))) for k in range(150)]


def write(folder, name, pairs):
    between, text = (" ||| " if name.endswith(".txt") else "\t"), ""
    for source, english in pairs:
        text += json.dumps({"hi": source, "en": english}) if ".json" in name else f"{source}{between}{english}"
        text += "\n"
    folder.mkdir(exist_ok=True)
    content = text.encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(folder / name)


def read(path=None, purpose="parallel", **arguments):
    data = ParallelDataArguments(languages=["hi"], **arguments)
    return ParallelCorpus.read(data, tiny.tokenizer(), "avg", path and [path], None, purpose).pairs


@pytest.mark.parametrize("name", ["train.tsv", "copy.tsv", "copy.tsv.gz", "copy.txt", "copy.jsonl"])
@pytest.mark.parametrize("splitting", ["punctuation", "space"])
def test_the_file_of_the_training_is_refused(tmp_path, name, splitting):
    train = read(write(tmp_path, "train.tsv", PAIRS))
    held_out = read(write(tmp_path, name, PAIRS), "validation", word_splitting=splitting)
    with pytest.raises(InputError, match="--validation_file"):
        check_held_out(held_out, train, "--validation_file")


@pytest.mark.parametrize("others", [PAIRS[:50], PAIRS[100:], PAIRS[:-1] + PAIRS[:1], [*PAIRS, PAIRS[0]]])
def test_other_pairs_are_not(tmp_path, others):
    train = read(write(tmp_path, "train.tsv", PAIRS))
    check_held_out(read(write(tmp_path, "other.tsv", others), "validation"), train, "--validation_file")


@pytest.mark.parametrize("n_shared", [0, 1, 2, 50, 149])
def test_a_warning_counts_those_that_are_also_trained_on(tmp_path, caplog, n_shared):
    new = [(f"{source} neu", f"{english} new") for source, english in PAIRS]
    held_out = read(write(tmp_path, "held.tsv", new[n_shared:] + PAIRS[:n_shared]), "validation")
    caplog.clear()
    check_held_out(held_out, read(write(tmp_path, "train.tsv", PAIRS)), "--validation_file")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == (n_shared >= 0.01 * len(PAIRS))
    assert all({str(n_shared), "150", "hi"} <= set(warning.split()) for warning in warnings)


@pytest.mark.parametrize("same", [True, False])
def test_of_a_stream_the_beginning_counts(tmp_path, same):
    write(tmp_path / "set", "train.jsonl", PAIRS)
    train = read(parallel_dataset=str(tmp_path / "set"), streaming=True)
    held_out = read(write(tmp_path, "held.tsv", PAIRS if same else PAIRS[::-1]), "validation")
    if same:
        with pytest.raises(InputError, match="--validation_file"):
            check_held_out(held_out, train, "--validation_file")
    else:
        check_held_out(held_out, train, "--validation_file")
