"""Marks in the folders of runs: which runs of a grid are done, with which settings, and from which other runs."""

from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

from utils.core.errors import InputError
from utils.core.files import read_json_object, write_json
from utils.core.redaction import redact
from utils.experiments.plan import Run
from utils.tasks.registry import TASKS


# The file in the folder of a run that says whether it is done.
_MARK = "replicate.json"
# The weights of a run, beside its checkpoints.
WEIGHTS = ("model*.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
_REMEDY = "remove its folder, and the run will be repeated"


def find_done(runs: Sequence[Run], output_dir: Path) -> set[str]:
    """The names of the runs whose results count: done, as are the runs that they need, which have not been made again since.

    `runs` are those of a plan, in its order. InputError as for `check_done`.
    """
    done: set[str] = set()
    for run in runs:
        if check_done(run, output_dir) and done.issuperset(run.needs) and not changed_needs(run, output_dir):
            done.add(run.name)
    return done


def find_to_do(runs: Sequence[Run], output_dir: Path) -> list[Run]:
    """The runs that are to be carried out, in the order of the plan.

    Besides those that are not done: fine-tuned models that one of them needs, but whose weights have been removed; and then
    all runs that need these, so that no table mixes two models of the same name.
    """
    done = find_done(runs, output_dir)
    while lacking := {
        need.name
        for need in runs
        if need.name in done and need.task in TASKS and not _has_weights(output_dir / need.name)
        if any(need.name in run.needs and run.name not in done for run in runs)
    }:
        done -= lacking
        for run in runs:
            if not done.issuperset(run.needs):
                done.discard(run.name)
    return [run for run in runs if run.name not in done]


def _has_weights(folder: Path) -> bool:
    return any(path for pattern in WEIGHTS for path in folder.glob(pattern))


def check_done(run: Run, output_dir: Path) -> bool:
    """Whether a run is marked as done, whatever became of those that it needs.

    Raises:
        InputError: if it was done, or started, with other settings than those of this grid, or if the mark is damaged.
    """
    now = _settings(run)
    # (Marks from before `launch` was kept do not say it. The same command goes on with a grid, so they stand for that of now.)
    found: dict[str, Any] = {"launch": now["launch"], **(mark := _mark(run.name, output_dir))}
    if not mark:
        return False
    before: dict[str, Any] = {name: found.get(name) for name in now}
    if not isinstance(found.get("done"), bool) or not all(map(_is_command, before.values())):
        raise InputError(f"The file {output_dir / run.name / _MARK} is damaged; {_REMEDY}.")
    if different := next(filter(None, (_difference(before[name], now[name]) for name in now)), ""):
        raise InputError(
            f"The run {output_dir / run.name} was made with other settings ({different}); choose another --output_dir, or remove "
            "that folder to repeat it and all that need it."
        )
    return found["done"]


def changed_needs(run: Run, output_dir: Path) -> list[str]:
    """The runs that a run needs, and that have been made again since it was started.

    A mark from before this was kept stands for what was made before this was kept, too.
    """
    before = _mark(run.name, output_dir)
    return [
        name for name, now in _made(run, output_dir).items() if before and before.get("needs", {}).get(name) != now
    ]


def _made(run: Run, output_dir: Path) -> dict[str, str | None]:
    """By name of a run that another needs: what identifies its results; None where it has no mark, or an older one."""
    return {name: _mark(name, output_dir).get("made") for name in run.needs}


def _mark(name: str, output_dir: Path) -> dict[str, Any]:
    """The content of a mark, empty if there is none."""
    path = output_dir / name / _MARK
    found = read_json_object(path, _REMEDY) if path.exists() else {}
    needs = found.get("needs", {})
    made = [found.get("made"), *(needs.values() if isinstance(needs, dict) else [needs])]
    if path.exists() and not ("done" in found and all(one is None or isinstance(one, str) for one in made)):
        raise InputError(f"The file {path} is damaged; {_REMEDY}.")
    return found


def _is_command(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def mark_done(run: Run, output_dir: Path, done: bool = True) -> None:
    """Record that a run is done (or only started), with which settings, and from which results of other runs."""
    # (By chance, not by content or time: a run that is repeated is another one, and a copied grid is the same.)
    made = {"made": token_hex(8)} if done else {}
    content = {**_settings(run), "done": done, **made, "needs": _made(run, output_dir)}
    write_json(output_dir / run.name / _MARK, content)


def _settings(run: Run) -> dict[str, list[str]]:
    """What a run must have in common with one that was made before, as a mark has it."""
    return {"launch": redact(run.launch), "arguments": redact(run.arguments)}


def _difference(before: Sequence[str], now: Sequence[str]) -> str:
    """The first argument that two commands do not have in common, as it was and as it is; empty if there is none."""
    then, after = map(_by_argument, (before, now))
    name = next((name for name in {**after, **then} if then.get(name) != after.get(name)), None)
    return f"then: {then.get(name, f'no {name}')}, now: {after.get(name, f'no {name}')}" if name else ""


def _by_argument(words: Sequence[str]) -> dict[str, str]:
    """Name of an argument → the argument with its values, of a command."""
    found: dict[str, str] = {}
    name = ""
    for word in words:
        name = word if word.startswith("--") else name
        found[name] = f"{found[name]} {word}" if name in found else word
    return found
