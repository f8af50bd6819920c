"""The shortest commands, which rely on every default, with a Hub; then without it; and what they fetch."""

import json
from math import inf
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi

from helpers import tiny
from helpers.commands import whole_commands
from helpers.hub_data import publish_data
from helpers.hub_server import HubServer, hub_environment
from helpers.paths import DATA, PROJECT
from helpers.processes import run_process


MBERT = "google-bert/bert-base-multilingual-cased"
# Sizes only: everything else is a default.
QUICK = ("--max_steps", 1, "--per_device_train_batch_size", 2, "--report_to", "none", "--use_cpu")
XSR = ("--use_cpu", "--layers", -1)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with mBERT, a tiny one, and the default data sets."""
    folder = tmp_path_factory.mktemp("hub")
    with HubServer() as server:
        server.add_user("google-bert", "hf_google")
        api = HfApi(endpoint=server.endpoint, token="hf_google")
        tiny.checkpoint(folder / "mbert")
        tiny.pair_tokenizer().save_pretrained(folder / "mbert")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
            patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
            api.create_repo(MBERT)
            api.upload_folder(repo_id=MBERT, folder_path=folder / "mbert")
            publish_data(server, folder / "data")
        yield server


@pytest.fixture(scope="module")
def machine(hub, tmp_path_factory):
    """Runs scripts in one working directory, with one cache."""
    return Machine(hub, tmp_path_factory.mktemp("machine"))


class Machine:
    def __init__(self, hub, folder):
        self.hub, self.folder, self.n = hub, folder, 0

    def run(self, script, *words, **environment):
        self.n += 1
        variables = {**hub_environment(self.hub, None, self.folder / "home"), **environment}
        words = [PROJECT / f"{script}.py", *words]
        return run_process(words, self.folder / f"out{self.n}", variables, cwd=self.folder)

    def results(self, folder):
        return json.loads((self.folder / "runs" / folder / "all_results.json").read_text())


def card_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])


def data_fetched(hub, since=0):
    return [log.path for log in hub.requests[since:] if log.method == "GET" and "/lfs-download/datasets/" in log.path]


def test_from_a_language_to_a_result(hub, machine):
    said = machine.run("run_align", "--language", "hi", "--model", MBERT, "--max_train_pairs", 20, *QUICK)
    assert "runs/mbert-hi" in said.splitlines()[0]
    adjusted = machine.folder / "runs" / "mbert-hi"
    assert (adjusted / "model.safetensors").is_file()
    assert 'from_pretrained("runs/mbert-hi")' in (adjusted / "README.md").read_text(encoding="utf-8")
    commands = {
        "nli": ("run_nli", QUICK, {"en", "hi"}, ("eval", "predict")),
        "ner": ("run_ner", QUICK, {"en", "hi"}, ("eval", "predict")),
        "pos": ("run_pos", QUICK, {"en", "hi"}, ("eval", "predict")),
        "qa": ("run_qa", (*QUICK, "--max_seq_length", 60, "--doc_stride", 8, "--max_question_length", 24), {"en", "hi"},
               ("eval", "predict")),
    }  # fmt: skip
    for task, (script, quick, languages, prefixes) in commands.items():
        said = machine.run(script, "--model", "runs/mbert-hi", *quick)
        place = f"{task}-mbert-hi"
        assert f"runs/{place}" in said.splitlines()[0]
        assert "en hi" in said.splitlines()[0]
        assert ("google/xquad has no test split" in said) == (task == "qa")
        results = machine.results(place)
        for prefix in prefixes:
            found = {name.split("_")[1] for name in results if name.startswith(f"{prefix}_")}
            assert languages <= found
            assert not found & {"es", "ru", "vi"}
        assert card_of(machine.folder / "runs" / place)["base_model"]
    said = machine.run("run_xsr", "--model", "runs/mbert-hi", *XSR)
    results = machine.results("xsr-mbert-hi")
    assert {"hi-en", "en-hi"} == {name.split("_")[0] for name in results if name.endswith("accuracy")}

    # The same again, without the Hub: nothing is asked.
    before = len(hub.requests)
    again = ("--overwrite_output_dir", "--use_cpu")
    for script, quick in {"run_align": ("--language", "hi", "--model", MBERT, "--max_train_pairs", 20, *QUICK),
                          **{script: ("--model", "runs/mbert-hi", *quick) for script, quick, *_ in commands.values()},
                          "run_xsr": ("--model", "runs/mbert-hi", *XSR)}.items():  # fmt: skip
        machine.run(script, *quick, *again, HF_HUB_OFFLINE="1")
    assert len(hub.requests) == before


def test_without_adjustment_the_papers_languages_are_measured(hub, tmp_path):
    machine = Machine(hub, tmp_path)
    machine.run("run_xsr", *XSR)
    assert {name.split("_")[0] for name in machine.results("xsr-mbert") if name.endswith("accuracy")} == {
        f"{a}-{b}" for one in ("es", "ru", "vi", "hi") for a, b in ((one, "en"), ("en", one))
    }


def test_evaluation_fetches_no_training_data(hub, tmp_path):
    machine = Machine(hub, tmp_path)
    model = tiny.model("Bert", "ForSequenceClassification", num_labels=3)
    model.config.id2label = dict(enumerate(("entailment", "neutral", "contradiction")))
    model.config.label2id = {label: k for k, label in model.config.id2label.items()}
    model.save_pretrained(tmp_path / "tuned")
    tiny.pair_tokenizer().save_pretrained(tmp_path / "tuned")
    for switch, split in (("--do_predict", "test"), ("--do_eval", "validation")):
        before = len(hub.requests)
        machine.run("run_nli", "--model", "tuned", switch, "--use_cpu", "--output_dir", f"nli-{split}")
        # (A file is asked for by its name, and then sent by another host under its hash.)
        named = {log.path for log in hub.requests[before:] if "parquet" in log.path}
        assert {path.split("/")[-1].split("-")[0] for path in named} == {split}
        assert len(data_fetched(hub, before)) == 5


def test_languages_that_a_data_set_does_not_have_are_left_out(hub, tmp_path):
    machine = Machine(hub, tmp_path)
    model = tiny.model("Bert", "ForQuestionAnswering")
    model.save_pretrained(tmp_path / "tuned")
    tiny.pair_tokenizer().save_pretrained(tmp_path / "tuned")
    quick = ("--model", "tuned", "--max_seq_length", 60, "--doc_stride", 8, "--max_question_length", 24,
             "--use_cpu")  # fmt: skip
    mlqa = (
        "--eval_dataset_name",
        "google/xtreme",
        "--eval_dataset_config_name",
        "MLQA.{context_language}.{question_language}",
    )
    machine.run("run_qa", *quick, *mlqa, "--do_predict", "--output_dir", "of-mlqa")
    results = json.loads((tmp_path / "of-mlqa" / "all_results.json").read_text())
    assert {name.split("_")[1] for name in results if name.endswith("_f1")} - {"zero"} == {"en", "es", "vi", "hi"}
    machine.run("run_qa", *quick, "--eval_dataset_name", "tydiqa", "--do_eval", "--output_dir", "of-tydiqa")
    results = json.loads((tmp_path / "of-tydiqa" / "all_results.json").read_text())
    assert {name.split("_")[1] for name in results if name.endswith("_f1")} - {"zero"} == {"en", "ru"}


def test_a_hub_that_is_down_is_no_obstacle_once_all_is_there(hub, tmp_path):
    machine = Machine(hub, tmp_path)
    tiny.checkpoint(tmp_path / "encoder")  # (the libraries try each file of a model several times, and wait)
    how = ("--model", "encoder", "--eval_languages", "hi", *XSR)
    machine.run("run_xsr", *how, "--output_dir", "first")
    hub.fail(None, "", status=503, times=inf)
    try:
        machine.run("run_xsr", *how, "--output_dir", "second")
    finally:
        hub._faults.clear()
    first, second = (json.loads((tmp_path / name / "all_results.json").read_text()) for name in ("first", "second"))
    assert first == second
    rows = [json.loads(line) for line in (tmp_path / "first" / "predictions" / "hi-en.jsonl").read_text().splitlines()]
    assert not any(text.endswith("\n") for row in rows for text in row.values() if isinstance(text, str))


# What commands of the documentation are given besides their own arguments: sizes.
SIZES = {
    "run_align": ("--max_train_pairs", 20, *QUICK),
    "run_nli": QUICK,
    "run_xsr": ("--use_cpu",),
    "run_distances": ("--use_cpu", "--max_links", 20),
    "compare_runs": (),
}


def test_every_command_of_the_documentation_runs_with_the_hub_and_again_without_it(hub, tmp_path):
    machine = Machine(hub, tmp_path)
    pairs = (DATA / "parallel" / "hi.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    rows = [json.loads(line) for line in pairs]
    (tmp_path / "held-out.tsv").write_text("\n".join(f"{row['hi']}\t{row['en']}" for row in rows), encoding="utf-8")
    pages = [PROJECT / "README.md", *(PROJECT / "docs" / f"{name}.md" for name in ("fine_tune", "measure", "share"))]
    waiting, made = [], {MBERT}
    for words in (words for page in pages for words in whole_commands(page)):
        script = next((word.removesuffix(".py") for word in words if word.endswith(".py")), None)
        if script in SIZES:
            waiting.append((script, words[words.index(f"{script}.py") + 1 :]))
    outputs = {words[words.index("--output_dir") + 1] for _, words in waiting if "--output_dir" in words}
    commands = []
    while waiting:  # a command waits for the models that it names
        ready = next(one for one in waiting if not (outputs - made) & set(without_output(one[1])))
        waiting.remove(ready)
        commands.append(ready)
        made |= set(ready[1][ready[1].index("--output_dir") + 1 :][:1]) if "--output_dir" in ready[1] else set()
    assert len(commands) >= 10
    for script, words in commands:
        machine.run(script, *words, *SIZES[script], "--overwrite_output_dir")
    before = len(hub.requests)
    for script, words in commands:
        machine.run(script, *words, *SIZES[script], "--overwrite_output_dir", HF_HUB_OFFLINE="1")
    assert len(hub.requests) == before


def without_output(words):
    return [word for last, word in zip(["", *words], words) if last != "--output_dir"]
