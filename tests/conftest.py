"""Tests need no network, leave no files behind and give the same result every time."""

import os


# Before any library of Hugging Face reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import gc  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import datasets  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from transformers.integrations.deepspeed import unset_hf_deepspeed_config  # noqa: E402

from helpers.paths import REFERENCE
from utils.core.errors import AT_END


pytest_plugins = ["helpers.parsing", "helpers.reference", "helpers.scripts", "helpers.task_scripts"]

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile("fuzz", settings.get_profile("ci"), derandomize=False, max_examples=5000)
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    """Every test has its own cache of data sets, and its own random numbers."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-datasets")
    datasets.disable_progress_bars()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    unset_hf_deepspeed_config()  # (set by the mere arguments of a test)


def pytest_collection_finish():
    """Let Trainer, which collects garbage before every training, pass over the million objects of the libraries."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_figures(request, monkeypatch):
    """Figures take half a second each: they are drawn only for tests with the fixture `figures`."""

    def save(self: Figure, path: str | Path | io.BytesIO, format: str = "png", **_: object) -> None:
        content = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<svg></svg>"}[format]
        path.write(content) if isinstance(path, io.BytesIO) else Path(path).write_bytes(content)

    if "figures" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", save)


@pytest.fixture
def figures():
    """Draw figures."""


@pytest.fixture(scope="session")
def expected() -> dict:
    """What the paper's own code computes (tests/reference/README.md)."""
    return json.loads((REFERENCE / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture
def run(monkeypatch):
    """Run a script's `main` as if its arguments had been typed."""

    def run_main(main, *arguments: object):
        monkeypatch.setattr(sys, "argv", [main.__module__, *map(str, arguments)])
        with AT_END:  # locks
            return main()

    return run_main
