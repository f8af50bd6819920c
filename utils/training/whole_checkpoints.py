"""Whether checkpoints are complete."""

import json
import zipfile
from itertools import chain
from pathlib import Path

from safetensors import SafetensorError, safe_open


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint has all that a run needs to continue, and was written to its end; its state comes last."""
    divided = list(checkpoint.glob("global_step*"))  # (DeepSpeed has optimizer and schedule in there)
    parts = [["*.safetensors", "*.safetensors.index.json", "pytorch_model*"], ["optimizer*"], ["scheduler.pt"]]
    found = [list(chain.from_iterable(map(checkpoint.glob, names))) or divided for names in parts]
    found.append(list(checkpoint.glob("rng_state*.pth")))
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        for file in (file for file in chain(*found) if file.suffix == ".safetensors"):
            with safe_open(file, "numpy"):  # (checks the length of the file, and reads no weights)
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    return all(found) and all(zipfile.is_zipfile(file) for file in chain(*found) if file.suffix in (".pt", ".pth"))


def whole_checkpoints(output_dir: Path) -> list[Path]:
    """The whole checkpoints in a folder, the last one first; `checkpoint-best` and the like are not of a run."""
    steps = {folder: int(step) for folder in output_dir.glob("checkpoint-*") if (step := folder.name[11:]).isdecimal()}
    return sorted(filter(is_whole, steps), key=lambda folder: steps[folder], reverse=True)
