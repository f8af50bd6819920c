"""Data sets on the Hub: what is fetched, and what is found again without a connection."""

import json
from math import inf

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from huggingface_hub import HfApi, constants

from helpers.hub_server import HubServer
from utils.core import data_sets
from utils.core.data_sets import SHORT_NAMES, load_split
from utils.core.errors import InputError


LANGUAGES, SPLITS = ("en", "hi"), ("train", "validation", "test")
FEATURES = Features({"premise": Value("string"), "label": ClassLabel(names=["neutral", "entailment"])})
ARGUMENTS = {"config": "--dataset_config_name", "split": "--split"}


def publish(hub, name, files):
    owner = name.split("/")[0]
    hub.add_user(owner, f"hf_{owner}")
    api = HfApi(endpoint=hub.endpoint, token=f"hf_{owner}")
    api.create_repo(name, repo_type="dataset")
    api.upload_folder(repo_id=name, repo_type="dataset", folder_path=files)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with a data set of two configurations and three splits, one of them in two files."""
    folder, card = tmp_path / "xnli", "---\nconfigs:\n"
    for language in LANGUAGES:
        card += f"- config_name: {language}\n  data_files:\n"
        for split in SPLITS:
            card += f"  - split: {split}\n    path: {language}/{split}-*\n"
            for shard in range(2 if split == "train" else 1):
                rows = {"premise": [f"{language} {split} {shard}"], "label": [shard]}
                (folder / language).mkdir(parents=True, exist_ok=True)
                Dataset.from_dict(rows, FEATURES).to_parquet(folder / language / f"{split}-{shard}.parquet")
    (folder / "README.md").write_text(card + "---\n")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between tries
    with HubServer() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        publish(hub, "facebook/xnli", folder)
        new_process()
        yield hub
    new_process()


def new_process():
    data_sets._fetch.cache_clear()
    data_sets._splits_in_card.cache_clear()


def load(tmp_path, language="hi", split="test", name="facebook/xnli", **options):
    new_process()
    return load_split(name, language, ["{language}"], [split], ARGUMENTS, cache_dir=str(tmp_path / "cache"), **options)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("split", SPLITS)
def test_only_the_files_of_the_split_are_fetched(hub, tmp_path, language, split):
    rows, config, found = load(tmp_path, language, split)
    assert (config, found) == (language, split)
    assert rows["premise"][:] == [f"{language} {split} {shard}" for shard in range(2 if split == "train" else 1)]
    assert rows.features == FEATURES
    # Large files are sent by another host, under their hashes.
    assert hub.count("GET", "lfs-download") == len(rows)


def test_a_second_run_asks_for_the_newest_commit_only(hub, tmp_path):
    load(tmp_path)
    before = len(hub.requests)
    load(tmp_path)
    assert len(hub.requests) == before + 1


@pytest.mark.parametrize("trouble", ["offline", "unreachable", 503, 429])
def test_what_was_read_once_is_read_without_the_hub(hub, tmp_path, monkeypatch, trouble):
    expected = [load(tmp_path, language)[0]["premise"][:] for language in LANGUAGES]
    before = len(hub.requests)
    if trouble == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif trouble == "unreachable":
        hub.stop()
    else:
        hub.fail(None, "", status=trouble, times=inf)
    assert [load(tmp_path, language)[0]["premise"][:] for language in LANGUAGES] == expected
    if trouble == "offline":
        assert len(hub.requests) == before
    for split in ("train", "validation"):  # not fetched before
        with pytest.raises(InputError, match="xnli") as error:
            load(tmp_path, "hi", split)
        assert ("HF_HUB_OFFLINE=1 is set: unset it" in str(error.value)) == (trouble == "offline")


def test_a_download_that_was_cut_off_is_not_read_as_a_whole(hub, tmp_path, monkeypatch):
    hub.fail("GET", "lfs-download", status=404, times=inf)
    with pytest.raises(InputError):
        load(tmp_path, split="train")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError):
        load(tmp_path, split="train")


def test_a_data_set_without_a_card(hub, tmp_path, monkeypatch):
    folder = tmp_path / "plain"
    folder.mkdir()
    for split in SPLITS:
        (folder / f"{split}.jsonl").write_text(json.dumps({"premise": split}) + "\n")
    publish(hub, "ada/plain", folder)
    for offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        rows, config, _ = load(tmp_path, name="ada/plain")
        assert (rows["premise"][:], config) == (["test"], "default")


def test_a_new_commit_is_seen(hub, tmp_path):
    load(tmp_path)
    folder = tmp_path / "new" / "hi"
    folder.mkdir(parents=True)
    Dataset.from_dict({"premise": ["new"], "label": [1]}, FEATURES).to_parquet(folder / "test-0.parquet")
    HfApi(endpoint=hub.endpoint, token="hf_facebook").upload_folder(
        repo_id="facebook/xnli", repo_type="dataset", folder_path=folder.parent
    )
    assert load(tmp_path)[0]["premise"][:] == ["new"]


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_short_names(hub, tmp_path, name):
    full = SHORT_NAMES[name]
    if full != "facebook/xnli":
        with pytest.raises(InputError):
            load(tmp_path, name=name)
        assert hub.count("GET", f"/{full}/")
    else:
        assert len(load(tmp_path, name=name)[0]) == 1


def test_a_folder_with_a_short_name_is_the_folder(hub, tmp_path, monkeypatch):
    folder = tmp_path / "squad"
    folder.mkdir()
    (folder / "test.jsonl").write_text('{"premise": "mine"}\n')
    monkeypatch.chdir(tmp_path)
    assert load(tmp_path, name="squad")[0]["premise"][:] == ["mine"]


@pytest.mark.parametrize("name", ["ada/none", "a b", "../x", "a/b/c", "none"])
def test_there_is_no_such_data_set(hub, tmp_path, name):
    with pytest.raises(InputError):
        load(tmp_path, name=name)


def test_private_and_gated_data_sets(hub, tmp_path):
    repository = hub.repositories["dataset", "facebook/xnli"]
    for attribute in ("private", "gated"):
        setattr(repository, attribute, True)
        with pytest.raises(InputError):
            load(tmp_path)
        assert len(load(tmp_path / attribute, token="hf_facebook")[0]) == 1
        setattr(repository, attribute, False)


def test_rows_are_streamed(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    rows, _, _ = load(tmp_path, split="train", streaming=True)
    assert [row["premise"] for row in rows] == ["hi train 0", "hi train 1"]
