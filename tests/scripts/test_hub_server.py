"""The Hub on loopback, by the genuine client: what is pushed can be pulled, by those who may; faults arrive as such.

HF_HUB_DISABLE_XET=1 (in this process: the constant read from it) throughout: the client's Xet protocol, which it would
otherwise choose for uploads, cannot be served by a small server.
"""

import math
import os
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import close_session
from transformers import AutoModelForMaskedLM

from helpers import tiny
from helpers.hub_server import HubServer, hub_environment
from helpers.processes import run_process


TOKENS = {"ada": "hf_ada", "bob": "hf_bob", "carl": "hf_carl_may_only_read"}
NAME = "ada/model"
SMALL, LARGE = "config.json", "sub/model.safetensors"


@pytest.fixture
def hub(monkeypatch):
    """A server, and the client in this process allowed to speak with it."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    close_session()  # one made before might go through a proxy
    with HubServer() as server:
        for name, token in TOKENS.items():
            server.add_user(name, token, may_write="read" not in token)
        yield server
        close_session()
    assert 501 not in [logged.status for logged in server.requests], "the server itself failed"


@pytest.fixture
def waits(monkeypatch):
    """How long the client waited before it tried again; it does not really wait."""
    made = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", made.append)
    return made


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "pushed"
    (made / "sub").mkdir(parents=True)
    (made / SMALL).write_text('{"a": "é"}\n', encoding="utf-8")
    (made / LARGE).write_bytes(bytes(range(256)) * 1000)
    return made


def api(hub, user="ada"):
    return HfApi(endpoint=hub.endpoint, token=TOKENS.get(user, False))


def push(hub, folder, **options):
    api(hub).create_repo(NAME, exist_ok=True, private=options.pop("private", None))
    return api(hub).upload_folder(repo_id=NAME, folder_path=folder, **options)


def pull(hub, path, cache, user="bob", **options):
    options = {"endpoint": hub.endpoint, "token": TOKENS.get(user, False), "cache_dir": cache, **options}
    return Path(hf_hub_download(NAME, path, **options)).read_bytes()


def script(folder, code, environment):
    (folder / "script.py").write_text(code, encoding="utf-8")
    return run_process([folder / "script.py"], folder / "log", environment).split()


def test_what_one_pushes_another_pulls(hub, folder, tmp_path):
    commit = push(hub, folder, commit_message="Upload model")
    repository = hub.repositories["model", NAME]
    assert repository.contents() == {path: (folder / path).read_bytes() for path in (SMALL, LARGE)}
    assert {path: file.is_large for path, file in repository.commit().files.items() if path in (SMALL, LARGE)} == {
        SMALL: False,
        LARGE: True,
    }
    assert (commit.oid, repository.commit().title) == (repository.branches["main"], "Upload model")

    options = {"endpoint": hub.endpoint, "token": TOKENS["bob"]}
    snapshot = Path(snapshot_download(NAME, cache_dir=tmp_path / "bob", **options))
    assert snapshot.name == commit.oid
    assert {path: (snapshot / path).read_bytes() for path in (SMALL, LARGE)} == repository.contents()
    for user in ("bob", None):
        assert pull(hub, LARGE, tmp_path / f"{user}-alone", user) == (folder / LARGE).read_bytes()

    assert not any(logged.had_token for logged in hub.requests if logged.path.startswith("/lfs-"))
    assert hub.count("PUT", "/lfs-upload/") == hub.count("POST", "/lfs-verify$") == 1


def test_a_second_push_uploads_nothing(hub, folder):
    first, asked = push(hub, folder), len(hub.requests)
    assert push(hub, folder).oid == first.oid
    assert len(hub.repositories["model", NAME].commits) == 2  # with the one that a repository begins with
    assert not [logged for logged in hub.requests[asked:] if logged.method == "PUT" or "/commit/" in logged.path]

    (folder / SMALL).write_text("{}")
    assert push(hub, folder, delete_patterns="*.safetensors").oid != first.oid
    assert hub.count("PUT", "/lfs-upload/") == 1


def test_uploads_in_parts(hub, folder, waits):
    hub.part_size = 100_000
    hub.fail("PUT", "/lfs-upload/.*/2$", status=503)
    push(hub, folder)
    assert hub.repositories["model", NAME].contents()[LARGE] == (folder / LARGE).read_bytes()
    assert [hub.count("PUT", f"/{part}$") for part in (1, 2, 3, 4)] == [1, 2, 1, 0]


def test_what_the_hub_tells(hub, folder):
    commit = push(hub, folder)
    assert api(hub).whoami()["name"] == "ada"
    assert sorted(api(hub, "bob").list_repo_files(NAME)) == [".gitattributes", SMALL, LARGE]
    tree = {entry.path: entry for entry in api(hub, None).list_repo_tree(NAME, expand=True)}
    assert sorted(tree) == [".gitattributes", SMALL, "sub"]
    assert tree[SMALL].last_commit.oid == commit.oid
    inside, info = next(api(hub).list_repo_tree(NAME, "sub")), api(hub).model_info(NAME, files_metadata=True)
    assert (inside.path, inside.lfs.size) == (LARGE, 256_000)
    large = info.siblings[-1]
    assert (info.sha, info.private, large.rfilename, large.lfs.sha256) == (commit.oid, False, LARGE, inside.lfs.sha256)
    assert [found.path for found in api(hub).get_paths_info(NAME, ["sub", SMALL, "nothing"])] == ["sub", SMALL]

    for missing in ("additional_chat_templates", "हिन्दी"):
        with pytest.raises(EntryNotFoundError):
            list(api(hub).list_repo_tree(NAME, missing))


def test_a_data_set_and_the_end_of_a_repository(hub, folder):
    kind = {"repo_id": "rows", "repo_type": "dataset"}
    assert api(hub).create_repo(**kind) == f"{hub.endpoint}/datasets/ada/rows"
    kind["repo_id"] = "ada/rows"
    api(hub).upload_folder(folder_path=folder, **kind)
    assert SMALL in api(hub, "bob").list_repo_files(**kind)
    with pytest.raises(RepositoryNotFoundError):
        api(hub).model_info("ada/rows")
    api(hub).delete_repo(**kind)
    assert not hub.repositories


def test_revisions(hub, folder, tmp_path):
    old = push(hub, folder)
    api(hub).create_tag(NAME, tag="v1")
    api(hub).create_branch(NAME, branch="try/more")
    api(hub).create_branch(NAME, branch="try/more", exist_ok=True)
    (folder / SMALL).write_text("{}")
    push(hub, folder, revision="try/more")
    refs = api(hub).list_repo_refs(NAME)
    assert [ref.name for ref in refs.branches] == ["main", "try/more"]
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1", old.oid)]
    contents = [pull(hub, SMALL, tmp_path, revision=revision) for revision in ("try/more", "main", "v1", old.oid)]
    assert contents == [b"{}", *[old_content := '{"a": "é"}\n'.encode()] * 3]
    assert hub.repositories["model", NAME].contents("v1")[SMALL] == old_content

    with pytest.raises(RevisionNotFoundError):
        pull(hub, SMALL, tmp_path, revision="v2")
    with pytest.raises(EntryNotFoundError):
        pull(hub, "README.md", tmp_path)
    assert list(tmp_path.glob("models--*/.no_exist/*/README.md"))  # the client keeps that in mind
    with pytest.raises(HfHubHTTPError, match="412 Precondition Failed"):
        push(hub, folder, parent_commit="0" * 40)


def test_who_may_see_a_private_repository(hub, folder, tmp_path):
    push(hub, folder, private=True)
    assert pull(hub, SMALL, tmp_path / "ada", "ada")
    for user in ("bob", None):
        with pytest.raises(RepositoryNotFoundError):
            pull(hub, SMALL, tmp_path / "other", user)
        with pytest.raises(RepositoryNotFoundError):
            api(hub, user).model_info(NAME)
        with pytest.raises(RepositoryNotFoundError):
            api(hub, user).model_info("ada/nothing")
    hub.repositories["model", NAME].readers.add("bob")
    assert pull(hub, LARGE, tmp_path / "other", "bob")


def test_who_may_read_a_gated_repository(hub, folder, tmp_path):
    push(hub, folder)
    hub.repositories["model", NAME].gated = True
    assert api(hub, None).model_info(NAME).gated
    for user in ("bob", None):
        with pytest.raises(GatedRepoError):
            pull(hub, SMALL, tmp_path, user)
    hub.repositories["model", NAME].readers.add("bob")
    assert pull(hub, SMALL, tmp_path, "bob")


def test_who_may_write(hub, folder):
    api(hub).create_repo(NAME)
    with pytest.raises(HfHubHTTPError, match="409 Conflict"):
        api(hub).create_repo(NAME)
    for user, where in (("bob", NAME), ("carl", "carl/model")):
        with pytest.raises(HfHubHTTPError, match="403 Forbidden"):
            api(hub, user).create_repo(where)
    with pytest.raises(HfHubHTTPError, match="403 Forbidden"):
        api(hub, "bob").upload_folder(repo_id=NAME, folder_path=folder)
    with pytest.raises(RepositoryNotFoundError):  # as the client puts a 401 here
        api(hub, None).upload_folder(repo_id=NAME, folder_path=folder)
    api(hub, "bob").auth_check(NAME)
    with pytest.raises(HfHubHTTPError, match="403 Forbidden"):
        api(hub, "bob").auth_check(NAME, write=True)
    api(hub).auth_check(NAME, write=True)
    assert not hub.repositories["model", NAME].contents()


def test_a_wrong_token(hub, folder, tmp_path):
    push(hub, folder)
    wrong = HfApi(endpoint=hub.endpoint, token="hf_wrong")
    pull_wrongly = partial(pull, hub, SMALL, tmp_path, token="hf_wrong")
    for call in (wrong.whoami, partial(wrong.create_repo, "x"), partial(wrong.model_info, NAME), pull_wrongly):
        with pytest.raises(HfHubHTTPError) as caught:
            call()
        assert (type(caught.value), caught.value.response.status_code) == (HfHubHTTPError, 401)
    assert not any(token in str(hub.requests) for token in (*TOKENS.values(), "hf_wrong"))


@pytest.mark.parametrize("status", [401, 403, 404, 409, 412])
def test_refusals_end_a_push_at_once(hub, folder, waits, status):
    hub.fail("POST", "/commit/", status=status)
    with pytest.raises(HfHubHTTPError) as caught:
        push(hub, folder)
    assert (caught.value.response.status_code, waits, hub.count("POST", "/commit/")) == (status, [], 1)
    push(hub, folder)  # what was uploaded is not uploaded again
    assert hub.count("PUT", "/lfs-upload/") == 1


def test_the_client_does_not_try_again_to_create_and_to_commit(hub, folder, waits):
    for path in ("/repos/create", "/commit/"):
        for failure in ({"status": 500}, {"status": 429, "retry_after": 3}):
            hub.fail("POST", path, **failure)
            with pytest.raises(HfHubHTTPError) as caught:
                push(hub, folder)
            assert caught.value.response.status_code == failure["status"]
    assert waits == []
    push(hub, folder)


@pytest.mark.parametrize(
    ("failure", "waited"),
    [
        ({"status": 429, "retry_after": 3}, 4),  # as long as asked and a second
        ({"status": 503}, 1),
        ({"status": 500, "cut_after_bytes": 1000}, 1),  # half-way through the upload
        ({"cut_after_bytes": 1000}, 1),
        ({"cut_after_bytes": 0}, 1),
    ],
)
@pytest.mark.parametrize("path", ["/preupload/", "/lfs/objects/batch$", "/lfs-upload/", "/lfs-verify$"])
def test_the_client_tries_again_to_upload(hub, folder, waits, path, failure, waited):
    hub.fail(None, path, **failure)
    push(hub, folder)
    assert waits == [waited]
    assert hub.repositories["model", NAME].contents()[LARGE] == (folder / LARGE).read_bytes()
    found = [logged.status for logged in hub.requests if path.strip("$/") in logged.path]
    assert found == [failure.get("status"), 200]


def test_the_client_gives_an_upload_up(hub, folder, waits):
    hub.fail("PUT", "/lfs-upload/", status=500, cut_after_bytes=1000, times=math.inf)
    with pytest.raises(RuntimeError, match="Error while uploading") as caught:
        push(hub, folder)
    assert caught.value.__cause__.response.status_code == 500
    assert waits == [1, 2, 4, 8, 8]
    assert not hub.repositories["model", NAME].contents()


@pytest.mark.parametrize("path", [SMALL, LARGE])
def test_a_download_that_is_cut_is_resumed(hub, folder, tmp_path, monkeypatch, waits, path):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10)  # of a chunk that is not whole, the client keeps nothing
    push(hub, folder)
    of_file = "/lfs-download/" if path == LARGE else f"/resolve/.*{SMALL}"
    hub.fail("GET", of_file, cut_after_bytes=11)
    hub.fail("GET", of_file, cut_after_bytes=0)
    assert pull(hub, path, tmp_path) == (folder / path).read_bytes()
    assert [logged.status for logged in hub.requests if logged.method == "GET"] == [None, None, 206]
    assert len(waits) == 2


def test_a_truncated_download_is_noticed(hub, folder, tmp_path):
    push(hub, folder)
    hub.fail("GET", "/lfs-download/", truncate_to=1000)
    with pytest.raises(OSError, match="Consistency check failed"):
        pull(hub, LARGE, tmp_path)
    assert not list(tmp_path.glob("models--*/blobs/*"))
    assert pull(hub, LARGE, tmp_path) == (folder / LARGE).read_bytes()


def test_failing_requests_for_files(hub, folder, tmp_path, waits):
    push(hub, folder)
    hub.fail("HEAD", "/resolve/", status=429, retry_after=3, times=2)
    assert pull(hub, SMALL, tmp_path)
    assert waits == [4]  # the first failure only sent the client to its cache, where there was nothing

    hub.fail("HEAD", "/resolve/", status=500, times=math.inf)
    assert pull(hub, SMALL, tmp_path) == (folder / SMALL).read_bytes()  # from the cache
    with pytest.raises(LocalEntryNotFoundError):
        pull(hub, SMALL, tmp_path / "empty")
    assert waits[1:] == [1, 2, 4, 8, 8]


def test_the_hub_goes_away(hub, folder, tmp_path, waits):
    push(hub, folder)
    pull(hub, SMALL, tmp_path)
    hub.stop()
    assert pull(hub, SMALL, tmp_path) == (folder / SMALL).read_bytes()
    assert not waits
    with pytest.raises(LocalEntryNotFoundError):
        pull(hub, LARGE, tmp_path)


def test_a_download_that_fails(hub, folder, tmp_path, waits):
    push(hub, folder)
    hub.fail("GET", "/resolve/", status=500)
    with pytest.raises(HfHubHTTPError, match="500 Internal Server Error"):
        pull(hub, SMALL, tmp_path)
    hub.fail("GET", "/resolve/", status=429, retry_after=3)
    assert pull(hub, SMALL, tmp_path)
    assert waits == [4]


PUSH = """
import os, sys
from huggingface_hub import HfApi
name = HfApi().create_repo("aligned", private=True).repo_id
print(name, HfApi().upload_folder(repo_id=name, folder_path=os.environ["FOLDER"]).oid)
"""
PULL = """
from huggingface_hub import HfApi
from transformers import AutoModelForMaskedLM, AutoTokenizer
HfApi().create_repo("ada/aligned", exist_ok=True)  # somebody who may not write there: it exists, and that is enough
model, tokenizer = (kind.from_pretrained("ada/aligned") for kind in (AutoModelForMaskedLM, AutoTokenizer))
print(sum(weights.sum().item() for weights in model.parameters()), len(tokenizer))
"""


def test_one_script_pushes_and_another_pulls(hub, tmp_path):
    folder = tiny.checkpoint(tmp_path / "model")
    ada, bob = (hub_environment(hub, TOKENS[user], tmp_path / user) for user in ("ada", "bob"))
    name, commit = script(tmp_path, PUSH, {**ada, "FOLDER": folder})
    assert (name, commit) == ("ada/aligned", hub.repositories["model", "ada/aligned"].branches["main"])

    hub.repositories["model", "ada/aligned"].readers.add("bob")
    total, size = script(tmp_path, PULL, bob)
    expected = AutoModelForMaskedLM.from_pretrained(folder)
    assert float(total) == pytest.approx(sum(weights.sum().item() for weights in expected.parameters()))
    assert int(size) == len(tiny.tokenizer())
    assert os.listdir(tmp_path / "bob" / "hub" / "models--ada--aligned" / "snapshots") == [commit]
    assert [logged.had_token for logged in hub.requests] == [
        not logged.path.startswith("/lfs-") for logged in hub.requests
    ]


def test_nobody_is_logged_in_without_a_token(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_developer")
    environment = hub_environment(hub, None, tmp_path)
    assert "hf_of_the_developer" not in environment.values()
    assert environment["HF_HUB_OFFLINE"] == "0"
