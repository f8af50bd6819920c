"""The command line: what `--help` shows, spellings, settings files, ranges."""

import importlib
import re
from dataclasses import Field, dataclass, fields

import pytest
from transformers import TrainingArguments

from helpers.paths import PROJECT
from utils.core import arguments
from utils.core.arguments import (
    arg,
    bounds_of,
    check_languages,
    check_ranges,
    check_unused,
    hyperparameters,
    is_given,
    parse_arguments,
)
from utils.core.errors import InputError
from utils.training.arguments import AlignTrainingArguments


SCRIPTS = sorted(path.stem for path in PROJECT.glob("*.py") if path.stem != "quickstart")


@dataclass
class Settings:
    """Settings of a test."""

    learning_rate: float = arg(0.5, help="The rate.", aliases=["--lr"], above=0, at_most=1, hyperparameter=True)
    word_lists: list[str] = arg(default_factory=lambda: ["a", "b"], help="The lists.")
    use_it: bool = arg(False, help="Whether to use it.")
    batch_sizes: list[int] = arg(default_factory=list, help="Sizes.", at_least=1)


@pytest.fixture
def parse(run):
    def parse_words(*words: object) -> Settings:
        def main() -> Settings:
            return parse_arguments(Settings, description="A test.")[0]

        return run(main, *words)

    return parse_words


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_each_argument_once(script, run, capsys):
    with pytest.raises(SystemExit) as ending:
        run(importlib.import_module(script).main, "--help")
    assert ending.value.code == 0
    text = capsys.readouterr().out
    lines = re.findall(r"^  (-.*?)(?:  |$)", text, re.MULTILINE)
    shown = re.findall(r"(?<!\S)(--\w[\w-]*)", " ".join(lines))
    assert len(shown) == len(set(shown)) > 5
    assert not [name for name in shown if "-" in name[2:]]


@pytest.mark.parametrize("script", SCRIPTS)
def test_arguments_of_transformers_come_last(script, run, capsys):
    with pytest.raises(SystemExit):
        run(importlib.import_module(script).main, "--help")
    first, heading, last = capsys.readouterr().out.partition("(transformers.TrainingArguments):\n")
    inherited = {item.name for item in fields(TrainingArguments) if item.init}
    assert set(re.findall(r"^  --(?:no_)?(\w+)", last, re.MULTILINE)) <= inherited
    if heading:
        assert "--output_dir" in first
        assert "--learning_rate" in first


def test_help_has_defaults_and_ranges(parse, capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "Settings of a test:" in text
    assert "--learning_rate RATE, --lr RATE The rate. (default: 0.5; more than 0; at most 1)" in text
    assert "The lists. (default: a b)" in text
    assert "Whether to use it. --" in text


@pytest.mark.parametrize(
    "words", [["--learning_rate", 0.1], ["--learning-rate", 0.1], ["--learning-rate=0.1"], ["--lr", 0.1]]
)
def test_both_spellings_are_read(parse, words):
    assert parse(*words).learning_rate == 0.1


def test_values_keep_their_hyphens(parse):
    assert parse("--word-lists", "a-b", "c--d").word_lists == ["a-b", "c--d"]


def test_a_settings_file_comes_first(parse, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("learning_rate: 0.25\nword-lists: [no, yes]\n")
    settings = parse(path, "--use_it")
    assert (settings.learning_rate, settings.word_lists, settings.use_it) == (0.25, ["no", "yes"], True)
    assert parse(path, "--learning_rate", 1).learning_rate == 1


@pytest.mark.parametrize(
    "text",
    ["learning_rate: [[1]]", "learning_rate: {a: 1}", "word_lists: [[a], {b: c}]\nlearning_rate: [0.5, 1]", "[1]", "x: {y: [1]}",
     "{[a]: b}", "1: 2", "--learning_rate: 1", "learning_rate: &a [*a]"],
)  # fmt: skip
def test_settings_of_another_form(parse, tmp_path, text):
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(InputError):
        parse(tmp_path / "settings.yaml")


@pytest.mark.parametrize(
    "names", [("model", "model_name_or_path"), ("model_name_or_path", "model"), ("num_labels", "num-labels")]
)
def test_settings_give_an_argument_once(run, tmp_path, names):
    """The last one would count, without a word."""

    @dataclass
    class Arguments:
        model_name_or_path: str = arg("a", help="", aliases=["--model"])
        num_labels: str = arg("a", help="")

    (tmp_path / "settings.yaml").write_text("".join(f"{name}: x\n" for name in names))
    with pytest.raises(InputError, match="settings file"):
        run(lambda: parse_arguments(Arguments), tmp_path / "settings.yaml")
    (tmp_path / "settings.yaml").write_text(f"{names[0]}: x\n")
    (parsed,) = run(lambda: parse_arguments(Arguments), tmp_path / "settings.yaml", f"--{names[1]}", "y")
    assert "y" in (parsed.model_name_or_path, parsed.num_labels)


def test_no_other_file_is_read(parse, tmp_path, monkeypatch):
    """`HfArgumentParser` would read a file of arguments beside the script, without a word."""
    monkeypatch.chdir(tmp_path)
    for name in ("main.args", "test_arguments.args", "core.args", "tests.core.test_arguments.args"):
        (tmp_path / name).write_text("--learning_rate 0.75")
    assert parse().learning_rate == 0.5


@pytest.mark.parametrize(
    "words",
    [["--learning_rate", 0], ["--learning_rate", 1.5], ["--learning_rate", "nan"], ["--batch_sizes", 3, 0]],
)
def test_numbers_out_of_range(parse, words):
    with pytest.raises(InputError, match=words[0]):
        parse(*words)


def test_unknown_arguments_name_the_nearest(parse):
    with pytest.raises(InputError, match="--learning_rate"):
        parse("--lerning_rate", 0.1)


def test_hyperparameters_are_what_was_declared():
    assert hyperparameters(Settings()) == ["learning_rate"]


def test_arguments_without_their_switch():
    check_unused(Settings(), "switch")
    check_unused(Settings(use_it=True), "switch", but=["use_it"])
    with pytest.raises(InputError, match="--use_it True .*--switch"):
        check_unused(Settings(use_it=True), "switch")


# --- The numbers of every script, from its dataclasses ---

# Checked against the model; or any number will do.
WITHOUT_RANGE = (
    "alignment_layer",
    "aligner_layer",
    "layer",
    "eval_layers",
    "null_score_diff_threshold",
    "min_link_score",
)


@pytest.fixture(params=SCRIPTS)
def groups(request, run, monkeypatch) -> list[type]:
    """The dataclasses of a script's arguments."""

    class SeenError(Exception):
        pass

    def seen(dataclasses, **options):
        raise SeenError(dataclasses)

    monkeypatch.setattr(arguments, "_Parser", seen)
    with pytest.raises(SeenError) as caught:
        run(importlib.import_module(request.param).main)
    return caught.value.args[0]


def instance(group: type, name: str, value: object):
    """A dataclass with a value that its own checks have not seen."""
    made = object.__new__(group)
    for item in fields(group):
        setattr(made, item.name, None)
    setattr(made, name, value)
    return made


def numbers_of(group: type) -> list[Field]:
    return [item for item in fields(group) if re.search(r"\bint\b|\bfloat\b", str(item.type))]


def test_every_number_has_a_range(groups):
    for group in groups:
        missing = {item.name for item in numbers_of(group) if not bounds_of(group, item)} - set(WITHOUT_RANGE)
        assert not missing, group


def test_every_number_is_finite_and_in_its_range(groups):
    outside = {"at_least": -1, "above": 0, "at_most": 1, "below": 0}
    for group in groups:
        for item in numbers_of(group):
            bad = [float("nan"), float("inf"), float("-inf"), 10**30, -(10**30)]
            bad += [bound + outside[name] for name, bound in bounds_of(group, item).items()]
            for value in bad:
                for given in ([value], {"a": value}) if value != value else (value, [value]):
                    with pytest.raises(InputError, match=f"--{item.name} "):
                        check_ranges(instance(group, item.name, given))


HOSTILE = (
    "../../x",
    "/etc/x",
    "..",
    "",
    "-x",
    "=1+1",
    "@x",
    "<script>",
    "a|b",
    "a b",
    "a\nb",
    "a/b",
    "x" * 300,
    "\x00",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_language_is_a_code(groups, name):
    """It names files in the output folder, rows of tables and parts of a page."""
    given = [
        (group, item.name)
        for group in groups
        for item in fields(group)
        if "language" in item.name and not item.metadata.get("choices")
    ]
    for group, argument in given:
        with pytest.raises(InputError, match=f"--{argument} "):
            check_languages(instance(group, argument, [name]))
    for name in ("hi", "zh-Hans", "pt_BR", "hi-en", "हिन्दी"[:1], "udpos.Hindi"):
        assert arguments.is_language(name)


@dataclass
class SpokenArguments:
    language: str = arguments.arg("hi", help="A language.")


@pytest.mark.parametrize("name", ["con", "AUX", "nul.x"])
def test_languages_whose_codes_are_devices_of_windows(name, monkeypatch):
    argument = instance(SpokenArguments, "language", name)
    check_languages(argument)
    monkeypatch.setattr(arguments.os, "name", "nt")
    with pytest.raises(InputError, match="Latn"):
        check_languages(argument)
    check_languages(instance(SpokenArguments, "language", "con-Latn"))


@pytest.mark.parametrize("words", [["--seed", "x"], ["--optim", "x"], ["--num_train_epochs", "nan"], ["--warmup_steps", "-inf"],
    ["--lr_scheduler_kwargs", '{"num_cycles": NaN}'], ["--learning_rate"], ["--bf16", "maybe"], ["--per_device_train_batch_size",
    10**9], ["--seed", "9" * 5000], ["--seed", "9" * 400], ["--output_dir", "\0"], ["--run_name", "\ud800"]])  # fmt: skip
def test_a_command_line_that_cannot_be_read(run, words):
    with pytest.raises(InputError) as caught:
        run(lambda: arguments.parse_arguments(AlignTrainingArguments), *words)
    assert words[0][2:] in str(caught.value)
    assert len(str(caught.value)) <= 300


# --- Outputs that are read ---


@dataclass
class Paths:
    """Paths."""

    output_dir: str = arg("out", help="Folder.")
    write_links: list[str] | None = arg(None, help="Files.")
    parallel_file: list[str] | None = arg(None, help="Files.")
    parallel_dataset: str | None = arg(None, help="Folder.")
    model_name_or_path: str | None = arg(None, help="Folder.")
    language: str | None = arg(None, help="Not a path.")


@pytest.fixture
def paths(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "data/hi.tsv",
        "a.hi",
        "a.en",
        "model/config.json",
        "out/predictions/hi.jsonl",
        "out/all_results.json",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "link.hi").symlink_to("a.hi")
    (tmp_path / "hard.en").hardlink_to("a.en")
    return lambda words: run(lambda: parse_arguments(Paths), *words.split())


@pytest.mark.parametrize(
    "words",
    ["--write_links a.hi --parallel_file a.hi", "--write_links hi=./a.hi --parallel_file a.en hi=a.hi",
     "--write_links ru=x hi=link.hi --parallel_file hi=a.hi,a.en", "--write_links hard.en --parallel_file hi=a.hi,a.en",
     "--write_links data/hi.tsv --parallel_dataset data", "--write_links hi=new ru=./new", "--output_dir data --parallel_dataset data",
     "--output_dir model --model_name_or_path ./model", "--parallel_file out/predictions/hi.jsonl",
     "--parallel_file out/all_results.json", "--output_dir x --write_links x"],
)  # fmt: skip
def test_an_output_onto_what_is_read_is_refused(paths, tmp_path, words):
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="would overwrite"):
        paths(words)
    assert {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "words",
    ["--write_links b.hi --parallel_file a.hi", "--write_links hi=x ru=y --parallel_file hi=a.hi,a.en", "--language out",
     "--output_dir . --parallel_file a.hi", "--write_links data/new --parallel_dataset data", "--model_name_or_path out/checkpoint-1",
     "--output_dir model/new --model_name_or_path model"],
)  # fmt: skip
def test_other_outputs_are_not(paths, words):
    paths(words)


def test_every_path_of_every_script_is_read_or_written(groups):
    """The names of arguments say which; a new argument for a path must have such a name."""
    for group in groups:
        for item in fields(group):
            help_text = item.metadata.get("help", "")
            if "bounds" in item.metadata and re.match(r"(Files?|Folders?)\b", help_text):
                assert re.fullmatch(f"{arguments._READ.pattern}|{arguments._WRITTEN.pattern}|cache_dir", item.name), (
                    item.name
                )


def test_what_is_given(run, tmp_path):
    @dataclass
    class Group:
        """Some arguments."""

        first: str = arg("a", help="x", aliases=["--one"])
        second: bool = arg(True, help="x")
        third_name: int = arg(3, help="x")
        fourth: list[str] = arg(default_factory=list, help="x")

    def main():
        return parse_arguments(Group)[0]

    settings = tmp_path / "settings.yaml"
    settings.write_text("third_name: 3\n")
    for words, names in (
        ((), set()),
        (("--one", "a"), {"first"}),
        (("--no_second",), {"second"}),
        (("--second=true", "--third-name", "3"), {"second", "third_name"}),
        ((settings, "--fourth", "first", "second"), {"third_name", "fourth"}),
    ):
        arguments = run(main, *words)
        assert {name for name in vars(Group()) if is_given(arguments, name)} == names
    assert not is_given(Group(), "first")
