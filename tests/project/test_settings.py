"""The files that configure tools agree with each other."""

import re

import yaml

from helpers.paths import PROJECT


def read(name: str) -> dict:
    return yaml.load((PROJECT / name).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def test_pre_commit_has_the_ruff_of_the_requirements():
    (wanted,) = re.findall(r"^ruff==.*$", (PROJECT / "requirements-dev.txt").read_text(), re.MULTILINE)
    hooks = [hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert [hook["id"] for hook in hooks] == ["ruff-check", "ruff-format"]
    assert all(hook["additional_dependencies"] == [wanted] for hook in hooks)


def test_the_workflow_runs_what_every_change_must_pass():
    workflow = read(".github/workflows/ci.yml")
    assert {"push", "pull_request"} <= workflow["on"].keys()
    assert "schedule" in read(".github/workflows/canary.yml")["on"]
    (job,) = workflow["jobs"].values()
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    assert "3.11" in [step.get("with", {}).get("python-version") for step in job["steps"]]
    targets = re.findall(r"^make (.*)$", (PROJECT / ".ci" / "run").read_text(), re.MULTILINE)
    assert targets == ["quality", "test"]


def test_the_citation_names_both_papers():
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "license"} <= citation.keys()
    assert [work["year"] for work in citation["references"]] == ["2023", "2020"]
