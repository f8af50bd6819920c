"""Secrets are found by their names, their shapes, and by what was noted."""

import pytest

from utils.core import redaction
from utils.core.redaction import REDACTED, is_secret, note_secrets, redact


SECRET = "s3cr3t-Value.1"


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(redaction, "_known", set())


@pytest.mark.parametrize(
    "name",
    ["token", "hub_token", "HF_TOKEN", "use_auth_token", "api_key", "apikey", "WANDB_API_KEY", "client_secret",
     "smtp_password", "passwd", "Authorization", "aws_access_key_id", "credentials", "--hub-token", "key", "X-Auth-Token"],
)  # fmt: skip
def test_names_of_secrets(name):
    assert is_secret(name)
    assert redact({name: SECRET, "seed": 1}) == {"seed": 1}
    assert SECRET not in str(redact([f"--{name.lstrip('-')}", SECRET, "--seed", "1"]))


@pytest.mark.parametrize(
    "name",
    [
        "include_special_tokens",
        "tokenizer",
        "max_tokens",
        "author",
        "pattern",
        "keyword",
        "compatible",
        "seed",
        "eos_token_id",
        "forced_bos_token_id",
        "pad_token",
        "token_ids",
        "suppress_token_ids",
    ],
)
def test_names_of_other_things(name):
    assert redact({name: "value"}) == {name: "value"}
    assert redact(["--" + name, "value"]) == ["--" + name, "value"]


@pytest.mark.parametrize(
    "text",
    [
        "{{token: {}, seed: 1}}", '{{"hub_token": "{}"}}', "nli.hub_token={}", "403: Authorization: Bearer {} refused",
        "{{'authorization': 'Bearer {}'}}", "API_KEY='{}'", "https://user:{}@host/data.tsv", "clone user:{}@host:x",
        "https://{}@huggingface.co/me/model", "bearer {}",
    ],
)  # fmt: skip
def test_secrets_in_text(text):
    found = redact(text.format(SECRET))
    assert SECRET not in found
    assert REDACTED in found


@pytest.mark.parametrize(
    "token", ["hf_abcdefGHIJ0123", "ghp_0123456789abcdef", "sk-proj-0123456789", "AKIA0123456789ABCDEF"]
)
def test_shapes_of_tokens(token):
    assert redact(f"before {token}, after") == "before <secret>, after"


@pytest.mark.parametrize(
    "text",
    ["The file data/hi.tsv, line 3: no tab; check it.", "a token is missing", "give --token, or log in",
     "unexpected key bert.weight", "hi=a.tsv ru=b.tsv", "see https://huggingface.co/docs", "me@example.org"],
)  # fmt: skip
def test_ordinary_text_stays(text):
    assert redact(text) == text


def test_what_was_noted_is_found_wherever_it_stands():
    note_secrets({"token": "abcd-1", "override": ["nli.hub_token=efgh-2"], "align": "{api_key: ijkl-3}", "seed": 4})
    assert redact("x abcd-1y efgh-2 ijkl-3 4") == "x <secret>y <secret> <secret> 4"
    note_secrets({"token": "ab", "hub_token": None, "api_key": ""})
    assert redact("absolutely") == "absolutely"


def test_other_values_stay():
    record = {"a": [1, None, {"b": 0.5, "c": True}], "d": {"e": "text"}}
    assert redact(record) == record
