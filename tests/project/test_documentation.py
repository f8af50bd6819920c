"""What the README, the pages of docs/ and the notebooks show can be done: commands parse, Python runs, links and files exist."""

import importlib
import re
from itertools import takewhile
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import TrainingArguments

import replicate
from helpers import tiny
from helpers.commands import blocks, commands_at_the_top, page_text, partial_commands, spans, whole_commands
from helpers.pairs import some_pairs
from helpers.paths import PROJECT
from utils.experiments.run_archives import read_runs_and_archives


PAGES = [
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(path for path in (PROJECT / "docs").glob("*.md") if path.name != "example_card.md"),
    *sorted(PROJECT.glob("notebooks/*.ipynb")),
]
# Files that begin with a text that shows commands: scripts, and settings for them.
FILES_WITH_A_TEXT = sorted(
    path
    for pattern in ("*.py", "*.yaml", "benchmarks/*.py", "grids/*", "docs/*.yaml")
    for path in PROJECT.glob(pattern)
)
SCRIPTS = sorted(path.stem for path in PROJECT.glob("*.py") if path.stem != "quickstart")
# What is run by `python -m`, with arguments of its own.
MODULES = ["utils.tasks.project_labels", "benchmarks.controlled_language"]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@each_page
def test_commands_parse(page, parses, capsys):
    for words in whole_commands(page):
        check_command(words, parses, capsys)
    for words in partial_commands(page):
        if not words[0].startswith("--"):
            extra = [] if {"--output_dir", "-m"} & set(words) else ["--output_dir", "out"]
            check_command([*words, *extra], parses, capsys)


@pytest.mark.parametrize("path", FILES_WITH_A_TEXT, ids=lambda path: path.name)
def test_commands_at_the_top_of_files_parse(path, parses, capsys):
    for words in commands_at_the_top(path):
        check_command(words, parses, capsys)


def test_commands_at_the_top_of_files_are_found():
    found = {path.name for path in FILES_WITH_A_TEXT if commands_at_the_top(path)}
    assert {f"{script}.py" for script in SCRIPTS} | {"replicate.yaml", "scripts.yaml", "prepare_data.py"} <= found


def check_command(words: list[str], parses, capsys) -> None:
    script = next((word for word in words if word.endswith(".py")), None)
    if module := next((word for word in words if word in MODULES), None):
        given = words[words.index(module) + 1 :]
        assert not given or parses(module, given), (words, capsys.readouterr().err)
    elif script and Path(script).stem in SCRIPTS:
        assert parses(Path(script).stem, words[words.index(script) + 1 :]), (words, capsys.readouterr().err)
        if "--override" in words:
            after = words[words.index("--override") + 1 :]
            assert replicate.read_settings({}, list(takewhile(lambda word: not word.startswith("--"), after))), words
    elif script and script != "quickstart.py":
        source = (PROJECT / script).read_text(encoding="utf-8")
        for flag in (word for word in words if word.startswith("--") and word != "--output_dir"):
            assert f'"{flag}"' in source, (script, flag)
    elif words[0] == "make":
        makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
        targets = [word for word in words[1:] if re.fullmatch(r"[a-z-]+", word) and word != "out"]
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), words
    elif words[0] == "pip" and "-r" in words:
        assert (PROJECT / words[words.index("-r") + 1]).is_file()


@each_page
def test_arguments_in_the_text_exist(page, parses, capsys):
    """Some script has all arguments of a piece of code such as `--aligner encoder`, and takes their values."""
    known = {}
    for script in (*SCRIPTS, *MODULES):
        parses(script, ["--help"])
        known[script] = set(re.findall(r"--\w+", capsys.readouterr().out))
    benchmarks = "".join(path.read_text(encoding="utf-8") for path in PROJECT.glob("benchmarks/*.py"))
    for words in (line for line in partial_commands(page) if line[0].startswith("--")):
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        able = [script for script in known if flags <= known[script]]
        assert able or all(f'"{flag}"' in benchmarks for flag in flags), words
        if able and len(words) > len(flags):
            extra = [] if "--output_dir" in words else ["--output_dir", "out"]
            assert any(
                readable(parses, script, [*words, *(extra if "--output_dir" in known[script] else [])], capsys)
                for script in able
            ), words


def readable(parses, script: str, words: list[str], capsys) -> bool:
    """Whether the values are of the right type and among the choices; other arguments may be missing."""
    if parses(script, words):
        return True
    error = capsys.readouterr().err
    return "cannot be read" not in error and "out of range" not in error and "There is no argument" not in error


def test_python_runs(tmp_path, monkeypatch):
    """The examples of README, adjust.md and fine_tune.md, with tiny models."""
    loading, adjusting, continual = (
        code
        for name in ("README.md", "docs/adjust.md", "docs/fine_tune.md")
        for code in blocks(PROJECT / name, "python")
    )
    folder = tiny.checkpoint(tmp_path / "aligned-mbert-hi")
    monkeypatch.chdir(tmp_path)
    names = {"pairs": some_pairs(8)}

    def execute(example):
        example = example.replace("google-bert/bert-base-multilingual-cased", folder)
        example = example.replace('"adjusted"', '"adjusted", use_cpu=True, max_steps=1')
        exec(compile(example, "example", "exec"), names)

    execute(loading)
    execute(adjusting)
    assert names.pop("trainer").state.global_step == 1
    # What the second example takes for granted.
    names["model"] = tiny.model("Bert", "ForSequenceClassification", num_labels=2)
    names["args"] = TrainingArguments("mine", use_cpu=True, max_steps=1)
    encoded = names["tokenizer"](tiny.TEXT)["input_ids"]
    names["task"] = Dataset.from_dict({"input_ids": encoded, "labels": [k % 2 for k in range(len(encoded))]})
    assert len([line for line in continual.split("original =")[1].splitlines() if line]) <= 10
    execute(continual)
    assert names.pop("trainer").state.global_step == 1


@each_page
def test_links_lead_somewhere(page):
    text = page_text(page)
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, (
                target
            )


@each_page
def test_files_exist(page):
    if page.name == "CHANGELOG.md":  # it also names what is gone
        return
    named = [
        span for span in spans(page) if re.fullmatch(r"(utils|data|tests|benchmarks|docs)/[\w./-]*|\w+\.py", span)
    ]
    missing = [name for name in named if not (PROJECT / name).exists() and not list(PROJECT.glob(f"utils/*/{name}"))]
    assert not missing


@each_page
def test_nothing_is_left_to_fill_in(page):
    assert not re.findall(r"TODO|XXX|FIXME|^[A-Z]+_[A-Z]+\b", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_readme_is_short():
    assert 8_000 <= len((PROJECT / "README.md").read_bytes()) <= 10_000


def test_the_figure_shows_the_numbers_of_the_page():
    overview = importlib.import_module("docs.figures.overview")
    tables = overview.hindi_tables((PROJECT / "docs" / "retrieval.md").read_text(encoding="utf-8"))
    assert len(tables) == 4
    assert tables["Words, English → Hindi"]["adjusted, contrastive"][6] == pytest.approx(0.771)
    assert all(len(curve) == 7 for panel in tables.values() for curve in panel.values())


def test_the_figure_of_the_results_shows_their_runs():
    """Of every panel the four languages, with the scores and gains that docs/results.md names."""
    scripts = importlib.import_module("docs.figures.scripts")
    differences, levels = scripts.panels(read_runs_and_archives([str(PROJECT / "docs" / "results")]))
    assert all(list(of) == list(scripts.SYSTEMS.values()) for of in differences.values())
    assert all(set(of_language) == set(scripts.LANGUAGES) for of_language in levels.values())
    tagged = "Parts of speech, zero-shot accuracy"
    gain, low, high = differences[tagged]["adjusted, contrastive"]["hi-Latn"]
    assert (levels[tagged]["hi-Latn"], gain) == pytest.approx((0.309, 0.140), abs=5e-4)
    assert low < gain < high


def test_the_tree_is_complete():
    page = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = [path.parent.name for path in PROJECT.glob("utils/*/__init__.py")]
    assert sorted(re.findall(r"^[├└]── (\w+)/", page, re.MULTILINE)) == sorted(packages)
    assert not [script for script in SCRIPTS if f"{script}.py" not in page]
