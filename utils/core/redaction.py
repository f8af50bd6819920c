"""Secrets (tokens, keys, passwords) are taken out of whatever is written or shown."""

import re
from collections.abc import Mapping
from typing import Any


# Shown in place of a secret.
REDACTED = "<secret>"
# Names of arguments, settings, headers and variables with secret values (`include_special_tokens` is not one).
_NAME = (
    r"(?:[\w-]+[_-])?(?:token|auth|(?:api|access|private)key)(?:[_-][\w-]+)?|[\w-]+[_-](?:key|pat)(?:[_-][\w-]+)?"
    r"|[\w-]*(?:secret|passw|credential|authorization)[\w-]*"
)
# What is called a token in a vocabulary: `eos_token`, `pad_token_id`.
_OF_VOCABULARY = r"(?!(?:[\w-]+[_-])?(?:token_?ids?|(?:bos|eos|pad|unk|cls|sep|mask)_token)(?![\w-]))"
_SECRET_NAME = re.compile(rf"{_OF_VOCABULARY}(?:{_NAME}|key)", re.IGNORECASE)
# `token: …`, `"api_key": "…"`, `Authorization: Bearer …`, `nli.hub_token=…`; the second group is the secret.
_NAMED = re.compile(
    rf"""(?<![\w-]){_OF_VOCABULARY}((?:{_NAME})["']?\s*[:=]\s*["']?(?:(?:bearer|basic|token)\s+)?)([^\s"',;}})\]]+)""",
    re.IGNORECASE,
)
_SHAPES = (
    # `user:password@host`, `https://token@host`
    re.compile(r"((?<=://)|\b)(?:(?<=://)[^\s/@]+|[\w.+-]+:[^\s/:@]+)(?=@[\w-])"),
    re.compile(r"(\bbearer\s+)[^\s\"',;]+", re.IGNORECASE),
    # What the Hub, GitHub, GitLab, OpenAI, Slack and AWS give out.
    re.compile(r"()\b(?:(?:hf_|api_org_|gh[oprsu]_|github_pat_|glpat-|sk-|xox[abprs]-)[\w-]{8,}|AKIA[0-9A-Z]{16}\b)"),
)
# Shorter values are too likely to occur by chance.
_SHORTEST = 6
_known: set[str] = set()


def is_secret(name: str) -> bool:
    """Whether the value of an argument or a variable of this name is secret."""
    return _SECRET_NAME.fullmatch(name.lstrip("-")) is not None


def note_secrets(settings: Mapping[str, Any]) -> None:
    """Remember the secret values among settings, also those inside of texts, so that `redact` finds them anywhere."""
    for name, value in settings.items():
        texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
        found = texts if is_secret(name) else [secret for text in texts for _, secret in _NAMED.findall(text)]
        _known.update(secret for secret in found if len(secret) >= _SHORTEST)


def redact(value: Any) -> Any:
    """A text without secrets; a mapping without secret settings; lists of both, in which `--token VALUE` is also seen.

    Secrets are known by their names, by their shapes, and from `note_secrets`. Other values are returned unchanged.
    """
    if isinstance(value, Mapping):
        shown = {name: one for name, one in value.items() if isinstance(one, Mapping) or not is_secret(str(name))}
        return {name: redact(one) for name, one in shown.items()}
    if isinstance(value, list | tuple):
        before = [None, *value]
        return [
            REDACTED if isinstance(last, str) and last.startswith("--") and is_secret(last) else redact(one)
            for last, one in zip(before, value)
        ]
    if not isinstance(value, str):
        return value
    for secret in sorted(_known, key=len, reverse=True):
        value = value.replace(secret, REDACTED)
    value = _NAMED.sub(rf"\1{REDACTED}", value)
    for shape in _SHAPES:
        value = shape.sub(rf"\1{REDACTED}", value)
    return value
