"""Files of weights: finding and reading those of a model, and writing them atomically."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from utils.core.errors import InputError


# The files of weights of the two kinds of checkpoint: safetensors, then pickles.
OF_MODEL = ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME))
OF_ADAPTER = (("adapter_model.safetensors",), ("adapter_model.bin",))


def weight_files(
    name: str,
    kind: tuple[tuple[str, ...], tuple[str, ...]] = OF_MODEL,
    allow_pickled_weights: bool = False,
    **hub_options: Any,  # noqa: ANN401
) -> list[str]:
    """The files with the weights of a Hub repository or a folder, downloaded if need be.

    Args:
        name: Hub id or folder.
        kind: `OF_MODEL` or `OF_ADAPTER`.
        allow_pickled_weights: read a pickle (`pytorch_model.bin`) where there are no safetensors.
        hub_options: `revision`, `cache_dir`, `token`; others are ignored.

    Returns:
        Paths: several for sharded weights, none if there are no weights.

    Raises:
        InputError: if there are only pickles and they are not allowed.
    """
    safe, pickled = kind
    if files := _files(name, safe, hub_options):
        return files
    if not allow_pickled_weights and (
        found := next((file for file in pickled if _file(name, file, hub_options)), None)
    ):
        raise InputError(
            f"The weights of {name} are a pickle ({found}), which can run any code when it is read; if you trust it, add "
            "--allow_pickled_weights."
        )
    return _files(name, pickled, hub_options)


def file_of(name: str, file: str, **hub_options: Any) -> str | None:  # noqa: ANN401
    """The path of a file of a Hub repository or a folder; None if it has no such file, or if there is no such model.

    Args:
        name: Hub id or folder.
        file: its name.
        hub_options: `revision`, `cache_dir`, `token`; others are ignored.
    """
    try:
        return _file(name, file, hub_options)
    except OSError:
        return None


def _file(name: str, file: str, hub_options: Mapping[str, Any]) -> str | None:
    return cached_file(name, file, _raise_exceptions_for_missing_entries=False, **_known(hub_options))


def _known(hub_options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in hub_options.items() if name in ("revision", "cache_dir", "token")}


def _files(name: str, candidates: tuple[str, ...], hub_options: Mapping[str, Any]) -> list[str]:
    for candidate in candidates:
        if path := _file(name, candidate, hub_options):
            if not candidate.endswith(".index.json"):
                return [path]
            return get_checkpoint_shard_files(name, path, **_known(hub_options))[0]
    return []


def stored_tensors(files: list[str], wanted: set[str]) -> Iterator[tuple[str, torch.Tensor | None]]:
    """The names of all tensors in the files, as transformers calls them, each with its value in fp32 if it is wanted."""
    for file in files:
        if file.endswith(".safetensors"):
            with safe_open(file, framework="pt") as tensors:
                for stored in tensors.keys():  # noqa: SIM118 (not a dict)
                    name = _current_name(stored)
                    yield name, tensors.get_tensor(stored).float() if name in wanted else None
        else:
            for stored, tensor in torch.load(file, map_location="cpu", weights_only=True).items():
                name = _current_name(stored)
                yield name, tensor.float() if name in wanted else None


def _current_name(name: str) -> str:
    """TensorFlow-era checkpoints (mBERT's too) call a layer norm's parameters gamma and beta."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


@contextmanager
def atomic_model_write(output_dir: str | Path) -> Iterator[str]:
    """Atomic write: yields a temporary folder, whose files replace an earlier model in `output_dir` at the end.

    So a full disk or a kill never leaves half a file. Stale weights are removed: an adapter does not stay beside the
    plain model that replaces it, nor the other way round.
    """
    os.makedirs(output_dir, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir, prefix=".writing-") as folder:
        yield folder
        written = sorted(os.listdir(folder))
        for name in written:
            os.replace(os.path.join(folder, name), os.path.join(output_dir, name))
    for pattern in ("model*.safetensors", SAFE_WEIGHTS_INDEX_NAME, "adapter_model.safetensors", "adapter_config.json"):
        for stale in Path(output_dir).glob(pattern):
            if stale.name not in written:
                stale.unlink()
