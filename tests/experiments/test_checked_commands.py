"""replicate.py: arguments that a script would refuse are refused before the first run."""

import json

import pytest

import replicate
from helpers.paths import PROJECT
from utils.core.checked_commands import refusals
from utils.core.errors import InputError
from utils.core.kept_help import CODE
from utils.experiments import runner
from utils.experiments.grid import Grid
from utils.experiments.plan import plan


pytestmark = pytest.mark.slow  # (the scripts are imported in another process)


WRONG = {
    "ner": {"learning_rat": "1"},
    "nli": {"learning_rate": "fast"},
    "qa": {"doc_stride": "0"},
    "align": {"alignment_objective": ["mse", "cosine"]},
    "continual": {"alignment_batch_size": "many"},
    "parallel": {"max_words": "1.5"},
    "xsr": {"distances": "csls"},
    "distances": {"max_train_pairs": "-3"},
    "variants": {"a": {"freeze_layer": "front"}},
    "pos_translated": {"train_fil": {"hi": "x"}},
}


def grid(settings):
    tasks = ["nli", "ner", "pos", "qa", "xsr"]
    regimes = ["original", "adjusted", "adjusted+continual", "translate-train"]
    usual = {"parallel": {"parallel_file": {"hi": "pairs.tsv"}}, "distances": {}}
    return Grid(model_name_or_path="m", languages=["hi"], seeds=[1, 2], tasks=tasks, regimes=regimes,
                settings={name: dict(usual.get(name, {})) | settings.get(name, {}) for name in usual | settings})  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """By group of settings, what the script of each run says; all in one process."""
    asked, words, folder = [], [], tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        for group in [None, *WRONG]:
            patch.setattr(runner, "refusals", lambda commands: words.extend(commands) or [None] * len(commands))
            before, of = len(words), grid({group: WRONG[group]} if group else {})
            runner.check_commands(plan(of), folder)
            asked += [group] * (len(words) - before)
    said = {}
    for group, why in zip(asked, refusals(words)):
        said.setdefault(group, []).append(why)
    return said


def test_what_is_right_is_taken(found):
    assert set(found[None]) == {None}
    assert len(found[None]) >= 12


@pytest.mark.parametrize("group", WRONG)
def test_what_is_wrong_is_refused(found, group):
    settings = WRONG[group].get("a", WRONG[group])
    said = [why for why in found[group] if why]
    assert said
    assert all(next(iter(settings)) in why or "cosine" in why for why in said)


def test_arguments_that_contradict_each_other_are_refused():
    """Which each group of arguments by itself would take."""
    pairs, training = ["--language", "hi", "--parallel_file", "p.tsv"], ["--do_train", "--output_dir", "out"]
    continual = ["run_ner.py", *training, "--continual", *pairs]
    wrong = {
        "--links_file": [*continual, "--alignment_unit", "sentence", "--links_file", "p.links"],
        "--do_train": ["run_pos.py", "--do_eval", "--use_lora", "--output_dir", "out"],
        "--parallel_file": ["run_nli.py", *training, "--parallel_file", "p.tsv"],
        "--alignment_weight": ["run_align.py", *pairs, "--alignment_weight", "0", "--regularization_weight", "0"],
        "--validation_file": ["run_align.py", *pairs, "--do_train", "--do_eval"],
        "--freeze_embeddings": ["run_qa.py", *continual[1:], "--use_lora", "--freeze_embeddings", "true"],
    }
    said = refusals([[str(CODE / script), *words] for script, *words in [*wrong.values(), continual]])
    assert all(why and name in why for name, why in zip(wrong, said))
    assert said[-1] is None


GRIDS = [path for pattern in ("replicate*.yaml", "grids/*.yaml", "docs/*.yaml") for path in PROJECT.glob(pattern)]


@pytest.mark.parametrize(
    "words",
    [*([path] for path in GRIDS), [PROJECT / "grids" / "scripts.yaml", "--joint", "false"]],
    ids=lambda words: words[0].name + "-".join(words[1:]),
)
def test_the_grids_of_this_project_are_taken(run, monkeypatch, tmp_path, words):
    monkeypatch.setattr("data.sample_model.sample_model", lambda *_: "m")
    run(replicate.main, *words, "--seeds", 1, "--output_dir", tmp_path / "out", "--dry_run")


@pytest.mark.parametrize("dry", [["--dry_run"], []])
def test_nothing_is_begun(run, tmp_path, dry):
    words = ("--tasks", "ner", "--regimes", "original", "--seeds", 1, "--languages", "hi", "--model_name_or_path", "m")
    with pytest.raises(InputError, match="learning_rate"):
        run(replicate.main, "--output_dir", tmp_path / "out", *words, "--ner", json.dumps(WRONG["ner"]), *dry)
    assert not (tmp_path / "out").exists()


def test_a_script_is_asked_wherever_the_user_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    taken, refused = refusals([[str(CODE / "run_xsr.py"), "--model", "m", *more] for more in ([], ["--layer", "x"])])
    assert taken is None
    assert "--layer" in refused
    assert list(tmp_path.iterdir()) == []
