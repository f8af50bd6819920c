"""A Hub on loopback: as much of the Hub's protocol as `huggingface_hub`'s own client needs to push and to pull.

    with HubServer() as hub:
        hub.add_user("ada", "hf_ada")
        api = HfApi(endpoint=hub.endpoint, token="hf_ada")  # or a script, with the environment of `hub_environment`
        api.create_repo("ada/model")
        api.upload_folder(repo_id="ada/model", folder_path=folder)
        hub.fail("GET", r"/resolve/.*config\\.json$", status=429, retry_after=3)  # for the next request like that
        assert hub.repositories["model", "ada/model"].contents()["config.json"] == …

Who may do what, and how it is refused, is the Hub's. As there, large files lie with a storage service on another host
that knows signed links only, and refuses requests that carry a token.

Not served: Xet (the client must be told HF_HUB_DISABLE_XET=1), pull requests, organizations, .gitignore, checks of a
card's YAML, pagination.
"""

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import ceil, inf
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit


# Of the files that the Hub stores with LFS whatever their size, those that one meets.
_LARGE_FILES = ("*.arrow", "*.bin", "*.gz", "*.model", "*.parquet", "*.pt", "*.safetensors", "*.zip", "*tfevents*")
_LARGE = 10_000_000
_DATE = "2026-01-01T00:00:00.000Z"
_NEW_FILES = {".gitattributes": "".join(f"{name} filter=lfs diff=lfs merge=lfs -text\n" for name in _LARGE_FILES)}


def hub_environment(server: "HubServer", token: str | None, home: Path) -> dict[str, str]:
    """The environment in which a script takes the server for the Hub.

    Args:
        server: the Hub.
        token: who runs the script; None for somebody who is not logged in.
        home: folder for the caches, one of its own for every "machine".
    """
    ours = ("HF_", "HUGGING", "TRANSFORMERS_OFFLINE", "TRANSFORMERS_CACHE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {
        "HF_ENDPOINT": server.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",  # a protocol of its own, too large to be served here
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_ETAG_TIMEOUT": "10",
        "HF_HUB_DOWNLOAD_TIMEOUT": "10",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
    return environment | ({"HF_TOKEN": token} if token else {})


class Logged(NamedTuple):
    """A request as it was answered; no tokens, no signatures."""

    method: str
    path: str
    status: int | None  # None: the connection was cut
    had_token: bool


@dataclass(frozen=True)
class User:
    """Somebody with a token."""

    name: str
    may_write: bool


@dataclass(frozen=True)
class File:
    """A file of a commit."""

    content: bytes
    is_large: bool  # stored with LFS

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def blob(self) -> bytes:
        """What git stores."""
        if not self.is_large:
            return self.content
        size = len(self.content)
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {size}\n".encode()

    @cached_property
    def blob_id(self) -> str:
        return _sha1(b"blob %d\0" % len(self.blob) + self.blob)

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_large else self.blob_id


@dataclass(frozen=True)
class Commit:
    """The state of a repository, by path."""

    id: str
    title: str
    files: dict[str, File]


@dataclass
class Repository:
    """A repository; `private`, `gated` and `readers` may be set while the server runs."""

    kind: str  # model, dataset, space
    id: str
    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)  # who may read it besides its owner, if it is private or gated
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)  # to ids of commits
    tags: dict[str, str] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)  # uploaded content by SHA-256, committed or not
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)  # of large content that is being uploaded

    @property
    def owner(self) -> str:
        return self.id.partition("/")[0]

    @property
    def path(self) -> str:
        """Of its page."""
        return f"/{self.id}" if self.kind == "model" else f"/{self.kind}s/{self.id}"

    def commit(self, revision: str = "main") -> Commit | None:
        """What a branch, a tag or an id means."""
        return self.commits.get(self.branches.get(revision) or self.tags.get(revision) or revision)

    def contents(self, revision: str = "main") -> dict[str, bytes]:
        """The files of a revision, without the .gitattributes that every repository begins with."""
        found = self.commit(revision)
        files = found.files if found else {}
        return {path: file.content for path, file in files.items() if path not in _NEW_FILES}

    def add_commit(self, branch: str, title: str, files: dict[str, File]) -> Commit:
        listing = sorted((path, file.etag) for path, file in files.items())
        made = Commit(_sha1(json.dumps([self.kind, self.id, len(self.commits), listing]).encode()), title, files)
        self.commits[made.id] = made
        self.branches[branch] = made.id
        return made


@dataclass
class _Fault:
    method: str | None = None
    path: str = ""
    status: int | None = None
    times: float = 1
    retry_after: int | None = None
    cut_after_bytes: int | None = None
    truncate_to: int | None = None


@dataclass
class _Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class _Refusal(Exception):
    """An answer that is an error, with the code by which the client knows which."""

    def __init__(self, status: int, message: str, code: str | None = None, **extra: str) -> None:
        in_header = message.encode("ascii", "replace").decode()
        headers = {"X-Error-Message": in_header, **({"X-Error-Code": code} if code else {}), **extra}
        self.answer = _json({"error": message}, status, headers)


@dataclass
class _Request:
    method: str
    query: dict[str, str]
    headers: Any
    body: bytes
    user: User | None
    # What its path names; which of them, the route says.
    repository: Repository | None = None
    revision: str = "main"
    path: str = ""
    oid: str = ""
    part: int = 0

    @cached_property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)

    @cached_property
    def commit(self) -> Commit:
        found = self.repository.commit(self.revision)
        if found is None:
            raise _Refusal(404, f"Invalid rev id: {self.revision}", "RevisionNotFound")
        return found


class _Route(NamedTuple):
    method: str
    pattern: re.Pattern
    access: str | None  # to the repository that the path names: see, read, write; signed: whoever has the link
    handler: Callable[["HubServer", _Request], _Answer]


_ROUTES: list[_Route] = []
_PLACES = {
    "API": "/api/KIND/REPOSITORY",
    "PAGE": "/(?:KIND/)?REPOSITORY",
    "KIND": "(?P<kind>models|datasets|spaces)",
    "REPOSITORY": r"(?P<id>(?:[^/]+/)?[^/]+)",
    "REVISION": r"(?P<revision>[^/]+)",
    "PATH": r"(?P<path>.+)",
    "OID": r"(?P<oid>[0-9a-f]{64})",
}


def _route(method: str, template: str, access: str | None = None) -> Callable:
    """Have a method of the server answer requests; the words of `_PLACES` in the path become fields of the request."""
    for place, pattern in _PLACES.items():
        template = template.replace(place, pattern)

    def register(handler: Callable) -> Callable:
        _ROUTES.append(_Route(method, re.compile(template), access, handler))
        return handler

    return register


class HubServer:
    """A Hub, from `with` on.

    Args:
        part_size: large files of more bytes than that are uploaded in parts (on the Hub, those of several GB).

    Attributes:
        repositories: by kind and id: `hub.repositories["model", "ada/model"]`.
        requests: all that were answered, in the order of their answers.
    """

    def __init__(self, part_size: int | None = None) -> None:
        self.part_size = part_size
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[Logged] = []
        self.connections: set[socket.socket] = set()
        self._users: dict[str, User] = {}
        self._faults: list[_Fault] = []
        self._key = secrets.token_bytes(16)
        self._lock = threading.RLock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Connection, self))
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"
        # To the client another host, to which no token must go.
        self._storage = f"http://localhost:{self._http.server_port}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Be out of reach, for connections that are open too."""
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def add_user(self, name: str, token: str, may_write: bool = True) -> None:
        """Let somebody log in; with `may_write=False` by a token for reading only."""
        self._users[token] = User(name, may_write)

    def fail(
        self,
        method: str | None,
        path: str,
        *,
        status: int | None = None,
        times: float = 1,
        retry_after: int | None = None,
        cut_after_bytes: int | None = None,
        truncate_to: int | None = None,
    ) -> None:
        """Have the next requests fail.

        Args:
            method: of the requests; None for any.
            path: regular expression, searched in their unquoted path.
            status: is answered, in place of what they ask for.
            times: how many fail; `math.inf` for all.
            retry_after: seconds that the answer asks to wait.
            cut_after_bytes: the connection ends after so many bytes of what is uploaded (then `status`, if given, is
                answered half-way), or, where nothing is uploaded, of what is downloaded (0: without any answer).
            truncate_to: what is downloaded ends after so many bytes, and claims to be whole.
        """
        self._faults.append(_Fault(method, path, status, times, retry_after, cut_after_bytes, truncate_to))

    def count(self, method: str, path: str) -> int:
        """How many requests there were to paths in which the regular expression is found."""
        return sum(logged.method == method and bool(re.search(path, logged.path)) for logged in self.requests)

    # What connections call.

    def next_fault(self, method: str, path: str) -> _Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and fault.method in (None, method) and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> _Answer:  # noqa: ANN401
        """What the Hub answers; an error of this server's own is 501, which the client does not try again."""
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        try:
            with self._lock:
                for route in _ROUTES:
                    if route.method == method.replace("HEAD", "GET") and (match := route.pattern.fullmatch(url.path)):
                        return self._handle(route, match, _Request(method, query, headers, body, None), url.path)
            raise _Refusal(404, "Sorry, we can't find the page you are looking for.")
        except _Refusal as refusal:
            return refusal.answer
        except Exception:
            return _json({"error": traceback.format_exc()}, 501)

    def _handle(self, route: _Route, match: re.Match, request: _Request, path: str) -> _Answer:
        places = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
        kind, id = places.pop("kind", "models").removesuffix("s"), places.pop("id", None)
        for name, value in places.items():
            setattr(request, name, int(value) if name == "part" else value)
        authorization = request.headers.get("Authorization")
        if route.access == "signed":
            if authorization:
                raise _Refusal(400, "Only one auth mechanism allowed: a signed link, or a token.")
            if not hmac.compare_digest(request.query.get("signature", ""), self._signature(path)):
                raise _Refusal(403, "The signature of the link is wrong.")
            request.repository = self.repositories[kind, id]
            return route.handler(self, request)
        if authorization:
            request.user = self._users.get(authorization.removeprefix("Bearer "))
            if request.user is None:
                raise _Refusal(401, "Invalid credentials in Authorization header")
        if route.access:
            request.repository = self._allowed(request.user, kind, id, route.access)
        return route.handler(self, request)

    def _allowed(self, user: User | None, kind: str, id: str, access: str) -> Repository:
        """The repository, or the refusal that this user gets."""
        repository = self.repositories.get((kind, id))
        is_reader = repository and user and user.name in {repository.owner, *repository.readers}
        # With this code, since the client takes a bare 401 for that only from https://.
        unknown = _Refusal(401, "Invalid username or password.", "RepoNotFound")
        if repository is None or (repository.private and not is_reader):
            raise _Refusal(404, "Repository not found", "RepoNotFound") if user else unknown
        if access == "write":
            if not user:
                raise unknown
            if user.name != repository.owner or not user.may_write:
                raise _Refusal(403, "You don't have the required permissions to write to this repository")
        if access == "read" and repository.gated and not is_reader:
            message = f"Access to {kind} {id} is restricted and you are not in the authorized list."
            raise _Refusal(403 if user else 401, message, "GatedRepo")
        return repository

    # Users and repositories.

    @_route("GET", "/api/whoami-v2")
    def _whoami(self, request: _Request) -> _Answer:
        if request.user is None:
            raise _Refusal(401, "Invalid username or password.")
        name, role = request.user.name, "write" if request.user.may_write else "read"
        token = {"displayName": "test", "role": role}
        auth = {"type": "access_token", "accessToken": token}
        return _json({"type": "user", "id": name, "name": name, "fullname": name, "orgs": [], "auth": auth})

    @_route("POST", "/api/repos/create")
    def _create(self, request: _Request) -> _Answer:
        asked = request.json
        if request.user is None:
            raise _Refusal(401, "Invalid username or password.")
        owner, kind = asked.get("organization") or request.user.name, asked.get("type", "model")
        if owner != request.user.name or not request.user.may_write:
            raise _Refusal(403, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
        made = Repository(kind, f"{owner}/{asked['name']}", private=asked.get("visibility") == "private")
        found = {"name": made.id, "url": self.endpoint + made.path}
        if (kind, made.id) in self.repositories:
            return _json(found | {"error": f"You already created this {kind} repo"}, 409)
        files = {path: File(content.encode(), is_large=False) for path, content in _NEW_FILES.items()}
        made.add_commit("main", "initial commit", files)
        self.repositories[kind, made.id] = made
        return _json(found)

    @_route("DELETE", "/api/repos/delete")
    def _delete(self, request: _Request) -> _Answer:
        asked = request.json
        owner = asked.get("organization") or (request.user.name if request.user else "")
        gone = self._allowed(request.user, asked.get("type", "model"), f"{owner}/{asked['name']}", "write")
        del self.repositories[gone.kind, gone.id]
        return _Answer()

    @_route("GET", "API", "see")
    @_route("GET", "API/revision/REVISION", "see")
    def _info(self, request: _Request) -> _Answer:
        repository, files = request.repository, request.commit.files
        siblings = [{"rfilename": path} for path in sorted(files)]
        if request.query.get("blobs"):
            for sibling in siblings:
                file = files[sibling["rfilename"]]
                sibling |= {"size": len(file.content), "blobId": file.blob_id}
                if file.is_large:
                    sibling["lfs"] = {"sha256": file.sha256, "size": len(file.content), "pointerSize": len(file.blob)}
        return _json({
            "_id": _sha1(repository.id.encode())[:24], "id": repository.id, "author": repository.owner,
            "sha": request.commit.id, "createdAt": _DATE, "lastModified": _DATE, "private": repository.private,
            "gated": "manual" if repository.gated else False, "disabled": False, "downloads": 0, "likes": 0, "tags": [],
            "siblings": siblings,
        })  # fmt: skip

    @_route("GET", "API/auth-check", "read")
    @_route("GET", "API/auth-check/write", "write")
    def _check(self, request: _Request) -> _Answer:
        return _json({})

    @_route("GET", "API/refs", "see")
    def _refs(self, request: _Request) -> _Answer:
        def listed(refs: dict[str, str], folder: str) -> list[dict[str, str]]:
            return [{"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": id} for name, id in refs.items()]

        repository = request.repository
        branches, tags = listed(repository.branches, "heads"), listed(repository.tags, "tags")
        return _json({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})

    @_route("POST", "API/branch/REVISION", "write")
    def _create_branch(self, request: _Request) -> _Answer:
        start = request.json.get("startingPoint") or "main"
        return self._add_ref(request.repository.branches, request.revision, start, request)

    @_route("POST", "API/tag/REVISION", "write")
    def _create_tag(self, request: _Request) -> _Answer:
        return self._add_ref(request.repository.tags, request.json["tag"], request.revision, request)

    def _add_ref(self, refs: dict[str, str], name: str, revision: str, request: _Request) -> _Answer:
        if name in refs:
            raise _Refusal(409, f"Reference already exists: {name}")
        request.revision = revision
        refs[name] = request.commit.id
        return _json({})

    # Files.

    @_route("GET", "API/tree/REVISION(?:/PATH)?", "see")
    def _tree(self, request: _Request) -> _Answer:
        entries = _entries(request.commit, with_commits=request.query.get("expand") == "true")
        folder = PurePosixPath(request.path or ".")
        inside = [entry for entry in entries if folder in PurePosixPath(entry["path"]).parents]
        if request.path and not inside:
            raise _Refusal(404, f"{request.path} does not exist on {request.revision}", "EntryNotFound")
        if request.query.get("recursive") != "true":
            inside = [entry for entry in inside if PurePosixPath(entry["path"]).parent == folder]
        return _json(inside)

    @_route("POST", "API/paths-info/REVISION", "see")
    def _paths_info(self, request: _Request) -> _Answer:
        asked = parse_qs(request.body.decode())
        entries = _entries(request.commit, with_commits=asked.get("expand") == ["true"])
        return _json([entry for entry in entries if entry["path"] in asked["paths"]])

    @_route("GET", "PAGE/resolve/REVISION/PATH", "read")
    def _resolve(self, request: _Request) -> _Answer:
        headers = {"X-Repo-Commit": request.commit.id}
        file = request.commit.files.get(request.path)
        if file is None:
            raise _Refusal(404, "Entry not found", "EntryNotFound", **headers)
        headers["ETag"] = f'"{file.etag}"'
        if not file.is_large:
            return _ranged(file.content, headers, request.headers.get("Range"))
        headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(len(file.content))}
        headers["Location"] = self._link("lfs-download", request.repository, file.sha256)
        return _Answer(302, headers=headers)

    @_route("GET", "/lfs-download/KIND/REPOSITORY/OID", "signed")
    def _download(self, request: _Request) -> _Answer:
        headers = {"ETag": f'"{request.oid}"'}
        return _ranged(request.repository.large[request.oid], headers, request.headers.get("Range"))

    # Uploads, in the order of their requests.

    @_route("POST", "/api/validate-yaml")
    def _validate_card(self, request: _Request) -> _Answer:
        has_metadata = request.json["content"].startswith("---\n")
        warnings = [] if has_metadata else [{"message": "empty or missing yaml metadata in repo card"}]
        return _json({"errors": [], "warnings": warnings})

    @_route("POST", "API/preupload/REVISION", "write")
    def _preupload(self, request: _Request) -> _Answer:
        if "create_pr" in request.query:
            raise _Refusal(501, "No pull requests here.")
        plan = []
        for file in request.json["files"]:
            path, sample = file["path"], base64.b64decode(file["sample"])
            named = any(fnmatch(PurePosixPath(path).name, pattern) for pattern in _LARGE_FILES)
            is_large = named or file["size"] > _LARGE or b"\0" in sample
            plan.append({"path": path, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False})
            if there := request.commit.files.get(path):
                plan[-1]["oid"] = there.etag
        return _json({"files": plan})

    @_route("POST", r"PAGE\.git/info/lfs/objects/batch", "write")
    def _lfs_batch(self, request: _Request) -> _Answer:
        objects, repository = [], request.repository
        in_parts = {
            thing["oid"]: thing["size"]
            for thing in request.json["objects"]
            if self.part_size and thing["size"] > self.part_size and "multipart" in request.json["transfers"]
        }
        for thing in request.json["objects"]:
            oid, size = thing["oid"], thing["size"]
            objects.append({"oid": oid, "size": size})
            if oid in repository.large:
                continue
            upload = {"href": self._link("lfs-upload", repository, oid), "header": {}}
            if oid in in_parts:
                parts = range(1, ceil(size / self.part_size) + 1)
                links = {f"{part}": self._link("lfs-upload", repository, oid, f"/{part}") for part in parts}
                upload["header"] = {"chunk_size": str(self.part_size), **links}
            # On the Hub itself, with the user's token.
            verify = {"href": f"{self.endpoint}/api/{repository.kind}s/{repository.id}/lfs-verify", "header": {}}
            objects[-1]["actions"] = {"upload": upload, "verify": verify}
        return _json({"transfer": "multipart" if in_parts else "basic", "objects": objects})

    @_route("PUT", "/lfs-upload/KIND/REPOSITORY/OID", "signed")
    def _upload(self, request: _Request) -> _Answer:
        return self._keep(request, request.body)

    @_route("PUT", "/lfs-upload/KIND/REPOSITORY/OID/(?P<part>[0-9]+)", "signed")
    def _upload_part(self, request: _Request) -> _Answer:
        request.repository.parts[request.oid, request.part] = request.body
        return _Answer(headers={"ETag": _part_etag(request.body)})

    @_route("POST", "/lfs-upload/KIND/REPOSITORY/OID", "signed")
    def _join_parts(self, request: _Request) -> _Answer:
        numbers = [part["partNumber"] for part in request.json["parts"]]
        parts = [request.repository.parts.pop((request.oid, number)) for number in numbers]
        if [part["etag"] for part in request.json["parts"]] != [_part_etag(part) for part in parts]:
            raise _Refusal(400, "One or more of the specified parts could not be found.")
        return self._keep(request, b"".join(parts))

    def _keep(self, request: _Request, content: bytes) -> _Answer:
        if hashlib.sha256(content).hexdigest() != request.oid:
            raise _Refusal(400, "The content is not what was announced.")
        request.repository.large[request.oid] = content
        return _Answer(headers={"ETag": f'"{request.oid}"'})

    @_route("POST", "API/lfs-verify", "write")
    def _verify(self, request: _Request) -> _Answer:
        if len(request.repository.large.get(request.json["oid"], b"")) != request.json["size"]:
            raise _Refusal(404, "The object was not uploaded.")
        return _json({})

    @_route("POST", "API/commit/REVISION", "write")
    def _commit(self, request: _Request) -> _Answer:
        repository, title = request.repository, ""
        files = dict(request.commit.files)
        if request.revision not in repository.branches:
            raise _Refusal(400, f"{request.revision} is no branch.")
        for line in request.body.splitlines():
            key, value = (change := json.loads(line))["key"], change["value"]
            if key == "header":
                title = value["summary"]
                if value.get("parentCommit", request.commit.id) != request.commit.id:
                    raise _Refusal(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), is_large=False)
            elif key == "lfsFile":
                if value["oid"] not in repository.large:
                    raise _Refusal(400, f"LFS pointer of {value['path']} pointed to a file that does not exist.")
                files[value["path"]] = File(repository.large[value["oid"]], is_large=True)
            else:
                whole = value["path"].rstrip("/") + "/" if key == "deletedFolder" else None
                gone = [path for path in files if (path.startswith(whole) if whole else path == value["path"])]
                if not gone:
                    raise _Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
                for path in gone:
                    del files[path]
        made = repository.add_commit(request.revision, title, files)
        url = f"{self.endpoint}{repository.path}/commit/{made.id}"
        return _json({"success": True, "commitOid": made.id, "commitUrl": url, "hookOutput": ""})

    def _link(self, service: str, repository: Repository, oid: str, part: str = "") -> str:
        path = f"/{service}/{repository.kind}s/{quote(repository.id)}/{oid}{part}"
        return f"{self._storage}{path}?signature={self._signature(path)}"

    def _signature(self, path: str) -> str:
        return hmac.new(self._key, path.encode(), "sha256").hexdigest()


class _Connection(BaseHTTPRequestHandler):
    """A connection of a client: HTTP, and the faults in it."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together: no waiting for acknowledgements in between

    def __init__(self, hub: HubServer, *connection: Any) -> None:  # noqa: ANN401
        self.hub = hub
        super().__init__(*connection)

    def handle(self) -> None:
        self.hub.connections.add(self.connection)
        with suppress(ConnectionError):  # the client may leave when it likes
            super().handle()
        self.hub.connections.discard(self.connection)

    def _serve(self) -> None:
        path, length = unquote(urlsplit(self.path).path), int(self.headers.get("Content-Length", 0))
        fault = self.hub.next_fault(self.command, path) or _Fault()
        cut = inf if fault.cut_after_bytes is None else fault.cut_after_bytes
        is_upload = length > 0
        body = self.rfile.read(int(min(cut, length)))

        if fault.status is not None:
            extra = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            answer = _Refusal(fault.status, "This was to fail.", **extra).answer
        elif cut < inf and is_upload:
            answer = None
        else:
            answer = self.hub.answer(self.command, self.path, self.headers, body)
            answer.body = answer.body[: fault.truncate_to]

        self.close_connection = self.close_connection or cut < inf
        is_cut = answer is None or (cut < inf and not is_upload)
        status = None if is_cut else answer.status
        self.hub.requests.append(Logged(self.command, path, status, "Authorization" in self.headers))
        if answer is None or (is_cut and cut == 0):
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection and not is_cut:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: int(cut)] if is_cut else answer.body)
        self.wfile.flush()
        # Were the connection closed on what still comes in, the client might lose the answer.
        self.rfile.read(length - len(body))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal: the server has its own log."""


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> _Answer:
    return _Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def _ranged(content: bytes, headers: dict[str, str], asked: str | None) -> _Answer:
    """Content, or the range of it that the client asks for to resume a download."""
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
    if not asked:
        return _Answer(200, content, headers)
    first, last = re.fullmatch(r"bytes=(\d*)-(\d*)", asked).groups()
    start = int(first) if first else max(len(content) - int(last), 0)
    end = min(int(last) + 1, len(content)) if first and last else len(content)
    if start >= len(content):
        return _Answer(416, headers=headers | {"Content-Range": f"bytes */{len(content)}"})
    return _Answer(206, content[start:end], headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"})


def _entries(commit: Commit, with_commits: bool) -> Iterator[dict[str, Any]]:
    """Files and folders, as the Hub lists them."""
    more = {"lastCommit": {"id": commit.id, "title": commit.title, "date": _DATE}} if with_commits else {}
    parents = {str(folder) for path in commit.files for folder in PurePosixPath(path).parents}
    for path in sorted(parents - {"."}):
        yield {"type": "directory", "oid": _sha1(f"{commit.id}/{path}".encode()), "size": 0, "path": path, **more}
    for path, file in sorted(commit.files.items()):
        size = len(file.content)
        large = {"lfs": {"oid": file.sha256, "size": size, "pointerSize": len(file.blob)}} if file.is_large else {}
        yield {"type": "file", "oid": file.blob_id, "size": size, "path": path, **large, **more}


def _part_etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
