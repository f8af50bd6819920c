"""The Hub: which model a name means, and sharing one without ever losing it."""

import os
from functools import cache
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of the client's own HTTP library, whichever it is
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from utils.errors import InputError


# Every repository with a model has one of these.
_MARKS = ("config.json", "adapter_config.json")


def find_model(name: str, revision: str = "main", cache_dir: str | None = None, token: str | None = None) -> str:
    """The folder or repository that a model's name means.

    A local folder of that name, else a repository on the Hub, else (for a bare name such as `aligned-mbert-hi`) the
    logged-in user's repository. Without connection, or with `HF_HUB_OFFLINE=1`, repositories in the cache are found.

    Args:
        name: what the user typed.
        revision: branch, tag or commit.
        cache_dir, token: if not those of the environment.

    Returns:
        The folder, or the whole id of the repository.

    Raises:
        InputError: that lists what was tried, and why it was not found.
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


def commit_of(name: str, revision: str = "main", cache_dir: str | None = None) -> str | None:
    """The commit of a repository that a run has used; None for a folder."""
    if os.path.isdir(name):
        return None
    for mark in _MARKS:
        path = try_to_load_from_cache(name, mark, cache_dir=cache_dir, revision=revision)
        if isinstance(path, str):
            return Path(path).parent.name
    return None


def _problem_with(repository: str, revision: str, cache_dir: str | None, token: str | None) -> str | None:
    """Why a repository cannot be used; None if it can."""
    for mark in _MARKS:
        try:
            hf_hub_download(repository, mark, revision=revision, cache_dir=cache_dir, token=token)
            return None
        except GatedRepoError:
            return f"gated: ask for access at {constants.ENDPOINT}/{repository}, then `hf auth login`"
        except RepositoryNotFoundError:
            return "not on the Hub, or private: `hf auth login` as somebody who may see it"
        except RevisionNotFoundError:
            return f"it has no revision {revision}"
        except LocalEntryNotFoundError:
            if mark == _MARKS[-1]:
                return "not in the cache, and the Hub cannot be reached from here"
        except EntryNotFoundError:
            if mark == _MARKS[-1]:
                return f"it holds no model: neither {' nor '.join(_MARKS)}"
        except HFValidationError:
            return "no name that a repository can have"
        except HfHubHTTPError as error:
            return f"the Hub answers {error.response.status_code}"
    return None


def _own_repositories(name: str, cache_dir: str | None, token: str | None) -> list[str]:
    """The user's repository of a bare name; or, where the Hub cannot be asked who that is, those in the cache."""
    if "/" in name:
        return []
    if user := _user(token):
        return [f"{user}/{name}"]
    folders = Path(cache_dir or constants.HF_HUB_CACHE).glob(f"models--*--{name}")
    return sorted(folder.name.removeprefix("models--").replace("--", "/", 1) for folder in folders)


@cache
def _user(token: str | None) -> str | None:
    """The name of the logged-in user; None if nobody is, or the Hub cannot be reached."""
    try:
        return HfApi().whoami(token=token)["name"]
    except (OfflineModeIsEnabled, HTTPError, OSError):
        return None
