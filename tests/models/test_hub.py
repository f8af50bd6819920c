"""Names, pushes and their faults, against a Hub on loopback that the genuine client speaks to (tests/helpers/hub_server.py)."""

import json
import math
import os
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard, constants
from huggingface_hub.utils import close_session

import run_nli
from helpers import tiny
from helpers.hub_server import HubServer, hub_environment
from helpers.paths import PROJECT
from helpers.processes import run_process
from utils.core.errors import InputError
from utils.models import hub as hub_module
from utils.models.encoders import layout_of, load_encoder
from utils.models.hub import find_model
from utils.training.sharing import check_push, push


DATA = PROJECT / "data"
TOKENS = {"ada": "hf_ada_secret", "bob": "hf_bob_secret"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A server that this process takes for the Hub, with ada logged in."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # The client's own protocol for uploads (Xet) cannot be served by a small server.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_TOKEN", TOKENS["ada"])
    close_session()
    hub_module._user.cache_clear()
    with HubServer() as server:
        for name, token in TOKENS.items():
            server.add_user(name, token)
        for module in list(sys.modules.values()):  # where the client keeps the address it was imported with
            if getattr(module, "__name__", "").startswith("huggingface_hub") and hasattr(module, "ENDPOINT"):
                monkeypatch.setattr(module, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield server
        close_session()
    hub_module._user.cache_clear()


def api(hub, user="ada"):
    return HfApi(endpoint=hub.endpoint, token=TOKENS[user])


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "encoder"
    tiny.model().save_pretrained(folder)
    tiny.pair_tokenizer().save_pretrained(folder)
    return folder


def publish(hub, folder, name, user="ada", **options):
    api(hub, user).create_repo(name, **options)
    api(hub, user).upload_folder(repo_id=name, folder_path=folder)


# --- Names ---


def test_a_folder_comes_first(hub, model, monkeypatch, tmp_path):
    publish(hub, model, "ada/encoder")
    monkeypatch.chdir(tmp_path)
    assert find_model("encoder") == "encoder"
    assert hub.count("GET", "resolve") == 0


def test_a_bare_name_is_the_user_s_own(hub, model, monkeypatch, tmp_path):
    publish(hub, model, "ada/mine", private=True)
    publish(hub, model, "bob/mine", "bob")
    assert find_model("mine") == "ada/mine"
    assert find_model("bob/mine") == "bob/mine"
    hub_module._user.cache_clear()
    assert find_model("mine", token=TOKENS["bob"]) == "bob/mine"
    # On a node without connection: what is in the cache, if there is but one of that name.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub_module._user.cache_clear()
    assert find_model("ada/mine") == "ada/mine"
    assert find_model("mine") in ("ada/mine", "bob/mine")
    with pytest.raises(InputError, match=r"the repository ada/other \(not in the cache.*HF_HUB_OFFLINE"):
        find_model("ada/other")


def test_what_was_tried_is_told(hub, model):
    publish(hub, model, "bob/private", "bob", private=True)
    publish(hub, model, "bob/gated", "bob")
    hub.repositories["model", "bob/gated"].gated = "manual"
    publish(hub, model, "bob/open", "bob")
    for name, message in {
        "nowhere": r"Tried: a folder nowhere \(there is none\); the repository nowhere \(not on the Hub.*the repository ada/nowhere",
        "bob/private": r"the repository bob/private \(not on the Hub, or private: `hf auth login`",
        "bob/gated": rf"gated: ask for access at {hub.endpoint}/bob/gated",
        "no such name": "not a valid name of a repository",
    }.items():
        with pytest.raises(InputError, match=message):
            find_model(name)
    with pytest.raises(InputError, match="revision v7"):
        find_model("bob/open", "v7")
    hub.fail("HEAD", "resolve", status=500, times=math.inf)
    with pytest.raises(InputError, match="not in the cache, and the Hub cannot be reached|the Hub answers 500"):
        find_model("bob/open")


def test_offline_is_said_to_be_the_reason(hub, model, monkeypatch, tmp_path):
    publish(hub, model, "bob/open", "bob")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    training = run_nli.NliTrainingArguments(output_dir=str(tmp_path / "mine"), push_to_hub=True, use_cpu=True)
    for refused in (lambda: find_model("bob/open"), lambda: load_encoder("bob/open"), lambda: check_push(training),
                    lambda: push(model, "bob/open")):  # fmt: skip
        with pytest.raises(InputError, match="HF_HUB_OFFLINE=1 is set.* unset it") as error:
            refused()
        assert "hf auth login" not in str(error.value)
        assert "…" not in str(error.value)  # (nothing is cut off)


def test_a_repository_without_a_model(hub, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("nothing")
    publish(hub, tmp_path / "notes", "ada/notes")
    with pytest.raises(InputError, match="it holds no model"):
        find_model("ada/notes")


# --- Pushing ---


FAULTS = {
    "401 to the commit": ("POST", "/commit/", {"status": 401}),
    "403 to the commit": ("POST", "/commit/", {"status": 403}),
    "404 to the commit": ("POST", "/commit/", {"status": 404}),
    "409 to the commit": ("POST", "/commit/", {"status": 409}),
    "429 to the commit": ("POST", "/commit/", {"status": 429, "retry_after": 5}),
    "500 half-way through an upload": ("PUT", "/lfs-upload/", {"status": 500, "cut_after_bytes": 1000}),
    "a connection cut": ("PUT", "/lfs-upload/", {"cut_after_bytes": 1000}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_push_that_fails_loses_nothing_and_can_be_repeated(hub, model, fault):
    method, path, how = FAULTS[fault]
    before = {file.name: file.read_bytes() for file in model.iterdir()}
    api(hub).create_repo("ada/model")
    hub.fail(method, path, times=math.inf, **how)
    with pytest.raises(
        InputError, match=rf"The model is whole, .* push it later with: hf upload ada/model {model} \. "
    ) as error:
        push(model, "ada/model")
    assert not any(token in str(error.value) for token in TOKENS.values())
    assert {file.name: file.read_bytes() for file in model.iterdir() if file.is_file()} == before
    hub._faults.clear()
    push(model, "ada/model")
    assert hub.repositories["model", "ada/model"].contents()["model.safetensors"] == before["model.safetensors"]
    uploads = hub.count("PUT", "/lfs-upload/")
    push(model, "ada/model")  # twice is harmless
    assert hub.count("PUT", "/lfs-upload/") == uploads


def test_a_passing_fault_is_not_even_noticed(hub, model):
    api(hub).create_repo("ada/model")
    hub.fail("PUT", "/lfs-upload/", status=500)
    push(model, "ada/model")
    assert "model.safetensors" in hub.repositories["model", "ada/model"].contents()


def test_the_repository_is_made_before_the_work(hub, tmp_path, monkeypatch):
    training = run_nli.NliTrainingArguments(
        output_dir=str(tmp_path / "mine"), push_to_hub=True, hub_private_repo=True, use_cpu=True
    )
    check_push(training)
    check_push(training)  # there already: fine
    assert hub.repositories["model", "ada/mine"].private
    api(hub, "bob").create_repo("bob/there-already")
    for name in ("bob/not-there", "bob/there-already"):
        training.hub_model_id = name
        with pytest.raises(InputError, match=f"could not be pushed to {name}"):
            check_push(training)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong_secret")
    training.hub_model_id = None
    with pytest.raises(InputError, match="finished model could not be pushed to mine .*hf auth login") as error:
        check_push(training)
    assert "hf_wrong_secret" not in str(error.value)


# --- Downloading ---


@pytest.mark.parametrize("fault", [{"truncate_to": 1000}, {"cut_after_bytes": 1000}, {"status": 500}])
def test_a_truncated_download_is_no_model_and_can_be_repeated(hub, model, fault):
    publish(hub, model, "bob/model", "bob")
    hub.fail("GET", "/lfs-download/", times=math.inf, **fault)
    with pytest.raises(InputError, match="The model bob/model could not be downloaded .*run the same command again"):
        load_encoder("bob/model")
    hub._faults.clear()
    one, other = load_encoder("bob/model"), load_encoder(str(model))
    for name, parameter in one.named_parameters():
        assert name in layout_of(one).missing or parameter.equal(other.get_parameter(name))


# --- A user's day ---


@pytest.mark.slow
@pytest.mark.parametrize("lora", [(), ("--use_lora",)], ids=["models", "adapters"])
def test_models_travel_from_script_to_script(tmp_path, model, lora):
    """Adjust and push; fine-tune on another machine by its bare name, and push; a colleague retrieves; then offline."""
    weights = "adapter_model.safetensors" if lora else "model.safetensors"
    (tmp_path / "words.txt").write_text("और and\nमें in\nहै is\nने the\nसे from\nका of\nको to\n", encoding="utf-8")
    quick = ("--use_cpu", "--disable_tqdm", "true", "--max_steps", 2, *lora)
    with HubServer() as server:
        for name, token in TOKENS.items():
            server.add_user(name, token)

        def script(machine, user, *words, offline=False):
            environment = hub_environment(server, TOKENS.get(user), tmp_path / machine) | {"OMP_NUM_THREADS": "1"}
            environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
            (tmp_path / machine).mkdir(exist_ok=True)
            printed = run_process(words, tmp_path / "log", environment, tmp_path / machine)
            assert not any(secret in printed for secret in TOKENS.values())

        adjust = (PROJECT / "run_align.py", "--model", model, "--language", "hi", "--parallel_dataset", DATA / "parallel", "--aligner",
                  "dictionary", "--dictionary_file", tmp_path / "words.txt", *quick)  # fmt: skip
        script(
            "laptop",
            "ada",
            *adjust,
            "--output_dir",
            "aligned-tiny-hi",
            "--push_to_hub",
            "--hub_strategy",
            "every_save",
        )
        nli = (PROJECT / "run_nli.py", "--model", "aligned-tiny-hi", "--dataset_name", DATA / "nli", "--do_train", "--do_eval",
               "--eval_languages", "en", "hi", *quick)  # fmt: skip
        script(
            "cluster",
            "ada",
            *nli,
            "--output_dir",
            "nli-tiny-hi",
            "--push_to_hub",
            "--hub_private_repo",
            "true",
        )
        xsr = (
            PROJECT / "run_xsr.py",
            "--eval_languages",
            "hi",
            "--dataset_name",
            DATA / "xsr",
            "--use_cpu",
            "--max_samples",
            8,
        )
        script("office", "bob", *xsr, "--model", "ada/aligned-tiny-hi", "--output_dir", "xsr")
        n_requests = len(server.requests)
        script("cluster", None, *nli, "--output_dir", "again", offline=True)
        script("office", None, *xsr, "--model", "aligned-tiny-hi", "--output_dir", "again", offline=True)
        measured = (
            "--model",
            "nli-tiny-hi",
            "--dataset_name",
            DATA / "nli",
            "--do_eval",
            "--eval_languages",
            "hi",
            "--use_cpu",
        )
        script("cluster", None, PROJECT / "run_nli.py", *measured, "--output_dir", "measured", offline=True)
        assert len(server.requests) == n_requests
        pushed = {name: repository.contents() for (_, name), repository in server.repositories.items()}
        private = {name: repository.private for (_, name), repository in server.repositories.items()}
    assert private == {"ada/aligned-tiny-hi": False, "ada/nli-tiny-hi": True}
    assert not any(
        secret.encode() in content
        for files in pushed.values()
        for content in files.values()
        for secret in TOKENS.values()
    )
    assert not any(path.startswith("checkpoint-") for files in pushed.values() for path in files)
    card = ModelCard(pushed["ada/nli-tiny-hi"]["README.md"].decode())
    assert card.data.base_model == "ada/aligned-tiny-hi"
    assert {result.dataset_config for result in card.data.eval_results} == {"en", "hi"}
    record = json.loads(pushed["ada/nli-tiny-hi"]["run.json"])
    assert record["base_model"] == "ada/aligned-tiny-hi"
    assert len(record["base_model_revision"]) == 40
    assert os.path.exists(tmp_path / "cluster" / "again" / weights)
    # Only safetensors: no pickle, and no whole model where an adapter is enough.
    assert all(
        {path for path in files if path.endswith((".safetensors", ".bin", ".pt"))} == {weights}
        for files in pushed.values()
    )
