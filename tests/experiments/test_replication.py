"""replicate.py: which runs a grid has, how they are started, stopped and gone on with."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import sys
from collections import Counter
from importlib.machinery import SourceFileLoader
from pathlib import Path
from random import Random

import pytest
import yaml
from filelock import FileLock

import replicate
import run_align
import run_distances
import run_ner
import run_nli
import run_pos
import run_qa
import run_xsr
from helpers.paths import PROJECT
from helpers.processes import ScriptProcess
from utils.core.errors import InputError
from utils.core.files import write_json
from utils.experiments import marks, runner
from utils.experiments.arms import ABLATION, ADJUSTED, ORIGINAL, PAPER_REGIMES, TRANSLATED
from utils.experiments.grid import Grid
from utils.experiments.marks import check_done, find_done, find_to_do, mark_done
from utils.experiments.plan import Run, plan
from utils.experiments.runner import carry_out, command
from utils.tasks.registry import TASKS


pytestmark = pytest.mark.slow  # together more than a few seconds


SCRIPTS = {
    "run_align.py": run_align, "run_nli.py": run_nli, "run_ner.py": run_ner, "run_qa.py": run_qa, "run_xsr.py": run_xsr,
    "run_distances.py": run_distances, "run_pos.py": run_pos,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch):
    """What the scripts say of their arguments takes seconds, and has tests of its own (test_checked_commands.py)."""
    monkeypatch.setattr(runner, "refusals", lambda commands: [None] * len(commands))


def grid(**changes) -> Grid:
    usual = {
        "model_name_or_path": "mbert",
        "languages": ["es", "hi"],
        "seeds": [1, 2],
        "tasks": ["nli", "qa", "xsr"],
        "regimes": list(PAPER_REGIMES),
        "cross_lingual": ["hi"],
        "settings": {
            "parallel": {"parallel_file": {"es": "a.tsv", "hi": "b.tsv"}}, "nli": {"do_eval": "true"}, "distances": {}
        },
    }  # fmt: skip
    return Grid(**{**usual, **changes})


def named(runs, name) -> Run:
    return next(run for run in runs if run.name == name)


def values_of(run, name) -> list[str]:
    """What follows an argument."""
    words = run.arguments[run.arguments.index(f"--{name}") + 1 :]
    end = next((k for k, word in enumerate(words) if word.startswith("--")), len(words))
    return words[:end]


# --- The plan ----------------------------------------------------------------------------------------------------


def test_the_whole_grid_is_planned():
    runs = plan(grid())
    assert len({run.name for run in runs}) == len(runs)
    # Of each seed two adjusted models and, for each of two tasks, one original run and four regimes in two languages.
    assert Counter(run.task for run in runs) == {"align": 4, "nli": 18, "qa": 18, "xsr": 2, "distances": 2}
    cells = {(run.task, run.regime, run.language, run.seed) for run in runs if run.task == "nli"}
    others = {("nli", regime, language, s) for regime in PAPER_REGIMES for language in ("es", "hi") for s in (1, 2)}
    expected = {cell for cell in others if cell[1] != ORIGINAL} | {("nli", ORIGINAL, None, s) for s in (1, 2)}
    assert cells == expected


def test_what_is_needed_comes_before_what_needs_it():
    done = set()
    for run in plan(grid()):
        assert done.issuperset(run.needs), run.name
        done.add(run.name)


def test_a_script_is_told_what_is_of_its_languages():
    runs = plan(grid())
    assert values_of(named(runs, "align/hi-seed2"), "parallel_file") == ["hi=b.tsv"]
    assert values_of(named(runs, "align/hi-seed2"), "seed") == ["2"]
    assert values_of(named(runs, "nli/original-seed1"), "eval_languages") == ["en", "es", "hi"]
    assert values_of(named(runs, "nli/adjusted-hi-seed1"), "eval_languages") == ["en", "hi"]
    assert values_of(named(runs, "nli/adjusted-hi-seed1"), "model_name_or_path") == ["{align/hi-seed1}"]
    assert "--continual" not in named(runs, "nli/adjusted-hi-seed1").arguments
    assert values_of(named(runs, "nli/original+continual-es-seed1"), "languages") == ["es"]
    assert values_of(named(runs, "nli/original+continual-es-seed1"), "model_name_or_path") == ["mbert"]
    assert values_of(named(runs, f"nli/{ABLATION}-es-seed1"), "alignment_weight") == ["0"]
    assert "--alignment_weight" not in named(runs, "nli/adjusted+continual-es-seed1").arguments
    across = ["en-en", "es-es", "hi-hi", "hi-en", "en-hi"]
    assert values_of(named(runs, "qa/original-seed1"), "language_pairs") == across
    assert values_of(named(runs, "qa/adjusted-es-seed1"), "language_pairs") == ["en-en", "es-es"]
    assert values_of(named(runs, "xsr/hi"), "models") == ["mbert", "{align/hi-seed1}", "{align/hi-seed2}"]
    # By the first seed: of the first task, what begins with this language or with none.
    measured = values_of(named(runs, "distances/hi"), "models")
    assert "{nli/original-seed1}" in measured
    assert "{nli/adjusted+continual-hi-seed1}" in measured
    assert len(measured) == 2 + len(PAPER_REGIMES)


def test_settings_that_are_mappings():
    """By language where a key is one; otherwise JSON, which the scripts read."""
    align = {"parallel_file": {"es": "a.tsv", "hi": ["b.hi", "b.en"]}, "lr_scheduler_kwargs": {"num_cycles": "2"}}
    run = named(plan(grid(settings={"align": align})), "align/hi-seed1")
    assert values_of(run, "parallel_file") == ["hi=b.hi,b.en"]
    assert values_of(run, "lr_scheduler_kwargs") == ['{"num_cycles": "2"}']


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [("nli", "a", {"hi": {"b": "c"}}), ("nli", "a", [["b"]]), ("nli", "a", [{"b": "c"}]), ("nli", "a b", "c"), ("nli", "", "c"),
     ("launch", "num_processes", "two"), ("launch", "num_processes", "0"), ("launch", "num_processes", ["1"])],
)  # fmt: skip
def test_settings_that_cannot_be_arguments(group, name, value):
    with pytest.raises(InputError, match=name or "setting"):
        grid(settings={group: {name: value}})


def test_one_model_for_all_languages():
    runs = plan(grid(joint=True))
    assert Counter(run.task for run in runs) == {"align": 2, "nli": 10, "qa": 10, "xsr": 2, "distances": 2}
    assert values_of(named(runs, "align/joint-seed1"), "languages") == ["es", "hi"]
    assert values_of(named(runs, "nli/adjusted-seed1"), "eval_languages") == ["en", "es", "hi"]
    assert values_of(named(runs, "nli/adjusted+continual-seed1"), "parallel_file") == ["es=a.tsv", "hi=b.tsv"]
    assert values_of(named(runs, "nli/adjusted+continual-seed1"), "languages") == ["es", "hi"]
    assert values_of(named(runs, "xsr/es"), "models") == ["mbert", "{align/joint-seed1}", "{align/joint-seed2}"]


VARIANTS = {"mse": {}, "front": {"alignment_objective": "contrastive", "freeze_layers": "front"}}


def test_every_variant_is_adjusted_and_fine_tuned():
    """The original, which nothing is aligned in, has none; continual learning has those of its arguments that it takes."""
    settings = {"variants": VARIANTS, "align": {"do_eval": True, "alignment_objective": "cosine"}}
    runs = plan(grid(joint=True, tasks=["words", "nli", "xsr"], seeds=[1], settings=settings))
    assert len({run.name for run in runs}) == len(runs)
    assert Counter(run.task for run in runs) == {"words": 1, "align": 2, "nli": 1 + 2 * 4, "xsr": 2}
    adjusted = named(runs, "align/front-joint-seed1")
    assert values_of(adjusted, "alignment_objective") == ["contrastive"]
    assert values_of(adjusted, "freeze_layers") == ["front"]
    assert values_of(named(runs, "align/mse-joint-seed1"), "alignment_objective") == ["cosine"]
    continual = named(runs, "nli/adjusted+continual-front-seed1")
    assert continual.needs == [adjusted.name]
    assert values_of(continual, "alignment_objective") == ["contrastive"]
    assert "--alignment_objective" not in named(runs, "nli/original+continual-mse-seed1").arguments
    assert "--alignment_objective" not in named(runs, "nli/adjusted-front-seed1").arguments
    assert set(named(runs, "xsr/hi").needs) == {"align/mse-joint-seed1", "align/front-joint-seed1"}
    assert "--do_train" not in named(runs, "words/original").arguments


def test_some_of_the_variants_can_be_run():
    """Their runs are the same ones as in the whole grid, so that the others can follow later."""

    def runs(**options):
        settings = {"variants": dict(VARIANTS), "align": {"do_eval": True}}
        of = grid(joint=True, tasks=["words", "nli"], seeds=[1], settings=settings, **options)
        return {run.name: run.arguments for run in plan(of)}

    whole, front, none = runs(), runs(only_variants=["front"]), runs(only_variants=[])
    assert front == {name: arguments for name, arguments in whole.items() if "mse" not in name}
    assert any("front" in name for name in front)
    assert none == whole
    for unknown in (["back"], ["front", "back"]):
        with pytest.raises(InputError, match="mse, front"):
            runs(only_variants=unknown)
    with pytest.raises(InputError):
        grid(only_variants=["front"])


def test_training_in_the_language_is_a_run_of_each():
    settings = {
        "nli": {"train_file": "en.jsonl"},
        "nli_translated": {"train_file": {"es": "es.jsonl", "hi": "hi.jsonl"}},
    }
    runs = plan(grid(joint=True, regimes=[ORIGINAL, TRANSLATED], seeds=[1], tasks=["nli", "qa"], settings=settings))
    assert [run.name for run in runs if run.task == "nli"] == [
        "nli/original-seed1", "nli/translate-train-es-seed1", "nli/translate-train-hi-seed1",
    ]  # fmt: skip
    in_hindi = named(runs, "nli/translate-train-hi-seed1")
    assert values_of(in_hindi, "train_file") == ["hi.jsonl"]
    assert values_of(in_hindi, "train_language") == ["hi"]
    assert values_of(in_hindi, "eval_languages") == ["en", "hi"]
    assert [run.name for run in runs if run.task == "qa"] == ["qa/original-seed1"]


@pytest.mark.parametrize("variants", [{"a b": {}}, {"../x": {}}, {"a": "mse"}, {"a": {"b": {"c": {"d": 1}, "hi": 2}}}])
def test_variants_that_cannot_be_arguments(variants):
    with pytest.raises(InputError):
        grid(settings={"variants": variants})


def test_models_are_also_measured_on_further_data_sets_as_far_as_these_have_the_languages():
    runs = {
        run.name: run
        for run in plan(grid(languages=["es", "ru"], cross_lingual=["es"], tasks=["qa", "mlqa", "tydiqa"]))
    }
    tuned = {name.partition("/")[2] for name in runs if name.startswith("qa/")}
    for task, lacks in (("mlqa", "ru"), ("tydiqa", "es")):
        measured = {name.partition("/")[2]: run for name, run in runs.items() if run.task == task}
        assert measured.keys() == {name for name in tuned if f"-{lacks}-" not in name}
        for name, run in measured.items():
            assert run.needs == [f"qa/{name}"]
            assert run.script == "run_qa.py"
            assert f"{{qa/{name}}}" in run.arguments
            assert "--do_train" not in run.arguments
            assert not [word for word in run.arguments if lacks in word.split("-")]
    assert "es-en" in runs["mlqa/original-seed1"].arguments
    with pytest.raises(InputError, match="qa"):
        grid(tasks=["nli", "mlqa"])


def test_only_what_is_asked_for():
    runs = plan(grid(tasks=["nli"], regimes=[ORIGINAL], settings={}))
    assert [run.name for run in runs] == ["nli/original-seed1", "nli/original-seed2"]
    assert [run.task for run in plan(grid(tasks=["xsr"], regimes=[ORIGINAL, ADJUSTED], seeds=[1], settings={}))] == [
        "align", "align", "xsr", "xsr"
    ]  # fmt: skip


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """The arguments that each script knows, by its --help."""
    known = {}
    for name, script in SCRIPTS.items():
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as shown:
            patch.setattr(sys, "argv", [name, "--help"])
            with pytest.raises(SystemExit):
                script.main()
        known[name] = set(re.findall(r"(?<![\w-])--[a-z0-9_]+", shown.getvalue()))
    return known


@pytest.mark.parametrize(
    "name", ["replicate.yaml", "replicate-small.yaml", "grids/options.yaml", "grids/scripts.yaml"]
)
def test_the_settings_files_say_nothing_that_a_script_does_not_know(name, options, run, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("data.sample_model.sample_model", lambda: "sample-model")
    run(replicate.main, PROJECT / name, "--output_dir", tmp_path / "out", "--dry_run")
    *commands, total = capsys.readouterr().out.splitlines()
    assert total == f"# {len(commands)} of {len(commands)} runs are to be done."
    assert len(commands) > 100
    for line in commands:
        script = next(word for word in line.split() if word in SCRIPTS)
        said = {word for word in line.split(script)[1].split() if word.startswith("--")}
        assert said <= options[script], script
    assert not (tmp_path / "out").exists()


def test_settings_files_have_the_papers_grid():
    settings = yaml.safe_load((PROJECT / "replicate.yaml").read_text(encoding="utf-8"))
    assert settings["languages"] == ["es", "ru", "vi", "hi"]
    assert len(settings["seeds"]) == 5
    assert settings["align"]["max_train_pairs"] == 250_000
    assert settings["continual"]["max_train_pairs"] == 30_000


# --- The command line --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tasks", "nlu"), "--tasks nlu "),
        (("--regimes", "adapted"), "--regimes adapted "),
        (("--jobs", "0"), "--jobs 0 "),
        (("--nli", "[1, 2]"), "--nli "),
        (("--nli", "{a: ["), "--nli "),
        (("--override", "nli.max_train_samples"), "--override nli.max_train_samples"),
        (("--override", "nil.max_train_samples=3"), "--override nil.max_train_samples"),
        (("--nil", "{a: 1}"), "There is no argument --nil; did you mean --nli?"),
    ],
)
def test_a_mistake_is_said_at_once(run, tmp_path, arguments, message):
    with pytest.raises(InputError, match=re.escape(message)):
        run(replicate.main, "--output_dir", tmp_path / "out", "--dry_run", *arguments)
    assert not (tmp_path / "out").exists()


def test_every_task_of_the_registry_is_a_task_of_the_grid(run, capsys, tmp_path):
    for task in TASKS:
        run(replicate.main, "--output_dir", tmp_path / "out", "--dry_run", "--tasks", task, "--seeds", "1", "--languages",
            "hi", "--regimes", "original", f"--{task}", "{max_train_samples: 7}")  # fmt: skip
        line, _ = capsys.readouterr().out.splitlines()
        assert f"run_{task}.py" in line
        assert "--max_train_samples 7" in line


def test_single_settings_win_over_the_file(run, capsys, tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text("model_name_or_path: mbert\ntasks: [nli]\nnli: {max_train_samples: 7, do_eval: true}\n")
    which = ("--regimes", "original", "--seeds", "3", "--output_dir", tmp_path / "out")
    run(replicate.main, file, "--dry_run", *which, "--override", "nli.max_train_samples=9", "launch.num_processes=2")
    line, _ = capsys.readouterr().out.splitlines()
    assert "--max_train_samples 9 --do_eval true" in line
    assert "--num_processes 2" in line
    assert "--seed 3" in line


# --- Commands ----------------------------------------------------------------------------------------------------


def test_a_run_goes_on_from_a_whole_checkpoint_only(tmp_path, monkeypatch):
    whole = "utils.training.whole_checkpoints.is_whole"
    monkeypatch.setattr(whole, lambda checkpoint: (checkpoint / "trainer_state.json").exists())
    run = named(plan(grid()), "nli/adjusted-hi-seed1")
    words = command(run, grid(), tmp_path)
    assert "--resume_from_checkpoint" not in words
    assert words[words.index("--model_name_or_path") + 1] == str(tmp_path / "align" / "hi-seed1")
    checkpoint = tmp_path / run.name / "checkpoint-5"
    checkpoint.mkdir(parents=True)
    assert "--resume_from_checkpoint" not in command(run, grid(), tmp_path)
    (checkpoint / "trainer_state.json").write_text("{}")
    assert command(run, grid(), tmp_path)[-2:] == ["--resume_from_checkpoint", "true"]


# --- Carrying out, with commands that take no time ---------------------------------------------------------------


def fake(monkeypatch, programs: dict[str, str], default: str = "pass") -> None:
    """Let every run be a small program, which knows its `folder`."""

    def small_program(run, grid, output_dir, n_threads=None):
        program = f"folder = {str(output_dir / run.name)!r}\n{programs.get(run.name, default)}"
        return [sys.executable, "-c", program]

    monkeypatch.setattr(runner, "command", small_program)
    monkeypatch.setattr(runner, "as_typed", lambda words: "a small program")


def a_run(name: str, *needs: str, task: str = "nli") -> Run:
    return Run(name, "run_nli.py", ["--seed", name[-1]], list(needs), task)


def test_what_is_done_is_skipped(monkeypatch, tmp_path):
    runs = [a_run("nli/a1"), a_run("nli/a2", "nli/a1")]
    count = "open(folder + '/times', 'a').write('x')"
    fake(monkeypatch, {}, count)
    assert carry_out(runs, grid(), tmp_path) == {}
    assert carry_out(runs, grid(), tmp_path) == {}
    assert [(tmp_path / run.name / "times").read_text() for run in runs] == ["x", "x"]
    assert all(check_done(run, tmp_path) for run in runs)


def test_a_run_that_a_killed_grid_has_left_behind_is_waited_for(monkeypatch, tmp_path):
    """It holds the lock of its folder. Other runs do not wait."""
    fake(monkeypatch, {})
    folder = tmp_path / "nli" / "a1"
    folder.mkdir(parents=True)
    left_behind = FileLock(folder / "_lock")
    left_behind.acquire()
    at_work = {}

    def release_in_the_end(seconds):
        if check_done(a_run("nli/a2"), tmp_path) and left_behind.is_locked:
            at_work["nli/a1"] = check_done(a_run("nli/a1"), tmp_path)
            left_behind.release()

    monkeypatch.setattr(runner.time, "sleep", release_in_the_end)
    assert carry_out([a_run("nli/a1"), a_run("nli/a2")], grid(), tmp_path, n_jobs=2) == {}
    assert at_work == {"nli/a1": False}
    assert check_done(a_run("nli/a1"), tmp_path)


@pytest.mark.parametrize("program", ["pass", "raise SystemExit(1)"])
def test_other_settings_are_refused(monkeypatch, tmp_path, program):
    """Also those of a run that was cut off, whose checkpoint would be gone on with."""
    fake(monkeypatch, {}, program)
    carry_out([a_run("nli/a1")], grid(), tmp_path)
    changed = Run("nli/a1", "run_nli.py", ["--seed", "1", "--learning_rate", "1"], [], "nli")
    with pytest.raises(InputError, match="other settings .*--learning_rate.*remove that folder"):
        carry_out([changed], grid(), tmp_path)
    changed.arguments = ["--seed", "3"]
    with pytest.raises(InputError, match="then: --seed 1, now: --seed 3"):
        carry_out([changed], grid(), tmp_path)


def launched(**launch) -> Run:
    """The first run of a grid with settings of `accelerate launch`."""
    return plan(grid(settings={"launch": launch}))[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("mixed_precision", "bf16"), ("num_processes", 4), ("num_machines", 2), ("dynamo_backend", "inductor"),
     ("use_fsdp", "true"), ("config_file", "two-nodes.yaml")],
)  # fmt: skip
def test_runs_of_another_precision_or_batch_are_refused(tmp_path, name, value):
    """In both directions; as the same settings they are done, whether or not they name a default."""
    usual, other = launched(), launched(**{name: value})
    for number, (then, now) in enumerate(((usual, other), (other, usual))):
        out = tmp_path / str(number)
        mark_done(then, out)
        assert check_done(then, out) is True
        with pytest.raises(InputError) as error:
            check_done(now, out)
        assert f"--{name} {value}" in str(error.value)
        assert str(out / now.name) in str(error.value)
    assert launched(mixed_precision="no", num_processes=1).launch == usual.launch


@pytest.mark.parametrize(
    ("name", "value"),
    [("main_process_port", 29501), ("main_process_ip", "10.0.0.1"), ("machine_rank", 1), ("gpu_ids", "0,1"),
     ("num_cpu_threads_per_process", 2), ("log_dir", "logs")],
)  # fmt: skip
def test_a_grid_goes_on_at_another_place(tmp_path, name, value):
    mark_done(launched(), tmp_path)
    run = launched(**{name: value})
    assert check_done(run, tmp_path) is True
    words = command(run, grid(settings={"launch": {name: value}}), tmp_path)
    assert words[words.index(f"--{name}") + 1] == str(value)


def test_an_older_mark_stands_for_the_launch_of_now(tmp_path):
    run = launched(mixed_precision="bf16")
    write_json(tmp_path / run.name / "replicate.json", {"arguments": run.arguments, "done": True})
    assert check_done(run, tmp_path) is True


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        {"arguments": None},
        {"arguments": [1]},
        {"launch": None},
        {"launch": [1]},
        {"launch": "no"},
        {"done": 1},
        {"needs": []},
        {"needs": {"a": 1}},
        {"made": 1},
    ],
    ids=str,
)
def test_a_damaged_mark_is_not_guessed_at(monkeypatch, tmp_path, damage):
    fake(monkeypatch, {})
    carry_out([a_run("nli/a1")], grid(), tmp_path)
    mark = tmp_path / "nli" / "a1" / "replicate.json"
    mark.write_text(damage if isinstance(damage, str) else json.dumps({**json.loads(mark.read_text()), **damage}))
    with pytest.raises(InputError, match="replicate.json"):
        carry_out([a_run("nli/a1")], grid(), tmp_path)


def test_what_fails_is_told_and_the_rest_goes_on(monkeypatch, tmp_path, capfd):
    wrong = "import sys; print('loading'); sys.exit('error: There is no file x.tsv; check the path.')"
    killed = "import os; os.kill(os.getpid(), 9)"
    fake(monkeypatch, {"nli/a1": wrong, "nli/a4": killed})
    runs = [a_run("nli/a1"), a_run("nli/a2", "nli/a1"), a_run("nli/a3"), a_run("nli/a4"), a_run("nli/a5", "nli/a2")]
    failed = carry_out(runs, grid(), tmp_path)
    log = tmp_path / "logs" / "nli.a1.log"
    assert failed["nli/a1"] == f"failed with status 1: error: There is no file x.tsv; check the path. (see {log})"
    assert failed["nli/a2"] == "not started, since nli/a1 failed"
    assert failed["nli/a5"] == "not started, since nli/a2 failed"
    assert failed["nli/a4"].startswith("failed with status -9: ")
    assert "nli/a3" not in failed
    assert check_done(runs[2], tmp_path)
    assert "nli/a3: done in" in capfd.readouterr().err
    fake(monkeypatch, {})
    assert carry_out(runs, grid(), tmp_path) == {}


# A stand-in for a script: its "model" is the text of its name, its settings, and the models that it started from.
_MODELS = """
import os, pathlib, sys
out, run, rate, *needs = sys.argv[1:]
folder = pathlib.Path(out, run)
from_which = [(pathlib.Path(out, need) / "model.safetensors").read_text() for need in needs]
(folder / "all_results.json").write_text(f"{run} {rate} {from_which}")
if (folder / "checkpoint-1" / "state").exists():
    (folder / "all_results.json").write_text("went on from a checkpoint of another model")
(folder / "model.safetensors").write_text((folder / "all_results.json").read_text())
(folder / "times").open("a").write("x")
"""


def chained(rate: str = "1", n_chains: int = 1, depth: int = 3) -> list[Run]:
    """Chains like align → ner → forgetting; the first run of the first chain has a setting."""
    runs = []
    for chain in range(n_chains):
        for level in range(depth):
            kind = ("align", "ner", "forgetting")[min(level, 2)]
            rates = ["--learning_rate", rate] if level == chain == 0 else []
            needs = [runs[-1].name] if level else []
            runs.append(Run(f"{kind}/c{chain}-{level}", "run_ner.py", rates, needs, kind))
    return runs


@pytest.fixture
def models(monkeypatch):
    def program(run, grid, output_dir, n_threads=None):
        rate = run.arguments[-1] if run.arguments else ""
        return [sys.executable, "-c", _MODELS, str(output_dir), run.name, rate, *run.needs]

    monkeypatch.setattr(runner, "command", program)
    monkeypatch.setattr(runner, "as_typed", lambda words: "a small program")


def results_by_name(runs, out) -> dict[str, str]:
    return {run.name: (out / run.name / "all_results.json").read_text() for run in runs}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("keep_models", [True, False])
def test_what_needs_a_repeated_run_is_repeated(tmp_path, keep_models):
    """Follows the advice of the error message; what does not need the removed run stays as it is."""
    runs, out = chained(n_chains=2), tmp_path / "out"
    assert carry_out(runs, grid(), out, keep_models=keep_models) == {}
    changed = chained("2", n_chains=2)
    with pytest.raises(InputError) as error:
        find_to_do(changed, out)
    assert str(out / "align/c0-0") in str(error.value)
    shutil.rmtree(out / "align/c0-0")
    assert [run.name for run in find_to_do(changed, out)] == ["align/c0-0", "ner/c0-1", "forgetting/c0-2"]
    assert find_done(changed, out) == {"align/c1-0", "ner/c1-1", "forgetting/c1-2"}
    assert carry_out(changed, grid(), out, keep_models=keep_models) == {}
    assert find_to_do(changed, out) == []
    carry_out(changed, grid(), tmp_path / "afresh")
    assert results_by_name(changed, out) == results_by_name(changed, tmp_path / "afresh")
    assert [(out / run.name / "times").read_text() for run in changed] == ["x", "xx", "xx", "x", "x", "x"]


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("seed", range(4))
def test_after_any_runs_were_removed_the_results_are_of_one_grid(tmp_path, seed):
    """Random chains, of which some folders are removed and some runs are interrupted: nothing old is kept by what is new."""
    random = Random(seed)
    runs = chained(n_chains=2, depth=random.choice([2, 3, 4]))
    keep_models = random.random() < 0.5
    carry_out(runs, grid(), tmp_path, keep_models=keep_models)
    for run in random.sample(runs, 2):
        shutil.rmtree(tmp_path / run.name)
    # What stays done starts from models of the same making as those that are there.
    to_do = {run.name for run in find_to_do(runs, tmp_path)}
    for run in runs:
        assert run.name in to_do or to_do.isdisjoint(run.needs)
    assert find_done(runs, tmp_path).isdisjoint(run.name for run in runs if not (tmp_path / run.name).exists())
    assert carry_out(runs, grid(), tmp_path, keep_models=keep_models) == {}
    found = {run.name: json.loads((tmp_path / run.name / "replicate.json").read_text()) for run in runs}
    for run in runs:
        assert found[run.name]["needs"] == {name: found[name]["made"] for name in run.needs}
    assert find_to_do(runs, tmp_path) == []


@pytest.mark.usefixtures("models")
def test_a_model_whose_weights_were_removed_is_made_again_for_a_run_that_needs_it(tmp_path):
    *before, last = chained()
    carry_out(before, grid(), tmp_path)
    assert not (tmp_path / "ner/c0-1/model.safetensors").exists()
    assert find_done([*before, last], tmp_path) == {run.name for run in before}  # (its results still count)
    assert [run.name for run in find_to_do([*before, last], tmp_path)] == ["ner/c0-1", last.name]
    assert carry_out([*before, last], grid(), tmp_path) == {}


@pytest.mark.usefixtures("models")
def test_no_checkpoint_of_an_earlier_model_is_gone_on_from(tmp_path, monkeypatch):
    monkeypatch.setattr(marks, "TASKS", {})
    monkeypatch.setattr("utils.training.whole_checkpoints.is_whole", lambda checkpoint: True)
    runs = chained(depth=2)
    carry_out(runs, grid(), tmp_path)
    mark_done(runs[1], tmp_path, done=False)
    (tmp_path / "ner/c0-1/checkpoint-1").mkdir()
    (tmp_path / "ner/c0-1/checkpoint-1/state").touch()
    assert "--resume_from_checkpoint" in command(runs[1], grid(), tmp_path)
    shutil.rmtree(tmp_path / "align/c0-0")
    assert "--resume_from_checkpoint" not in command(runs[1], grid(), tmp_path)
    carry_out(runs, grid(), tmp_path)
    assert "checkpoint" not in results_by_name(runs, tmp_path)["ner/c0-1"]


@pytest.mark.usefixtures("models")
def test_marks_from_before_stand_for_what_was_made_before(tmp_path):
    runs = chained()
    carry_out(runs, grid(), tmp_path, keep_models=True)
    for run in runs:
        path = tmp_path / run.name / "replicate.json"
        kept = {name: one for name, one in json.loads(path.read_text()).items() if name not in ("made", "needs")}
        write_json(path, kept)
    assert find_to_do(runs, tmp_path) == []
    shutil.rmtree(tmp_path / "ner/c0-1")
    assert [run.name for run in find_to_do(runs, tmp_path)] == ["ner/c0-1", "forgetting/c0-2"]
    carry_out(runs[:2], grid(), tmp_path, keep_models=True)
    assert [run.name for run in find_to_do(runs, tmp_path)] == ["forgetting/c0-2"]


def test_never_more_runs_at_a_time_than_allowed(monkeypatch, tmp_path):
    at_work = (
        "import os, time, pathlib\n"
        f"here = pathlib.Path({str(tmp_path)!r}, 'at-work', str(os.getpid())); here.mkdir(parents=True)\n"
        "time.sleep(0.4); print('seen', len(os.listdir(here.parent))); here.rmdir()"
    )
    fake(monkeypatch, {}, at_work)
    carry_out([a_run(f"nli/a{k}") for k in range(6)], grid(), tmp_path / "out", n_jobs=2)
    seen = [int(log.read_text().split("seen")[1]) for log in (tmp_path / "out" / "logs").iterdir()]
    assert len(seen) == 6
    assert max(seen) == 2


def test_weights_go_when_nothing_needs_them(monkeypatch, tmp_path):
    leave = "open(folder + '/model.safetensors', 'w'); open(folder + '/run.json', 'w'); __import__('os').mkdir(folder + '/checkpoint-3')"
    fake(monkeypatch, {}, leave)
    runs = [a_run("align/b1", task="align"), a_run("nli/a1", "align/b1"), a_run("nli/a2"), a_run("x/c1", "nli/a2")]
    carry_out(runs[:3], grid(), tmp_path / "part")
    assert not (tmp_path / "part" / "nli" / "a1" / "model.safetensors").exists()
    fake(monkeypatch, {"x/c1": "raise SystemExit(1)"}, leave)
    carry_out(runs, grid(), tmp_path / "failed")
    assert (tmp_path / "failed" / "nli" / "a2" / "model.safetensors").exists()  # still needed, next time
    fake(monkeypatch, {}, leave)
    for keep in (False, True):
        out = tmp_path / f"keep-{keep}"
        carry_out(runs, grid(), out, keep_models=keep)
        assert (out / "align" / "b1" / "model.safetensors").exists()
        for name in ("nli/a1", "nli/a2"):
            assert (out / name / "model.safetensors").exists() == keep
            assert (out / name / "run.json").exists()
            assert not list((out / name).glob("checkpoint-*"))


def test_only_the_checkpoints_of_a_run_go_with_it(monkeypatch, tmp_path):
    """Not what the user has called `checkpoint-…`, in the folder or elsewhere."""
    fake(monkeypatch, {}, "import os; os.mkdir(folder + '/checkpoint-30')")
    folder = tmp_path / "out" / "nli" / "a1"
    for name in ("checkpoint-best", "checkpoint-3-good", "_earlier-1/checkpoint-3"):
        (folder / name).mkdir(parents=True)
    (folder / "checkpoint-notes").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("mine")
    (folder / "checkpoint-7").symlink_to(tmp_path / "elsewhere")
    assert carry_out([a_run("nli/a1")], grid(), tmp_path / "out") == {}
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("checkpoint-*")}
    assert left == {"checkpoint-best", "checkpoint-3-good", "checkpoint-notes", "_earlier-1/checkpoint-3"}
    assert (tmp_path / "elsewhere" / "kept").exists()


SECRETS = ("hf_abcdefghijklmnop", "s3cr3t-word")


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "words",
    [
        ("--nli", "{{token: {}}}"),
        ("--nli", "{{hub_token: {}, do_eval: true}}", "--align", "{{token: {}}}"),
        ("--override", "nli.token={}"),
        ("--override", "nli.dataset_name=https://me:{}@example.org/x"),
        ("settings.yaml",),
    ],
)
def test_a_token_is_given_to_the_runs_and_written_nowhere(run, monkeypatch, tmp_path, capfd, secret, words):
    """Also where a run fails, and repeats its command or its environment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.yaml").write_text(f"nli:\n  token: {secret}\n", encoding="utf-8")
    leaky = "import os, sys; print(os.environ.get('HF_TOKEN', 'none'), *sys.argv); sys.exit(f'error: {sys.argv}')"
    monkeypatch.setattr(runner, "command", lambda of, *_: [sys.executable, "-c", leaky, *of.arguments])
    given = [word.format(secret) for word in words]
    grid_of_one = (
        "--tasks",
        "nli",
        "--regimes",
        "original",
        "--seeds",
        1,
        "--languages",
        "hi",
        "--model_name_or_path",
        "m",
    )
    with pytest.raises(InputError) as error:
        run(replicate.main, *given, "--output_dir", "out", *grid_of_one)
    if "dataset_name" not in given[-1]:
        assert "none" not in (tmp_path / "out/logs/nli.original-seed1.log").read_text().split()
    run(replicate.main, *given, "--output_dir", "other", *grid_of_one, "--dry_run")
    written = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) > 4
    assert not any(secret.encode() in content for content in written)
    shown = capfd.readouterr()
    assert secret not in f"{error.value}{shown.out}{shown.err}"


# --- Stopped and killed ------------------------------------------------------------------------------------------


_GRID = """
import signal, sys, pathlib
from utils.experiments import runner
from utils.experiments.grid import Grid
from utils.experiments.plan import Run
from utils.experiments.runner import carry_out

def command(run, grid, output_dir, n_threads=None):
    return [sys.executable, "-c", {program!r}, str(output_dir / run.name)]

runner.command, runner.as_typed = command, lambda words: "a small program"
# (Whoever starts the tests in the background has SIGINT ignored, by them and all that they start.)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.default_int_handler)
out = pathlib.Path(sys.argv[1])
carry_out([Run("nli/a1", "", [], [], "nli")], Grid(), out)
"""
# Has a child, as `accelerate launch` does, which locks its folder, as every script does, and takes a moment to save something when it is told to stop.
_PROGRAM = """
import subprocess, sys, time
child = '''
import os, pathlib, signal, sys, time
from filelock import FileLock
folder = pathlib.Path(sys.argv[1])
lock = FileLock(folder / "_lock")
lock.acquire()
def stop(*_):
    time.sleep(0.5); (folder / "saved").touch(); os._exit(143)
signal.signal(signal.SIGTERM, stop)
(folder / "pid").write_text(str(os.getpid()))
while not (folder / "release").exists():
    time.sleep(0.05)
(folder / "finished").touch()
'''
sys.exit(subprocess.call([sys.executable, "-c", child, sys.argv[1]]))
"""


def start_grid(out, program=_PROGRAM, log="log") -> ScriptProcess:
    script = out / f"{log}.py"
    script.write_text(_GRID.format(program=program), encoding="utf-8")
    return ScriptProcess([script, out], out / log)


def wait_for_run(process, out) -> int:
    """Wait until the run of a grid works; returns its process."""
    pid = out / "nli" / "a1" / "pid"
    process.wait_until(lambda: pid.exists() and pid.read_text())
    return int(pid.read_text())


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_waits_for_its_runs_to_save(tmp_path, number):
    process = start_grid(tmp_path)
    pid = wait_for_run(process, tmp_path)
    process.send_signal(number)
    assert process.wait() != 0
    folder = tmp_path / "nli" / "a1"
    assert (folder / "saved").exists()
    assert not (folder / "finished").exists()
    assert not is_alive(pid)
    assert json.loads((folder / "replicate.json").read_text())["done"] is False


@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
def test_killed_nobody_works_beside_the_runs_it_left_behind(tmp_path):
    process = start_grid(tmp_path)
    left_behind = wait_for_run(process, tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = tmp_path / "nli" / "a1"
    assert is_alive(left_behind)
    second = start_grid(tmp_path, "import sys, pathlib; pathlib.Path(sys.argv[1], 'again').touch()", "second")
    second.wait_until(lambda: str(tmp_path) in second.text)  # it waits, and says so
    assert not (folder / "again").exists()
    (folder / "release").touch()
    assert second.wait() == 0
    assert (folder / "finished").stat().st_mtime_ns <= (folder / "again").stat().st_mtime_ns
    assert not is_alive(left_behind)


# --- The real thing ----------------------------------------------------------------------------------------------


_REAL = """
languages: [hi]
seeds: [1]
tasks: [nli, xsr]
regimes: [original, adjusted]
n_resamples: 200
parallel: {parallel_dataset: data/parallel, max_train_pairs: 48}
align: {use_cpu: true, save_steps: 1, report_to: none, per_device_train_batch_size: 8}
nli: {dataset_name: data/nli, do_eval: true, max_train_samples: 48, max_eval_samples: 15, num_train_epochs: 1, use_cpu: true,
  save_steps: 1, report_to: none, per_device_train_batch_size: 8}
xsr: {dataset_name: data/xsr, max_samples: 20}
distances: {max_train_pairs: 20}
"""


def test_a_run_is_launched_by_accelerate(tmp_path, model, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    settings = {"nli": {"dataset_name": "data/nli", "max_steps": 1, "use_cpu": "true", "do_eval": "true"}}
    one = Grid(model, ["hi"], [1], ["nli"], [ORIGINAL], settings=settings)
    assert carry_out(plan(one), one, tmp_path) == {}
    assert (tmp_path / "nli/original-seed1/all_results.json").exists()


def test_killed_at_any_moment_it_gives_the_same_report(tmp_path, model):
    settings = tmp_path / "grid.yaml"
    settings.write_text(f"model_name_or_path: {model}\n{_REAL}", encoding="utf-8")

    def start(name):
        words = [PROJECT / "tests/helpers/forked_grid.py", settings, "--output_dir", tmp_path / name, "--jobs", 2]
        return ScriptProcess(words, tmp_path / f"{name}.log", {"HF_DATASETS_CACHE": str(tmp_path / "cache")})

    whole = start("whole")
    assert whole.wait() == 0, whole.text
    for moment in ("align/hi-seed1/checkpoint-*", "nli/adjusted-hi-seed1/checkpoint-*"):
        process = start("killed")
        process.wait_until(lambda moment=moment: list((tmp_path / "killed").glob(moment)))
        process.send_signal(signal.SIGKILL)
        process.wait()
    again = start("killed")
    assert again.wait() == 0, again.text
    for name in ("report.md", "report.html", "differences.png", "differences.pdf", "comparison.md", "comparison.csv"):
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("whole", "killed"))
        assert one == other, name
    assert str(tmp_path) not in (tmp_path / "whole" / "report.md").read_text(encoding="utf-8")
    assert "report.html" in whole.text
    assert not list((tmp_path / "killed").rglob("checkpoint-*"))


def test_data_of_a_grid_need_pairs_that_are_not_held_out(run, tmp_path):
    prepare = SourceFileLoader("prepare_data", str(PROJECT / "grids" / "prepare_data.py")).load_module()
    pairs = tmp_path / "en-hi.jsonl"
    pairs.write_text('{"en": "one", "hi": "ek"}\n' * 20, encoding="utf-8")
    for held_out in (20, 30):
        with pytest.raises(InputError, match="en-hi.jsonl"):
            run(prepare.main, f"hi={pairs}", "--output_dir", tmp_path / "out", "--held_out", held_out)
    assert not (tmp_path / "out").exists()
