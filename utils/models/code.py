"""The code of models that bring their own (`--trust_remote_code`), saved beside their weights."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save, get_relative_import_files


def save_code(model: PreTrainedModel, folder: str | Path, config: PreTrainedConfig | None = None) -> None:
    """Copy the modules of a model's code into a folder, and name them in the config that is given.

    A model from a folder takes all modules with it that its config names (`auto_map`), also of other heads; what a
    config names in a repository of the Hub stays there.
    """
    if config is not None and model.is_remote_code():
        custom_object_save(model, folder, config=config)  # type: ignore[arg-type]  # (a config is what it takes)
    for name in _modules(model.config):
        source = Path(model.name_or_path or "", f"{name}.py")
        files = [str(source), *map(str, get_relative_import_files(source))] if source.is_file() else []
        for file in map(Path, files):
            if not (copy := Path(folder, file.name)).exists():
                shutil.copyfile(file, copy)


def _modules(config: PreTrainedConfig) -> Iterator[str]:
    """The modules in the model's own folder that a config names: `modeling_x` for `modeling_x.Model`."""
    for value in (getattr(config, "auto_map", None) or {}).values():
        for reference in value if isinstance(value, list | tuple) else [value]:
            # (`repository--modeling_x.Model` is not in the folder, and a path would lead out of it.)
            if isinstance(reference, str) and (name := reference.partition(".")[0]).isidentifier():
                yield name
