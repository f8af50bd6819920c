"""A task's examples: from files and data sets, with names for class numbers, or one sentence about what is wrong."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

import run_ner
import run_nli
import utils.core.cache
from utils.core.arguments import check_ranges
from utils.core.errors import InputError
from utils.tasks.data_arguments import TaskDataArguments
from utils.tasks.examples import encoded
from utils.tasks.question_answering import read_question
from utils.tasks.reader import TaskReader
from utils.tasks.sentence_pairs import encode_sentence_pairs, name_labels
from utils.tasks.tagging import encode_tagged, tagged_features
from utils.tasks.windows import encode_windows


PAIRS = [
    {"premise": "A man sleeps.", "hypothesis": "Nobody is awake.", "label": "neutral"},
    {"premise": "Ella, dijo: «no»", "hypothesis": "Ella habló.", "label": "entailment"},
    {"premise": "नदी शांत थी।", "hypothesis": "नदी शांत नहीं थी।", "label": "contradiction"},
]
SENTENCES = [
    {"tokens": ["Anna", "lives", "in", "New", "York", "."], "ner_tags": ["B-PER", "O", "O", "B-LOC", "I-LOC", "O"]},
    {"tokens": ["नदी", "शांत", "थी", "।"], "ner_tags": ["O", "O", "O", "O"]},
]


def pairs_in(language: str, pairs=PAIRS) -> list[dict]:
    """The pairs as if in a language: no two languages may have the same examples."""
    return [{**pair, "hypothesis": f"{pair['hypothesis']} ({language})"} for pair in pairs]


def nli(**arguments) -> TaskReader:
    return TaskReader(TaskDataArguments(**arguments), run_nli.FEATURES, run_nli.read_pair)


def ner(**arguments) -> TaskReader:
    return TaskReader(
        TaskDataArguments(**arguments), tagged_features("ner_tags"), run_ner.read_sentence, run_ner.CONFIGS
    )


def write(path, rows) -> str:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        Dataset.from_list(rows).to_csv(str(path), sep="," if path.suffix == ".csv" else "\t", index=False)
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return str(path)


# --- Where it comes from ---


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.csv", "a.tsv", "a.parquet"])
def test_files(tmp_path, name):
    examples = nli(train_file=write(tmp_path / name, PAIRS)).train()
    assert examples.to_list() == [{"id": str(k), **pair} for k, pair in enumerate(PAIRS)]


def test_a_changed_file_is_read_again(tmp_path):
    for rows in (PAIRS, PAIRS[:2]):
        assert len(nli(train_file=write(tmp_path / "a.jsonl", rows)).train()) == len(rows)


def folder_of_languages(folder, by_language: dict[str, list], features: Features | None = None) -> str:
    """A local data set with a configuration per language and two splits."""
    configs = ""
    for language, rows in by_language.items():
        for split in ("train", "validation"):
            (folder / language).mkdir(parents=True, exist_ok=True)
            Dataset.from_list(rows, features=features).to_parquet(str(folder / language / f"{split}.parquet"))
        files = "".join(
            f"\n  - {{split: {split}, path: {language}/{split}.parquet}}" for split in ("train", "validation")
        )
        configs += f"- config_name: {language}\n  data_files:{files}\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    return str(folder)


def test_data_sets_with_class_labels(tmp_path):
    """The numbers of a data set on the Hub become the names that it gives them."""
    names = ["contradiction", "neutral", "entailment"]  # not the usual order
    features = Features({"premise": Value("string"), "hypothesis": Value("string"), "label": ClassLabel(names=names)})
    folder = folder_of_languages(tmp_path / "xnli", {"en": PAIRS, "hi": PAIRS[2:]}, features)
    reader = nli(dataset_name=folder)
    assert reader.train()["label"] == [pair["label"] for pair in PAIRS]
    assert reader.evaluation("validation", "hi").to_list() == [{"id": "0", **PAIRS[2]}]
    features = Features(
        {"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "B-PER", "B-LOC", "I-LOC"]))}
    )
    folder = folder_of_languages(tmp_path / "wikiann", {"PAN-X.en": SENTENCES}, features)
    assert ner(dataset_name=folder).train()["ner_tags"] == [sentence["ner_tags"] for sentence in SENTENCES]


def test_numbers_without_names_are_xnli_s():
    for number, name in enumerate(("entailment", "neutral", "contradiction")):
        assert run_nli.read_pair({**PAIRS[0], "label": number}, "Row 1")["label"] == name


def test_evaluation_may_come_from_elsewhere(tmp_path):
    train = folder_of_languages(tmp_path / "one", {"en": PAIRS})
    other = folder_of_languages(tmp_path / "two", {"x-hi": PAIRS[2:]})
    reader = nli(dataset_name=train, eval_dataset_name=other, eval_dataset_config_name="x-{language}")
    assert len(reader.train()) == 3
    assert len(reader.evaluation("validation", "hi")) == 1
    path = write(tmp_path / "dev.hi.jsonl", PAIRS[:2])
    reader = nli(dataset_name=train, eval_languages=["en", "hi"], validation_file=[f"hi={path}"])
    assert len(reader.evaluation("validation", "hi")) == 2


def test_only_so_many(tmp_path):
    path = write(tmp_path / "a.jsonl", PAIRS)
    other = write(tmp_path / "b.jsonl", PAIRS[::-1])
    reader = nli(train_file=path, validation_file=[other], test_file=[other], eval_languages=["en"],
                 max_train_samples=2, max_eval_samples=1, max_predict_samples=99)  # fmt: skip
    lengths = [len(reader.train()), *(len(reader.evaluation(kind, "en")) for kind in ("validation", "test"))]
    assert lengths == [2, 1, 3]


# --- A few examples of other languages ---


@pytest.mark.parametrize("source", ["files", "data set"])
def test_few_shot(tmp_path, source):
    """The first N of each language stand behind the training examples, with ids of their own."""
    if source == "files":
        few = {name: f"{name}={write(tmp_path / f'{name}.jsonl', pairs_in(name))}" for name in ("hi", "ru")}
        data = {"train_file": write(tmp_path / "en.jsonl", PAIRS), "few_shot_file": list(few.values())}
    else:
        data = {
            "dataset_name": folder_of_languages(
                tmp_path / "xnli", {"en": PAIRS, "hi": pairs_in("hi"), "ru": pairs_in("ru")}
            )
        }
    examples = nli(few_shot=["hi=2", "ru=1"], max_train_samples=1, **data).train()
    texts = [pair["premise"] for pair in PAIRS]
    assert examples["premise"] == [texts[0], texts[0], texts[1], texts[0]]
    assert examples["id"] == ["0", "0#2", "1", "0#3"]
    assert nli(max_train_samples=1, **data | {"few_shot_file": None}).train().to_list() == examples.to_list()[:1]


@pytest.mark.parametrize(
    "few_shot", [["hi"], ["hi=0"], ["hi=-1"], ["hi=x"], ["=3"], ["en=3"], ["hi=1", "hi=2"], ["hi=1.5"]]
)
def test_few_shot_that_means_nothing(few_shot):
    with pytest.raises(InputError, match="--few_shot"):
        TaskDataArguments(few_shot=few_shot)


@pytest.mark.parametrize("evaluated", ["validation_file", "test_file"])
def test_few_shot_beside_files_is_not_of_the_usual_data_set(tmp_path, evaluated):
    path = write(tmp_path / "a.jsonl", PAIRS)
    usual = folder_of_languages(tmp_path / "xnli", {"hi": pairs_in("hi")})
    files = {"train_file": path, evaluated: [f"en={path}"], "dataset_name": usual}
    with pytest.raises(InputError, match="--few_shot_file hi=FILE"):
        nli(few_shot=["hi=1"], **files).train()
    del files["train_file" if evaluated == "test_file" else evaluated]
    files["dataset_name"] = folder_of_languages(tmp_path / "both", {"hi": pairs_in("hi"), "en": PAIRS})
    assert len(nli(few_shot=["hi=1"], max_train_samples=2, **files).train()) == 3


def test_too_few_examples_for_few_shot(tmp_path):
    path = write(tmp_path / "a.jsonl", PAIRS)
    with pytest.raises(InputError, match="only 3 examples in hi; lower --few_shot hi=4"):
        nli(train_file=path, few_shot=["hi=4"], few_shot_file=[path]).train()
    with pytest.raises(InputError, match="--few_shot_file has no effect"):
        TaskDataArguments(few_shot_file=[path])


# --- No two languages have the same examples ---


def folder_without_languages(folder, rows: list[dict]) -> str:
    folder.mkdir()
    for split in ("train", "validation"):
        write(folder / f"{split}.jsonl", rows)
    return str(folder)


def sources(tmp_path) -> dict[str, dict]:
    """Ways to have the same examples for English and Hindi without meaning it."""
    same = [f"{name}={write(tmp_path / f'same.{name}.jsonl', PAIRS)}" for name in ("en", "hi")]
    two = folder_of_languages(tmp_path / "two", {"en": PAIRS, "hi": pairs_in("hi")})
    return {
        "one configuration": {"dataset_name": folder_without_languages(tmp_path / "plain", PAIRS)},
        "that of the training data": {"dataset_name": two, "dataset_config_name": "en"},
        "one for evaluation": {"dataset_name": two, "eval_dataset_config_name": "en"},
        "one file": {"validation_file": [f"en={tmp_path}/same.en.jsonl", f"hi={tmp_path}/same.en.jsonl"]},
        "equal files": {"validation_file": same},
        "an equal configuration": {"dataset_name": folder_of_languages(tmp_path / "copy", {"en": PAIRS, "hi": PAIRS})},
    }


SOURCES = [
    "one configuration", "that of the training data", "one for evaluation", "one file", "equal files",
    "an equal configuration",
]  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("languages", [["en", "hi"], ["hi", "en"]])
def test_two_languages_do_not_share_their_examples(tmp_path, source, languages):
    given = sources(tmp_path)
    assert list(given) == SOURCES
    with pytest.raises(InputError, match="hi"):
        nli(eval_languages=languages, **given[source]).evaluation_sets("validation")


@pytest.mark.parametrize("source", ["one configuration", "that of the training data", "an equal configuration"])
def test_few_examples_are_not_those_of_the_training_language(tmp_path, source):
    given = sources(tmp_path)[source]
    with pytest.raises(InputError, match="hi"):
        nli(few_shot=["hi=2"], **given).train()


def test_the_same_examples_of_one_language_may_be_read_twice(tmp_path):
    folder = folder_of_languages(tmp_path / "two", {"en": PAIRS, "hi": pairs_in("hi")})
    reader = nli(dataset_name=folder, eval_languages=["en", "hi"])
    assert [*reader.evaluation_sets("validation")] == ["en", "hi"]
    assert [*reader.evaluation_sets("validation")] == ["en", "hi"]


# --- In Latin letters ---


@pytest.mark.parametrize("source", ["files", "data set"])
def test_a_language_is_romanized_in_place_or_beside_the_original(tmp_path, source):
    languages = {"eval_languages": ["hi", "hi-Latn", "ru"]}
    examples = {"hi": PAIRS[2:], "ru": pairs_in("ru", PAIRS[2:])}
    if source == "files":
        files = [f"{name}={write(tmp_path / f'{name}.jsonl', of_name)}" for name, of_name in examples.items()]
        data = TaskDataArguments(validation_file=files, **languages)
    else:
        folder = folder_of_languages(tmp_path / "xnli", examples)
        data = TaskDataArguments(dataset_name=folder, **languages)
    reader = TaskReader(
        data, run_nli.FEATURES, run_nli.read_pair, romanized=["hi-Latn", "ru"], texts=["premise", "hypothesis"]
    )
    sets = reader.evaluation_sets("validation")
    latin = {"premise": "nadii shaamt thii.", "hypothesis": "nadii shaamt nahiim thii.", "label": "contradiction"}
    assert sets["hi"].to_list() == [{"id": "0", **PAIRS[2]}]
    assert sets["hi-Latn"].to_list() == [{"id": "0", **latin}]
    assert sets["ru"].to_list() == [{"id": "0", **pairs_in("ru", [latin])[0]}]


def test_training_data_is_romanized_if_its_language_is(tmp_path):
    path = write(tmp_path / "a.jsonl", SENTENCES[1:])
    for language, words in (("hi", ["nadii", "shaamt", "thii", "."]), ("ru", SENTENCES[1]["tokens"])):
        data = TaskDataArguments(train_file=path, train_language=language)
        reader = TaskReader(
            data, tagged_features("ner_tags"), run_ner.read_sentence, romanized=["hi"], texts=["tokens"]
        )
        assert reader.train().to_list() == [{"id": "0", "tokens": words, "ner_tags": ["O"] * 4}]


def test_places_in_a_text_are_not_moved(tmp_path):
    path = write(tmp_path / "a.jsonl", PAIRS)
    reader = TaskReader(TaskDataArguments(train_file=path), run_nli.FEATURES, run_nli.read_pair, romanized=["en"])
    with pytest.raises(InputError, match="--romanize en would move the answers"):
        reader.train()


# --- What can be wrong with it ---


def test_missing_languages(tmp_path):
    folder = folder_of_languages(tmp_path / "xnli", {"en": PAIRS})
    with pytest.raises(InputError, match=r"no configuration vi, only en; choose one with --eval_dataset_config_name"):
        nli(dataset_name=folder).evaluation("validation", "vi")
    path = write(tmp_path / "dev.jsonl", PAIRS)
    reader = nli(eval_languages=["en", "vi"], validation_file=[f"en={path}"])
    with pytest.raises(InputError, match="--validation_file vi=FILE is missing: there is no file for vi"):
        reader.evaluation("validation", "vi")
    with pytest.raises(InputError, match="no split test, only train, validation; choose one with --test_split"):
        nli(dataset_name=folder).evaluation("test", "en")


def test_empty_sets(tmp_path):
    path = write(tmp_path / "dev.jsonl", [])
    with pytest.raises(InputError, match=f"The file {path} has no example"):
        nli(validation_file=[path], eval_languages=["en"]).evaluation("validation", "en")
    for name, value in (("max_eval_samples", 0), ("max_seq_length", -1)):
        with pytest.raises(InputError, match=name):
            check_ranges(TaskDataArguments(**{name: value}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"label": "maybe"},
            "Line 2 of {path} has the label 'maybe', which is none of entailment, neutral, contradiction",
        ),
        ({"label": 3}, "Line 2 of {path} has the label 3"),
        ({"label": -1}, "Line 2 of {path} has the label -1"),
        ({"label": None}, "Line 2 of {path} has the label null"),
        ({"premise": None}, "Line 2 of {path} has null in column premise"),
        ({"hypothesis": ["a"]}, "Line 2 of {path} has a list in column hypothesis"),
    ],
)
def test_bad_pairs(tmp_path, change, message):
    path = write(tmp_path / "a.jsonl", [PAIRS[0], {**PAIRS[1], **change}])
    reader = nli(validation_file=[path], eval_languages=["en"])
    with pytest.raises(InputError, match=message.format(path=path)):
        reader.evaluation("validation", "en", labels=["entailment", "neutral", "contradiction"])


def test_a_label_that_training_does_not_know(tmp_path):
    folder = folder_of_languages(tmp_path / "xnli", {"en": PAIRS})
    where = rf"Row 1 of the data set {folder} \(en, validation\)"
    with pytest.raises(InputError, match=f"{where} has the label 'neutral', which is none of yes, no"):
        nli(dataset_name=folder).evaluation("validation", "en", labels=["yes", "no"])


def test_data_of_another_task(tmp_path):
    path = write(tmp_path / "a.jsonl", SENTENCES)
    with pytest.raises(InputError, match="has no column premise, only tokens, ner_tags"):
        nli(train_file=path).train()


def test_a_missing_column(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"premise": "a", "label": "neutral"}])
    with pytest.raises(InputError, match="has no column hypothesis, only premise, label"):
        nli(train_file=path).train()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ner_tags": ["O"] * 5}, "Line 2 of {path} has 6 tokens and 5 tags"),
        (
            {"ner_tags": ["PER", *"OOOOO"]},
            r"Line 2 of {path} has the tag 'PER'; tags are B-TYPE, I-TYPE and O \(BIO\)",
        ),
        ({"ner_tags": ["S-PER", *"OOOOO"]}, "Line 2 of {path} has the tag 'S-PER'"),
        ({"ner_tags": ["B-EVENT", *"OOOOO"]}, "Line 2 of {path} has the tag 'B-EVENT', which is none of O, B-LOC"),
        ({"ner_tags": [1, 0, 0, 0, 0, 0]}, "Line 2 of {path} has 1 in column ner_tags"),
        ({"tokens": "Anna lives"}, "Line 2 of {path} has 'Anna lives' in column tokens"),
    ],
)
def test_bad_sentences(tmp_path, change, message):
    path = write(tmp_path / "a.jsonl", [SENTENCES[0], {**SENTENCES[0], **change}])
    reader = ner(validation_file=[path], eval_languages=["en"])
    with pytest.raises(InputError, match=message.format(path=path)):
        reader.evaluation("validation", "en", labels=["O", "B-LOC", "I-LOC", "B-PER", "I-PER"])


@pytest.mark.parametrize("column", ["id", "premise", "hypothesis"])
@pytest.mark.parametrize("half", ["\ud83d", "\udc00 x"])
def test_half_a_surrogate_pair_is_no_text(tmp_path, column, half):
    path = tmp_path / "a.jsonl"
    rows = [{"id": "1", **PAIRS[0]}, {"id": "2", **PAIRS[1], column: half}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=f"Line 2 of {path}"):
        nli(train_file=str(path)).train()
    sentence = {**SENTENCES[0], "tokens": [half, *"abcde"]}
    path.write_text(json.dumps(SENTENCES[0]) + "\n" + json.dumps(sentence) + "\n")
    with pytest.raises(InputError, match=f"Line 2 of {path}"):
        ner(train_file=str(path)).train()


@pytest.mark.parametrize(
    ("ids", "unique"),
    [
        (["a", "a", "a"], ["a", "a#2", "a#3"]),
        (["a", "a#2", "a"], ["a", "a#2", "a#3"]),
        (["a", "a", "a#2"], ["a", "a#2", "a#2#2"]),
        ([1, "1", None], ["1", "1#2", "2"]),
        (["a", "b", "c"], ["a", "b", "c"]),
    ],
)
def test_ids_that_repeat(tmp_path, ids, unique):
    """Each example has an id of its own, by which its prediction is found."""
    path = write(tmp_path / "a.jsonl", [{"id": identity, **pair} for identity, pair in zip(ids, PAIRS)])
    trained, measured = nli(train_file=path), nli(validation_file=[path], eval_languages=["en"])
    for examples in (trained.train(), measured.evaluation("validation", "en")):
        assert examples["id"] == unique
        assert examples["premise"] == [pair["premise"] for pair in PAIRS]


# --- Labels and rows ---


def test_names_of_labels():
    assert name_labels(Dataset.from_list(PAIRS[:1]), run_nli.LABELS) == ["entailment", "neutral", "contradiction"]
    assert name_labels(Dataset.from_dict({"label": ["yes", "no", "yes"]}), run_nli.LABELS) == ["no", "yes"]
    assert run_ner.name_labels(Dataset.from_list(SENTENCES)) == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def test_rows_know_their_example_in_any_order():
    examples = Dataset.from_dict({"text": ["a", "aaa", "aa"]})
    encode = lambda batch, positions: {  # noqa: E731
        "input_ids": [[1] * len(text) for text in batch["text"] for _ in range(2)],
        "example": [position for position in positions for _ in range(2)],
    }
    data = encoded(examples, encode)
    assert data.rows["length"] == [1, 1, 3, 3, 2, 2]
    ordered = data.longest_first()
    assert ordered.rows["length"] == [3, 3, 2, 2, 1, 1]
    assert ordered.rows["example"] == [1, 1, 2, 2, 0, 0]
    assert np.array_equal(ordered.examples["text"], examples["text"])


@pytest.mark.parametrize(
    "function",
    [run_nli.read_pair, run_ner.read_sentence, read_question, encode_sentence_pairs, encode_tagged, encode_windows],
)
def test_rows_are_cached_whatever_the_card_says(monkeypatch, function):
    """The key covers the modules that make rows, but not those that train and publish a model."""
    covered = set()
    monkeypatch.setattr(utils.core.cache.inspect, "getsource", lambda module: covered.add(module.__name__) or "")
    utils.core.cache.cache_key(function)
    assert "utils.tasks.examples" in covered
    assert not {name for name in covered if name.startswith(("utils.training", "utils.experiments", "run_"))}
