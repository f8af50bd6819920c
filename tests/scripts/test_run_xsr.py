"""run_xsr.py as a user types it, on the tiny reference encoder."""

import gzip
import json
import re
from pathlib import Path

import pytest

import run_xsr
from helpers import tiny
from helpers.paths import PROJECT, REFERENCE
from helpers.processes import run_process
from helpers.retrieval import dataset, reference_sentences
from utils.alignment.words import split_on_punctuation
from utils.core.errors import run_script
from utils.models.tokenizers import load_tokenizer


MODEL = str(REFERENCE / "model")


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """The reference sentences, a pair of files for each language."""
    paths = {}
    for number, language in enumerate(("es", "ru", "hi", "vi")):
        for side, sentences in zip((language, "en"), reference_sentences(number)):
            path = tmp_path / f"{language}-en.{side}"
            path.write_text("".join(f"{s}\n" for s in sentences), encoding="utf-8")
            paths[f"{language}.{side}"] = str(path)
    return paths


@pytest.fixture
def xsr(run, tmp_path, files):
    """Run the script on Hindi, or on what the arguments say; later arguments win."""

    def run_it(*arguments, output="out"):
        given = [str(a) for a in arguments]
        data = ["--source_file", files["hi.hi"], "--target_file", files["hi.en"]]
        data = [] if {"--source_file", "--target_file", "--parallel_file", "--dataset_name"} & set(given) else data
        languages = [] if "--eval_languages" in given else ["--eval_languages", "hi"]
        names = [] if {"--model", "--models", "--model_name_or_path"} & set(given) else ["--model", MODEL]
        run(run_xsr.main, *names, *languages, *data, "--output_dir", tmp_path / output, *given)
        return tmp_path / output

    return run_it


@pytest.fixture
def refused(xsr, monkeypatch):
    """What the script says, in one line, when it stops at what it was given."""

    def run_it(*arguments, output="refused") -> str:
        with pytest.raises(SystemExit) as end:
            run_script(lambda: xsr(*arguments, output=output))
        assert str(end.value.code).startswith("error: ")  # a text on standard error, and status 1
        assert "\n" not in end.value.code
        return end.value.code

    return run_it


def tables(said: str) -> str:
    """What scripts print, without the last lines of each."""
    return re.sub(r"\nIn .*\n(Next:\n(  .*\n)*)?", "", said)


def read(folder: Path, name: str = "all_results.json") -> dict:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --- What it measures --------------------------------------------------------------------------------------------


def test_the_numbers_of_the_paper(xsr, files, expected, capsys):
    languages = ("es", "ru", "hi", "vi")
    source, target = ([f"{k}={files[f'{k}.{side or k}']}" for k in languages] for side in ("", "en"))
    arguments = ("--eval_languages", *languages, "--source_file", *source, "--target_file", *target, "--layers", "all")
    for distance in ("cosine", "l2"):
        out = xsr(*arguments, "--distance", distance, output=distance)
        results = read(out)
        recorded = [r for r in expected["retrieval"] if r["distance"] == distance]
        assert len(recorded) == 12
        for r in recorded:
            name = f"{r['language']}-en_layer{r['layer']}"
            assert results[f"{name}_accuracy"] == pytest.approx(r["accuracy"], rel=1e-5)
            assert results[f"{name}_mrr"] == pytest.approx(r["mrr"], rel=1e-5)
            if r["layer"] == results["predictions_layer"]:
                found = read_lines(out / "predictions" / f"{r['language']}-en.jsonl")
                assert [row["prediction"] for row in found] == r["nearest"]
        assert len([name for name in results if name.endswith("_accuracy")]) == 4 * 2 * 4
    table = tables(capsys.readouterr().out).splitlines()
    assert max(map(len, table)) <= 100
    rows = [line.split() for line in table]
    directions = [direction for k in languages for direction in (f"{k}-en", f"en-{k}")]
    assert [row[1] for row in rows if len(row) > 1 and row[1] in directions] == 2 * directions  # of both runs
    assert [row[1] for row in rows[-4:]] == [*languages]
    assert rows[-4][-2:] == [f"{100 * results[f'es_mexa_{name}']:.1f}" for name in ("mean", "max")]


def test_results_say_how_they_were_measured(xsr, files):
    out = xsr("--pooling", "cls", "--distance", "csls", "--max_samples", 7)
    results = read(out)
    assert results.items() >= {
        "model": MODEL, "pooling": "cls", "distance": "csls", "predictions_layer": 2, "hi_split": None,
        "hi_sentences": 7, "hi_dataset": f"{files['hi.hi']} {files['hi.en']}",
    }.items()  # fmt: skip
    measured = {name for name in results if "layer" in name} - {"predictions_layer"}
    names = ("accuracy", "mrr", "share_found", "query_spread")
    assert measured == {f"{d}_layer2_{name}" for d in ("hi-en", "en-hi") for name in names} | {"hi_layer2_mexa"}
    assert results["hi_mexa_mean"] == results["hi_mexa_max"] == results["hi_layer2_mexa"]
    assert not (out / "accuracy_by_layer.png").exists()
    for direction in ("hi-en", "en-hi"):
        rows = read_lines(out / "predictions" / f"{direction}.jsonl")
        assert [row["id"] for row in rows] == [row["gold"] for row in rows] == list(range(7))
        for row in rows:
            assert (row["layer"], row["pooling"], row["distance"], row["sentences"]) == (2, "cls", "csls", 7)
            assert (row["rank"] == 1) == (row["prediction"] == row["gold"])
        right = sum(row["prediction"] == row["gold"] for row in rows)
        assert results[f"{direction}_layer2_accuracy"] == pytest.approx(right / 7)
        found = {row["prediction"] for row in rows}
        assert results[f"{direction}_layer2_share_found"] == pytest.approx(len(found) / 7)
        assert results[f"{direction}_layer2_mrr"] == pytest.approx(sum(1 / row["rank"] for row in rows) / 7)
    record = read(out, "run.json")
    assert record["base_model"] == MODEL
    assert record["base_model_revision"] is None
    assert record["arguments"]["pooling"] == "cls"
    assert "token" not in record["arguments"]
    assert len(record["eval_data"]["hi"]["sha256"]) == 64


@pytest.mark.usefixtures("figures")
def test_several_distances_side_by_side(xsr, capsys, monkeypatch):
    """One run with one pass of the encoder gives what a run for each distance gives; the first has the plain names."""
    distances = ("csls", "cosine", "centered")
    alone = {distance: read(xsr("--layers", 1, 2, "--distance", distance, output=distance)) for distance in distances}
    encode, passes = run_xsr.encode_sentences, []
    monkeypatch.setattr(run_xsr, "encode_sentences", lambda *given: passes.append(given) or encode(*given))
    capsys.readouterr()
    out = xsr("--layers", 1, 2, "--distance", *distances, "csls", output="all")
    together = read(out)
    assert len(passes) == 1
    assert together.items() >= alone["csls"].items()
    for distance in distances[1:]:
        for name in ("hi-en_layer2_accuracy", "en-hi_layer1_mrr", "hi_layer1_mexa"):
            begin, _, end = name.rpartition("_")
            assert together[f"{begin}_{distance}_{end}"] == alone[distance][name]
        assert together[f"hi_{distance}_mexa_mean"] == alone[distance]["hi_mexa_mean"]
    assert {row["distance"] for row in read_lines(out / "predictions" / "hi-en.jsonl")} == {"csls"}
    table = capsys.readouterr().out
    assert [table.count(f"  {distance}") for distance in distances] == [3, 3, 3]
    assert (out / "accuracy_by_layer.png").exists()


@pytest.mark.usefixtures("figures")
def test_several_models_in_one_table_and_figure(xsr, tmp_path, capsys):
    deeper = tiny.checkpoint(tmp_path / "deeper" / "model", num_hidden_layers=5)
    out = xsr("--models", MODEL, deeper, REFERENCE / "reference_model", "--layers", "all")
    labels = ["reference-model", "deeper-model", "reference-reference_model"]
    combined = read(out)
    for label, n_layers in zip(labels, (3, 5, 3)):
        own = read(out / label)
        assert (
            own.items()
            <= {
                name.removeprefix(f"{label}/"): v for name, v in combined.items() if name.startswith(f"{label}/")
            }.items()
        )
        assert f"hi-en_layer{n_layers}_mrr" in own
        assert f"hi-en_layer{n_layers + 1}_mrr" not in own
        assert own["predictions_layer"] == round(n_layers * 2 / 3)
        assert read(out / label, "run.json")["base_model"] == own["model"]
        assert (out / label / "predictions" / "en-hi.jsonl").exists()
    assert read(out, "run.json")["base_model"]["deeper-model"] == deeper
    assert (out / "accuracy_by_layer.png").read_bytes().startswith(b"\x89PNG")
    table = tables(capsys.readouterr().out)
    for label in labels:
        assert table.count(label) == 3  # two directions, and MEXA
    alone = xsr("--model", MODEL, "--layers", "all", output="alone")
    assert read(alone) == read(out / "reference-model")


def test_predictions_are_of_the_last_layer_where_the_usual_one_is_not_asked_for(xsr):
    out = xsr("--layers", "0", "-1")
    results = read(out)
    assert results["predictions_layer"] == 3
    assert "hi-en_layer0_accuracy" in results
    assert "hi-en_layer2_accuracy" not in results
    assert read_lines(out / "predictions" / "hi-en.jsonl")[0]["layer"] == 3


def test_files_and_data_sets_give_the_same(xsr, files, tmp_path):
    pairs = list(zip(*reference_sentences(2)))
    packed = tmp_path / "hi.gz"
    packed.write_bytes(gzip.compress(Path(files["hi.hi"]).read_bytes()))
    folder = dataset(tmp_path / "tatoeba", "tatoeba.hin", "validation", pairs)
    one = xsr("--source_file", f"hi={packed}", "--target_file", f"hi={files['hi.en']}", output="files")
    other = xsr("--dataset_name", folder, output="dataset")
    assert read(other)["hi_split"] == "validation"
    assert read(other)["hi_dataset"] == f"{folder} tatoeba.hin"
    results = [{k: v for k, v in read(out).items() if "layer" in k} for out in (one, other)]
    assert results[0] == results[1]
    records = [read(out, "run.json")["eval_data"]["hi"]["sha256"] for out in (one, other)]
    assert records[0] == records[1]


@pytest.mark.parametrize("kind", ["tsv", "jsonl", "words", "moses", "two files"])
def test_parallel_files_give_the_same(xsr, files, tmp_path, kind):
    """Whatever run_align.py reads as a parallel corpus is read as sentence pairs."""
    expected = read(xsr("--layers", "all"))
    hindi, english = reference_sentences(2)
    rows = [{"en": e, "hi": h} for h, e in zip(hindi, english)]
    written = {
        "tsv": "".join(f"{e}\t{h}\n" for h, e in [("hi", "en"), *zip(hindi, english)]),
        "jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "words": "".join(json.dumps({name: text.split(" ") for name, text in row.items()}) + "\n" for row in rows),
        "moses": "".join(f"{h} ||| {e}\n" for h, e in zip(hindi, english)),
    }
    path = tmp_path / {"words": "words.jsonl", "moses": "pairs.txt"}.get(kind, f"pairs.{kind}")
    path.write_text(written.get(kind, ""), encoding="utf-8")
    given = [files["hi.en"], files["hi.hi"]] if kind == "two files" else [path]
    found = read(xsr("--parallel_file", *given, "--layers", "all", output=f"out {kind}"))
    assert {**found, "hi_dataset": None} == {**expected, "hi_dataset": None}


@pytest.mark.parametrize("kind", ["parallel", "source"])
def test_the_languages_are_those_of_the_files(run, tmp_path, files, kind):
    given = {
        "parallel": ["--parallel_file", f"hi={files['hi.hi']},{files['hi.en']}", f"ru={files['ru.ru']},{files['ru.en']}"],
        "source": ["--source_file", f"hi={files['hi.hi']}", f"ru={files['ru.ru']}",
                   "--target_file", f"hi={files['hi.en']}", f"ru={files['ru.en']}"],
    }  # fmt: skip
    run(run_xsr.main, "--model", MODEL, *given[kind], "--output_dir", tmp_path / "out")
    assert read(tmp_path / "out", "run.json")["arguments"]["eval_languages"] == ["hi", "ru"]


def test_the_fit_of_the_vocabulary_is_recorded(xsr, files):
    """Subwords per word and unknown words of both sides, counted by hand."""
    tokenizer = load_tokenizer(MODEL)
    vocabulary = read(xsr(), "run.json")["vocabulary"]
    for language, sentences in zip(("hi", "en"), reference_sentences(2)):
        words = [word for sentence in sentences for word in split_on_punctuation(sentence)]
        ids = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
        assert vocabulary[language]["subwords_per_word"] == pytest.approx(sum(map(len, ids)) / len(words), abs=1e-3)
        unknown = sum(tokenizer.unk_token_id in row for row in ids) / len(words)
        assert vocabulary[language]["unknown_words"] == pytest.approx(unknown, abs=1e-3)


def test_embedded_data_set(xsr):
    if not (PROJECT / "data" / "xsr").exists():
        pytest.skip("there is no data/xsr")
    out = xsr("--dataset_name", PROJECT / "data" / "xsr", "--eval_languages", "es", "hi", "--max_samples", 10)
    assert read(out)["es_split"] == "test"
    assert {path.stem for path in (out / "predictions").iterdir()} == {"es-en", "en-es", "hi-en", "en-hi"}


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_settings_file(run, files, tmp_path, ending):
    settings = {
        "model_name_or_path": MODEL, "eval_languages": ["hi"], "source_file": files["hi.hi"], "bf16": True,
        "target_file": files["hi.en"], "layers": [0, 2], "output_dir": str(tmp_path / "out"),
    }  # fmt: skip
    path = tmp_path / f"settings.{ending}"
    lines = (
        json.dumps(settings) if ending == "json" else "".join(f"{k}: {json.dumps(v)}\n" for k, v in settings.items())
    )
    path.write_text(lines)
    run(run_xsr.main, path)
    assert "hi-en_layer0_accuracy" in read(tmp_path / "out")
    assert read(tmp_path / "out", "run.json")["arguments"]["bf16"] is True


def test_batch_size_changes_nothing(xsr):
    one, other = (xsr("--per_device_eval_batch_size", n, output=f"b{n}") for n in (1, 50))
    for name, value in read(one).items():
        assert read(other)[name] == (pytest.approx(value) if name.endswith("spread") else value)


def test_two_processes_give_the_results_of_one(xsr, files, tmp_path):
    alone = xsr("--per_device_eval_batch_size", 5, "--layers", "all")
    words = [PROJECT / "run_xsr.py", "--model", MODEL, "--eval_languages", "hi", "--source_file", files["hi.hi"],
             "--target_file", files["hi.en"], "--per_device_eval_batch_size", "5", "--layers", "all",
             "--output_dir", tmp_path / "two", "--use_cpu"]  # fmt: skip
    printed = run_process(words, tmp_path / "log", n_processes=2)
    assert printed.count("hi-en") == 1
    assert read(tmp_path / "two") == pytest.approx(read(alone))
    name = "predictions/en-hi.jsonl"
    assert [{**row, "score": 0} for row in read_lines(tmp_path / "two" / name)] == [
        {**row, "score": 0} for row in read_lines(alone / name)
    ]


# --- What it refuses ---------------------------------------------------------------------------------------------


def test_files_that_do_not_fit(refused, files, tmp_path):
    hindi, english = files["hi.hi"], files["hi.en"]
    other = tmp_path / "other"
    for content, message in (
        (b"one\ntwo\n", f"{hindi} has 12 lines and {other} has 2"),
        (b"", f"{other} has 0"),
        (b"one\n\xff\xfe\n", f"Line 2 of {other} is not UTF-8"),
        (b"one\n\ntwo\n", f"Line 2 of {other} has no sentence"),
    ):
        other.write_bytes(content)
        assert message in refused("--source_file", hindi, "--target_file", other)
    assert "nowhere.txt" in refused("--source_file", hindi, "--target_file", "nowhere.txt")
    assert "--target_file is missing: hi needs" in refused("--source_file", hindi)
    assert "--source_file is missing: hi needs" in refused("--target_file", english)
    assert "belongs to none of the languages hi" in refused("--source_file", f"ru={hindi}", "--target_file", english)
    assert "--source_file is missing: ru needs" in refused(
        "--eval_languages", "hi", "ru", "--source_file", f"hi={hindi}", "--target_file", f"hi={english}"
    )


def test_parallel_files_that_do_not_fit(refused, files, tmp_path):
    table = tmp_path / "pairs.tsv"
    table.write_text("hi\ten\nek\tone\ndo\ttwo\n", encoding="utf-8")
    for arguments in (
        ["--source_file", table, "--target_file", table],
        ["--source_file", table, "--target_file", files["hi.en"]],
    ):
        assert "pairs.tsv is a table" in refused(*arguments)
    assert "--parallel_file has both sides" in refused("--parallel_file", table, "--source_file", files["hi.hi"])
    assert "hi=FILE is missing" in refused("--parallel_file", f"ru={table}", "--eval_languages", "hi", "ru")
    table.write_text("hi\ten\nek\tone\n\ttwo\n", encoding="utf-8")
    assert "Pair 2 of" in refused("--parallel_file", table)
    table.write_text("", encoding="utf-8")
    assert "is empty" in refused("--parallel_file", table)


def test_sentences_that_are_their_own_translations(refused, files):
    """A file given twice would have 100 % retrieval."""
    assert "are the same" in refused("--source_file", files["hi.en"], "--target_file", files["hi.en"])


def test_two_languages_with_the_same_sentences(refused, tmp_path):
    folder = dataset(tmp_path / "set", "default")
    message = refused("--dataset_name", folder, "--eval_languages", "hi", "ru")
    assert "hi and ru have the same sentences" in message


def test_data_sets_that_do_not_fit(refused, tmp_path):
    folder = dataset(tmp_path / "set")
    assert "has no configuration tatoeba.rus or" in refused("--dataset_name", folder, "--eval_languages", "ru")
    assert "only hi" in refused("--dataset_name", folder, "--dataset_config_name", "{language}-x")
    assert "has no split dev, only test" in refused("--dataset_name", folder, "--dataset_split", "dev")
    message = refused("--dataset_name", folder, "--target_column", "x")
    assert "column x" in message
    assert "source_sentence" in message
    assert "--target_column" in message
    assert "no_such cannot be loaded" in refused("--dataset_name", "no_such")


def test_output_folder_that_is_not_empty(xsr, refused):
    out = xsr(output="full")
    before = (out / "all_results.json").read_text()
    assert "is not empty" in refused(output="full")
    assert (out / "all_results.json").read_text() == before
    xsr("--overwrite_output_dir", "--distance", "l2", output="full")
    assert read(out)["distance"] == "l2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "no-such/model"), "There is no model no-such/model"),
        (("--models", MODEL, "no-such/model"), "There is no model no-such/model"),
        (("--models", MODEL, MODEL), "named twice"),
        (("--layers", "4"), "--layers 4"),
        (("--layers", "some"), "choose from 0 (the embeddings) to 3"),
        (("--max_seq_length", "129"), "choose one from 3 to 128"),
        (("--max_samples", "0"), "--max_samples 0"),
    ],
)
def test_arguments_that_do_not_fit(refused, tmp_path, arguments, message):
    assert message in refused(*arguments)
    assert not (tmp_path / "refused").exists()


def test_data_is_checked_before_a_model_is_loaded(refused, monkeypatch):
    monkeypatch.setattr(run_xsr, "load_encoder", lambda *_, **__: pytest.fail("loaded"))
    assert " file nowhere" in refused("--source_file", "nowhere", "--target_file", "nowhere")
    assert "There is no model" in refused("--models", MODEL, "nowhere")
    assert "--layers 77" in refused("--layers", "77")


def test_help_teaches(run, capsys):
    with pytest.raises(SystemExit):
        run(run_xsr.main, "--help")
    text = capsys.readouterr().out
    assert "python run_xsr.py --model" in text
    for name in ("--models", "--layers", "--eval_languages", "google/xtreme", "csls"):
        assert name in text


def test_sentences_are_romanized_in_place_or_beside_the_original(xsr, files):
    data = ("--source_file", f"hi={files['hi.hi']}", "--target_file", f"hi={files['hi.en']}")
    both = xsr("--eval_languages", "hi", "hi-Latn", "--romanize", "hi-Latn", *data, output="both")
    in_place = xsr("--eval_languages", "hi", "--romanize", "hi", *data, output="in place")
    facts, other = (json.loads((folder / "run.json").read_text())["eval_data"] for folder in (both, in_place))
    assert facts["hi-Latn"]["sha256"] == other["hi"]["sha256"] != facts["hi"]["sha256"]
    found = json.loads((both / "all_results.json").read_text())
    assert {"hi-Latn-en", "en-hi-Latn", "hi-en", "en-hi"} <= {name.partition("_layer")[0] for name in found}


def test_romanizing_a_language_that_is_not_measured_is_refused(refused):
    assert "--romanize ru is not among the languages" in refused("--romanize", "ru")
