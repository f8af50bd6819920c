"""Whatever comes in: success, or one line that says what is wrong; nothing that was there is overwritten.

A short search with every test; `make fuzz` for a long one.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from accelerate.state import AcceleratorState
from hypothesis import given
from hypothesis import strategies as st

import replicate
from helpers import tiny
from helpers.mutations import changed, command_lines, damaged, json_values
from helpers.outcomes import refusal
from helpers.paths import DATA
from helpers.runs import write_alignment, write_nli, write_xsr
from helpers.stages import SCRIPTS, TASK_SCRIPTS, groups_of, reader_of
from utils.alignment.words import split_on_punctuation
from utils.core.arguments import parse_arguments
from utils.core.settings import parse_yaml
from utils.core.tables import READERS, read_rows
from utils.experiments.comparison import comparison_table, find_baselines
from utils.experiments.comparison_tables import write_tables
from utils.experiments.finished_runs import check_same_data, read_runs
from utils.experiments.grid import Grid
from utils.experiments.plan import plan
from utils.parallel.aligners.pharaoh import read_header, read_pharaoh
from utils.parallel.formats import MOSES, SentenceColumns, _read_table, read_aligned_lines, words_of
from utils.tasks.reader import _read_file


pytestmark = pytest.mark.slow

ROWS = [{"id": str(k), "hi": text, "en": f"{tiny.TEXT[0]} {k}"} for k, text in enumerate(tiny.TEXT)]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def parquet(rows: list[dict]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


def written(rows: list[dict], suffix: str) -> bytes:
    """A good file in a format; of nested values only in those that have them."""
    if suffix == ".parquet":
        return parquet(rows)
    if suffix in (".json", ".jsonl"):
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    flat = [[one if isinstance(one, str) else json.dumps(one) for one in row.values()] for row in rows]
    mark = {".csv": ",", ".tsv": "\t"}.get(suffix, " ||| ")
    return "\n".join(mark.join(line) for line in [list(rows[0]), *flat]).encode()


def zipped(content: bytes, name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


@st.composite
def files(draw: st.DrawFn, rows: list[dict], suffixes: list[str]) -> tuple[str, bytes]:
    """A suffix and the content of a damaged file, or of a damaged archive."""
    suffix = draw(st.sampled_from(suffixes))
    content = written(rows, suffix)
    if draw(st.integers(0, 3)):
        return suffix, draw(damaged(content))
    if draw(st.booleans()):
        return f"{suffix}.zip", draw(damaged(zipped(content, f"x{suffix}")))
    packer = draw(st.sampled_from(list(PACKERS)))
    if draw(st.booleans()):
        return suffix + packer, PACKERS[packer](draw(damaged(content)))
    return suffix + packer, draw(damaged(PACKERS[packer](content)))


def place_of(folder: Path, file: tuple[str, bytes]) -> str:
    path = folder / f"x{file[0]}"
    path.write_bytes(file[1])
    return str(path)


@given(files(ROWS, list(READERS)))
def test_tables(tmp_path, file):
    path = place_of(tmp_path, file)
    refusal(lambda: list(read_rows(path)))


@given(files(ROWS, [*READERS, *MOSES]), st.sampled_from([None, "hi", "text", "1", ""]))
def test_parallel_text(tmp_path, file, column):
    path = place_of(tmp_path, file)
    columns = SentenceColumns("hi", column, column and "en")

    def read():
        for pair in _read_table(path, columns):
            for text in pair:
                words_of(text, split_on_punctuation, "punctuation")

    refusal(read)


@given(damaged("\n".join(tiny.TEXT).encode()), damaged("\n".join(tiny.TEXT[:1] * 6).encode()))
def test_aligned_files(tmp_path, source, english):
    (tmp_path / "a.hi").write_bytes(source)
    (tmp_path / "a.en").write_bytes(english)
    refusal(lambda: list(read_aligned_lines(str(tmp_path / "a.hi"), str(tmp_path / "a.en"))))


LINKS = (
    b"# aligner: x\n0-0 1-2 3p4\n\n0-1:0.5 2-2:-1e-3\n0-0 ||| 0.5\n# Sentence pair (1)\na b\nNULL ({ }) c ({ 1 2 })\n"
)


@given(damaged(LINKS), st.booleans(), st.sampled_from([None, 0.5]))
def test_links(tmp_path, content, reverse, least):
    path = tmp_path / "links"
    path.write_bytes(content)
    refusal(lambda: list(read_pharaoh(path, reverse, least)))
    refusal(lambda: read_header(path))


def examples_of(task: str) -> list[dict]:
    rows = [
        json.loads(line) for line in (DATA / task / "en" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:4]
    ]
    return rows


@pytest.mark.parametrize("script", TASK_SCRIPTS)
@given(data=st.data())
def test_examples_of_tasks(tmp_path, script, data):
    reader = reader_of(script)
    task = script.removeprefix("run_")
    rows = examples_of(task) if task != "pawsx" else [{"sentence1": "a b", "sentence2": "b a", "label": 1, "id": 3}]
    if data.draw(st.booleans()):
        row = data.draw(changed(rows[0]) | st.dictionaries(st.sampled_from(list(rows[0])), json_values()))
        work = lambda: reader.read_example(row, "Row 1 of x") if isinstance(row, dict) else None  # noqa: E731
    else:
        path = place_of(tmp_path, data.draw(files(rows, list(reader.readers))))
        work = lambda: list(_read_file(path, reader.readers, reader.read_example, False))  # noqa: E731
    refusal(work)


RUNS = {
    "nli": lambda folder, seed: write_nli(folder, [1, 0, 1], seed=seed),
    "alignment": lambda folder, seed: write_alignment(folder, seed),
    "xsr": lambda folder, seed: write_xsr(folder, [1, 2, 3], base_model=f"model{seed}"),
}


@pytest.mark.parametrize("kind", RUNS)
@given(data=st.data())
def test_finished_runs(tmp_path, kind, data):
    folders = [RUNS[kind](tmp_path / f"run{seed}", seed) for seed in (1, 2)]
    path = data.draw(st.sampled_from(sorted(folders[0].rglob("*.json*"))))
    lines = (
        path.read_text(encoding="utf-8").splitlines()
        if path.suffix == ".jsonl"
        else [path.read_text(encoding="utf-8")]
    )
    if data.draw(st.integers(0, 3)):
        number = data.draw(st.integers(0, len(lines) - 1))
        lines[number] = json.dumps(data.draw(changed(json.loads(lines[number]))))
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        path.write_bytes(data.draw(damaged(path.read_bytes())))

    def compare():
        runs = read_runs(list(map(str, folders)))
        check_same_data(runs)
        write_tables([comparison_table(runs, find_baselines(str(runs[0].system), runs), n_resamples=100)], tmp_path)

    refusal(compare)


SETTINGS = b"{max_train_samples: 7, parallel_file: {hi: a, ru: [b, c]}, do_eval: true, x: null}"


@given(
    damaged(SETTINGS),
    st.text("nlix.=[]{}*&:, ~", max_size=20),
    st.sampled_from(["nli", "parallel", "launch", "distances"]),
)
def test_settings(content, word, name):
    text = content.decode("utf-8", "replace")
    refusal(lambda: parse_yaml(text, "--nli"))
    refusal(lambda: plan(Grid(settings=replicate.read_settings({name: text}, [word, f"{name}.x={text}"]))))


# --- Command lines, generated from the dataclasses -----------------------------------------------------------------


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "_lock"}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """A folder with things that must stay as they are, deep enough for `../../x`."""
    folder = tmp_path / "a" / "b" / "c" / "d"
    (folder / "good").mkdir(parents=True)
    (folder / "good" / "run.json").write_text('{"base_model": "m"}')
    (folder / "junk.tsv").write_text("x\ty\n")
    monkeypatch.chdir(folder)
    return folder


def run_with(words: list[str], work: Callable[[], object]) -> None:
    before = contents(Path.cwd())
    variables = dict(os.environ)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["script.py", *words])
            refusal(work)
    finally:
        os.environ.clear()
        os.environ.update(variables)
        AcceleratorState._reset_state(reset_partial_state=True)
    now = contents(Path.cwd())
    assert {path: now.get(path) for path in before} == before


@pytest.mark.parametrize("script", SCRIPTS)
@given(data=st.data())
def test_command_lines_are_read_or_refused(elsewhere, script, data):
    """All arguments of all scripts, also those of the libraries; a new one is among them as soon as it is declared."""
    groups = groups_of(script)
    run_with(data.draw(command_lines(groups)), lambda: parse_arguments(*groups))


@pytest.mark.parametrize("script", SCRIPTS)
@given(data=st.data())
def test_a_script_without_model_and_data_refuses_every_command_line(elsewhere, script, data):
    """The checks before anything is read: in the end there is no such model, or nothing to do."""
    groups = groups_of(script)
    main = __import__(script).main
    last = {"compare_runs": ["--runs", "nowhere"], "replicate": ["--dry_run", "true", "--output_dir", "out"]}
    words = data.draw(command_lines(groups)) + last.get(script, ["--model", "no/such-model", "--push_to_hub", "false"])
    if script in ("run_xsr", "run_distances", "view_links"):
        words = [word for word in words if word not in ("--push_to_hub", "false")]
    run_with(words, main)
