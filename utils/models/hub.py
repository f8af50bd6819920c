"""Names of models: which folder or Hub repository a name refers to."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, count
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, errors, hf_hub_download, try_to_load_from_cache

from utils.core.arguments import arg
from utils.core.errors import InputError
from utils.core.hub import hub_problem
from utils.models.files import MARKS
from utils.models.lineage import lineage


def find_model(name: str, revision: str = "main", cache_dir: str | None = None, token: str | None = None) -> str:
    """The folder, or the full id of the Hub repository, that a model's name refers to.

    A local folder of that name, else a repository on the Hub, else (for a bare name such as `aligned-mbert-hi`) the
    logged-in user's repository. Without connection, or with `HF_HUB_OFFLINE=1`, repositories in the cache are found.

    Raises:
        InputError: if there is no such model; the message lists every place that was tried, and the reason.
    """
    if os.path.isdir(name):
        return name
    tried = [f"a folder {name} (there is none)"]
    for candidate in (name, *_own_repositories(name, cache_dir, token)):
        problem = _problem_with(candidate, revision, cache_dir, token)
        if problem is None:
            return candidate
        tried.append(f"the repository {candidate} ({problem})")
    raise InputError(f"There is no model {name}. Tried: {'; '.join(tried)}.")


def _problem_with(repository: str, revision: str, cache_dir: str | None, token: str | None) -> str | None:
    """Why a repository cannot be used; None if it can."""
    problem = None
    for mark in MARKS:
        try:
            hf_hub_download(repository, mark, revision=revision, cache_dir=cache_dir, token=token)
            return None
        except errors.LocalEntryNotFoundError as error:
            problem = hub_problem(error, repository, revision)
        except errors.EntryNotFoundError:
            problem = f"it holds no model: neither {' nor '.join(MARKS)}"
        except (errors.HfHubHTTPError, errors.HFValidationError) as error:
            return hub_problem(error, repository, revision)
    return problem


def _own_repositories(name: str, cache_dir: str | None, token: str | None) -> list[str]:
    """The user's repository of a bare name; without connection, all repositories of that name in the cache."""
    if "/" in name:
        return []
    if user := _user(token):
        return [f"{user}/{name}"]
    folders = Path(cache_dir or constants.HF_HUB_CACHE).glob(f"models--*--{name}")
    return sorted(folder.name.removeprefix("models--").replace("--", "/", 1) for folder in folders)


@cache
def _user(token: str | None) -> str | None:
    """The name of the logged-in user; None without a user or connection."""
    try:
        return HfApi().whoami(token=token)["name"]
    except (errors.OfflineModeIsEnabled, errors.HTTPError, OSError):
        return None


@dataclass
class HubArguments:
    """Where models come from."""

    model_revision: str = arg("main", help="Branch, tag or commit of the Hub repository.")
    cache_dir: str | None = arg(None, help="Where downloads are kept, if not in HF_HOME.")
    token: str | None = arg(None, help="Hub token for private models; by default the one of `hf auth login`.")
    trust_remote_code: bool = arg(False, help="Run code from the model's repository. Only if you trust it.")
    allow_pickled_weights: bool = arg(
        False,
        help="Read weights that are a pickle (pytorch_model.bin), which can run any code, where a repository has no "
        "safetensors. Only if you trust it.",
    )

    def find(self, name: str, revision: str | None = None) -> str:
        """The folder or repository that a name refers to (see `find_model`)."""
        return find_model(name, revision or self.model_revision, self.cache_dir, self.token)

    def commit(self, name: str) -> str | None:
        """The commit of a repository in the cache at `--model_revision`; None for a folder."""
        for mark in [] if os.path.isdir(name) else MARKS:
            path = try_to_load_from_cache(name, mark, cache_dir=self.cache_dir, revision=self.model_revision)
            if isinstance(path, str):
                return Path(path).parent.name
        return None

    def hub_options(self) -> dict[str, Any]:
        """The arguments of `load_encoder` and similar functions besides the name."""
        names = ("cache_dir", "token", "trust_remote_code", "allow_pickled_weights")
        return {"revision": self.model_revision, **{name: getattr(self, name) for name in names}}


MBERT = "google-bert/bert-base-multilingual-cased"


@dataclass
class ModelArguments(HubArguments):
    """Which encoder."""

    model_name_or_path: str = arg(
        MBERT,
        aliases=["--model"],
        help="Encoder to start from: a local folder or a Hub id, your own repositories also without your name; anything "
        "AutoModel loads with a fast tokenizer.",
    )

    def find(self, name: str, revision: str | None = None) -> str:
        """As in `HubArguments`; raises an `InputError` also for a damaged `run.json`, which the model's card needs."""
        found = super().find(name, revision)
        lineage(found, revision or self.model_revision, cache_dir=self.cache_dir, token=self.token)
        return found


# What everybody calls a model, by the last part of its id.
NICKNAMES = {"bert-base-multilingual-cased": "mbert"}


def nickname(name: str) -> str:
    """The short name of a model, for folders: the last part of its id or path, or what everybody calls it."""
    last = Path(name).resolve().name if os.path.isdir(name) else Path(name).name
    return NICKNAMES.get(last, last)


def label_models(names: Sequence[str]) -> dict[str, str]:
    """Label → Hub id or folder: the last part of each path, or as many parts as make the labels different.

    Labels that are equal even with all parts (`o/m` and `o-m`) are numbered.

    Raises:
        InputError: if a model is named twice.
    """
    paths = [Path(name).resolve() if os.path.isdir(name) else Path(name) for name in names]
    if twice := [name for i, name in enumerate(names) if paths[i] in paths[:i]]:
        raise InputError(f"The model {twice[0]} is named twice; name every model once.")
    parts = [[part for part in path.parts if part != path.anchor] for path in paths]
    labels: list[str] = []
    for n in range(1, max(map(len, parts)) + 1):
        labels = ["-".join(names_of_path[-n:]) for names_of_path in parts]
        if len(set(labels)) == len(names):
            return dict(zip(labels, names))
    found: dict[str, str] = {}
    for label, name in zip(labels, names):
        numbered = (f"{label}-{k}" for k in count(2))
        found[next(one for one in chain([label], numbered) if one not in found)] = name
    return found
