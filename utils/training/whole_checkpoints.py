"""The checkpoints of a run, and whether they are complete."""

import json
import zipfile
from itertools import chain
from pathlib import Path

from safetensors import SafetensorError, safe_open


# The file of a checkpoint that says which run it belongs to.
RUN_FILE = "run_state.json"


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint has all that a run needs to continue, and was written to its end; its state comes last."""
    divided = list(checkpoint.glob("global_step*"))  # (DeepSpeed has optimizer and schedule in there)
    parts = [["*.safetensors", "*.safetensors.index.json", "pytorch_model*"], ["optimizer*"], ["scheduler.pt"]]
    found = [list(chain.from_iterable(map(checkpoint.glob, names))) or divided for names in parts]
    found.append(list(checkpoint.glob("rng_state*.pth")))
    try:
        for state in [checkpoint / "trainer_state.json", *checkpoint.glob(RUN_FILE)]:
            json.loads(state.read_text(encoding="utf-8"))
        for file in (file for file in chain(*found) if file.suffix == ".safetensors"):
            with safe_open(file, "numpy"):  # (checks the length of the file, and reads no weights)
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    return all(found) and all(zipfile.is_zipfile(file) for file in chain(*found) if file.suffix in (".pt", ".pth"))


def step_checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints of a run in a folder, the last one first; `checkpoint-best` and the like are not of a run."""
    folders = (folder for folder in output_dir.glob("checkpoint-*") if folder.is_dir())
    steps = {folder: int(step) for folder in folders if (step := folder.name[11:]).isdecimal()}
    return sorted(steps, key=lambda folder: steps[folder], reverse=True)


def whole_checkpoints(output_dir: Path) -> list[Path]:
    """Those of `step_checkpoints` that are complete."""
    return list(filter(is_whole, step_checkpoints(output_dir)))
