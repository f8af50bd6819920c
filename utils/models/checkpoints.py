"""Files of weights: finding and reading those of a model, and writing them atomically."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME
from transformers.utils.hub import get_checkpoint_shard_files

from utils.core.errors import InputError
from utils.models.files import find_file, of_download


Tensors = Mapping[str, torch.Tensor]

# The files of weights of the two kinds of checkpoint: safetensors, then pickles.
OF_MODEL = ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME))
OF_ADAPTER = (("adapter_model.safetensors",), ("adapter_model.bin",))
# What wrappers add to the names of a model's tensors: `torch.compile`, DDP, FSDP, activation checkpointing.
_INNER = r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
_WRAPPERS = re.compile(rf"^(?:module\.|{_INNER})+|(?<=\.){_INNER}")


def weight_files(
    name: str, kind: Sequence[Sequence[str]] = OF_MODEL, allow_pickled_weights: bool = False, **hub_options: Any
) -> list[str]:
    """The paths of a model's files of weights, downloaded if necessary: several shards, one file, or none.

    Raises:
        InputError: if there are only pickles (`pytorch_model.bin`) and they are not allowed.
    """
    for candidate in [file for files in kind for file in files]:
        path = find_file(name, candidate, hub_options)
        if path is None:
            continue
        if candidate in kind[1] and not allow_pickled_weights:
            raise InputError(
                f"The weights of {name} are a pickle ({candidate}), which can run any code when it is read; if you trust "
                "it, add --allow_pickled_weights."
            )
        files = [path]
        if candidate.endswith(".index.json"):
            files = get_checkpoint_shard_files(name, path, **of_download(hub_options))[0]
        if candidate in kind[0] and (other := [file for file in files if not file.endswith(".safetensors")]):
            raise InputError(
                f"The index {path} names {other[0]}, which is not in safetensors; download the model again."
            )
        return files
    return []


def stored_tensors(
    files: list[str], wanted: Collection[str] | None = None
) -> Iterator[tuple[str, torch.Tensor | None]]:
    """The names of all tensors in the files, as transformers calls them, with the values in fp32 of the wanted ones (or all)."""
    for file in files:
        keys, read = _stored(file)
        for key in keys:
            name = _current_name(key)
            yield name, read(key).float() if wanted is None or name in wanted else None


def wrapped_name(files: list[str]) -> str | None:
    """The first name of a tensor in the files that a wrapper (`torch.compile`, DDP, FSDP) has changed, if there is one."""
    return next((key for file in files for key in _stored(file)[0] if _WRAPPERS.search(key)), None)


def _stored(file: str) -> tuple[list[str], Callable[[str], torch.Tensor]]:
    """The names of the tensors in a file, and a function that reads one."""
    if file.endswith(".safetensors"):
        tensors = safe_open(file, "pt")
        return list(tensors.keys()), tensors.get_tensor
    stored = torch.load(file, map_location="cpu", weights_only=True)
    return list(stored), stored.__getitem__


def _current_name(name: str) -> str:
    """TensorFlow-era checkpoints (mBERT's too) call a layer norm's parameters gamma and beta."""
    name = _WRAPPERS.sub("", name)
    return re.sub(r"\.beta$", ".bias", re.sub(r"\.gamma$", ".weight", name))


@contextmanager
def atomic_model_write(output_dir: str | Path) -> Iterator[str]:
    """Atomic write: yields a temporary folder, whose files replace an earlier model in `output_dir` at the end.

    A full disk or a kill never leaves half a file. Weights of the earlier model that were not replaced are removed: an
    adapter does not stay beside a plain model, nor a plain model beside an adapter.
    """
    os.makedirs(output_dir, exist_ok=True)
    for left in Path(output_dir).glob(".writing-*"):  # by a process that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=output_dir, prefix=".writing-") as folder:
        yield folder
        written = sorted(os.listdir(folder))
        for name in written:
            os.replace(os.path.join(folder, name), os.path.join(output_dir, name))
    for pattern in ("model*.safetensors", SAFE_WEIGHTS_INDEX_NAME, "adapter_model.safetensors", "adapter_config.json"):
        for stale in Path(output_dir).glob(pattern):
            if stale.name not in written:
                stale.unlink()
