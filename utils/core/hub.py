"""Errors of the Hub's client, in words."""

from huggingface_hub import constants, errors


def hub_problem(error: Exception, page: str, revision: str = "main") -> str | None:
    """Why a repository, a file or a revision cannot be fetched, and the remedy; None for an error that is not the Hub's.

    Args:
        error: raised by a function of `huggingface_hub`.
        page: the repository's page without the address of the Hub, for example `datasets/facebook/xnli`.
        revision: branch, tag or commit that was asked for.
    """
    if is_offline() and isinstance(error, (errors.LocalEntryNotFoundError, ConnectionError)):
        return OFFLINE
    for kind, problem in _PROBLEMS.items():
        if isinstance(error, kind):
            status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else ""
            return problem.format(page=f"{constants.ENDPOINT}/{page}", status=status, revision=revision)
    return None


OFFLINE = "not in the cache, and HF_HUB_OFFLINE=1 is set: unset it, or name a local file or folder"


def is_offline() -> bool:
    """Whether the user has forbidden connections to the Hub (`HF_HUB_OFFLINE=1`)."""
    return bool(constants.HF_HUB_OFFLINE)


# The more particular ones first.
_PROBLEMS: dict[type[Exception], str] = {
    errors.GatedRepoError: "gated: ask for access at {page}, then `hf auth login`",
    errors.RepositoryNotFoundError: "not on the Hub, or private: `hf auth login` with an account that has access",
    errors.RevisionNotFoundError: "without a revision {revision}",
    errors.LocalEntryNotFoundError: "not in the cache, and the Hub cannot be reached from here",
    errors.HFValidationError: "not a valid name of a repository",
    errors.HfHubHTTPError: "refused: the Hub answers {status}",
}
