#!/usr/bin/env python
"""English in disguise: what does adjustment recover in a language about which everything is known?

    python -m benchmarks.controlled_language --disturbance 0.7 0.5 1 --wrong_links 0 0.5 1 --seed 1 2 3

The second language is English whose token ids are shifted to new rows of the embedding table, so that it shares no token
with English (K et al., ICLR 2020; Dufter and Schütze, EMNLP 2020). A new row is the row of the English token, disturbed
by a chosen amount. Links and labels are therefore exact, and it is known what keeps the two languages apart.

A cell: the encoder is adjusted on English sentences and their disguised copies, fine-tuned on English labels, and evaluated
on the same test sentences in both languages. `recovered` is the rise of the disguised score in percent of the zero-shot
gap of the original encoder (English minus disguised): 0 is nothing, 100 everything.

Every setting takes several values. The first ones make the base cell; the others are tried one at a time, or in all
combinations with --grid. Each cell is run with every --seed. Finished runs are kept in --results and are not run again, so
a command that was stopped continues. With the embedded sentences, a run takes one or two minutes on one core.
"""

import copy
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, make_dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any, get_args, get_origin


sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import datasets
import numpy as np
from datasets import Dataset
from filelock import FileLock
from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification, PreTrainedModel, set_seed
from transformers.hf_argparser import string_to_bool
from transformers.utils import logging

from benchmarks.disguise import EMBEDDED, Text, add_disguised_rows, in_disguise, linked_pair, reordered, rows_of
from benchmarks.measuring import describe_machine
from data.sample_model import sample_model
from utils.alignment.losses import AlignmentLoss
from utils.alignment.objectives import AlignmentArguments
from utils.alignment.pairs import AlignmentCollator, encode_pairs
from utils.alignment.words import WordTokenizer
from utils.core.arguments import arg, check_ranges, parse_arguments
from utils.core.errors import InputError, run_script
from utils.core.files import write_json_lines
from utils.core.records import run_record
from utils.core.result_tables import ResultTable
from utils.models.encoders import load_encoder, load_task_model
from utils.models.layers import aligned_layers, freeze_layers, freeze_unused_parameters
from utils.models.tokenizers import load_tokenizer
from utils.tasks.arguments import FineTuningArguments
from utils.tasks.examples import LanguageData, TaskRows, encoded
from utils.tasks.registry import TASKS
from utils.tasks.tagging import encode_tagged, predicted_tags
from utils.tasks.zero_shot_trainer import ZeroShotTrainer
from utils.training.alignment_trainer import AlignmentTrainer
from utils.training.arguments import AlignTrainingArguments


# The tasks, and the tag of a word that the model has not seen.
MISSING_TAG = {"ner": "O", "pos": "_"}
# The settings that the scores of the original encoder depend on (those of the second line: word retrieval).
OF_ORIGINAL = (
    "disturbance", "word_order", "task", "examples", "task_epochs", "task_learning_rate", "seed",
    "alignment_layer", "word_pooling",
)  # fmt: skip
MAX_LENGTH = 128  # tokens of a sentence


# --- Settings ----------------------------------------------------------------------------------------------------


@dataclass
class Cell(AlignmentArguments):
    """One run of the table: the language, the pairs, the alignment (arguments of run_align.py), the task."""

    # Here the difference between the languages is in the embeddings, and is removed fastest there.
    alignment_layer: list[int] = field(
        default_factory=lambda: [0], metadata=AlignmentArguments.__dataclass_fields__["alignment_layer"].metadata
    )
    disturbance: float = arg(
        0.7,
        help="How far the disguised tokens are from the English ones: the share of the variance of their embeddings that "
        "is another token's. 0: copies; 1: unrelated.",
        at_least=0,
        at_most=1,
    )
    word_order: int = arg(
        0,
        help="Disguised sentences are shuffled: each word (entity) moves at most this many places; -1: any number.",
        at_least=-1,
    )
    pairs_from: str = arg(
        "task",
        help="Sentences of the pairs: those of the `task` (without labels, test sentences included), so that every token of "
        "the test occurs in a pair; or other `text`.",
        choices=["task", "text"],
    )
    pairs: int = arg(150, help="Sentence pairs of the adjustment; 0: the original encoder.", at_least=0)
    wrong_links: float = arg(
        0.0, help="Share of the links that lead to another word of the sentence.", at_least=0, at_most=1
    )
    epochs: int = arg(4, help="Passes over the pairs.", at_least=1)
    learning_rate: float = arg(1e-2, help="Peak learning rate of the adjustment.", above=0)
    task: str = arg("ner", help="Task that is fine-tuned on English labels.", choices=list(MISSING_TAG))
    examples: int = arg(1000, help="At most this many English examples; all are used if there are fewer.", at_least=1)
    task_epochs: int = arg(6, help="Passes over the examples.", at_least=1)
    task_learning_rate: float = arg(7e-4, help="Peak learning rate of the fine-tuning.", above=0)
    seed: int = arg(1, help="Seed of the language, of the data that are drawn, and of the training.", at_least=0)

    def original(self) -> "Cell":
        """The cell of the original encoder, with which this one is compared."""
        return Cell(pairs=0, **{name: getattr(self, name) for name in OF_ORIGINAL})

    def label(self, base: "Cell") -> str:
        """What distinguishes this cell from the base, apart from the seed."""
        ours, theirs = asdict(self), asdict(base)
        return ", ".join(f"{k} {ours[k]}" for k in ours if ours[k] != theirs[k] and k != "seed") or "base"


@dataclass
class Options:
    """What is run, on which data, and where the results are kept."""

    results: str = arg("runs/controlled_language.jsonl", help="File of the finished runs, a line each.")
    data_dir: str = arg(
        str(EMBEDDED),
        help="Folder with parallel/*.jsonl (column en), and TASK/en/SPLIT.jsonl or TASK/SPLIT.en.jsonl (tokens and tags; splits "
        "train and test); also .gz. Default: the embedded sentences.",
    )
    test_examples: int = arg(1000, help="Evaluate on at most this many examples.", at_least=1)
    grid: bool = arg(False, help="Run all combinations of the values, not one change of the base cell at a time.")
    use_cpu: bool = arg(False, help="Leave the GPU alone.")


def several(item: Field) -> tuple[str, Any, Any]:
    """A field of `Cell` as an argument that takes several values; a list is written with commas."""
    default = item.default if item.default_factory is MISSING else item.default_factory()
    metadata: Mapping[str, Any] = item.metadata
    if item.type in (int, float, str):
        return item.name, list[item.type], field(default_factory=lambda: [default], metadata=metadata)  # type: ignore[name-defined]
    word = ",".join(map(str, default)) if isinstance(default, list) else str(default).lower()
    metadata = {**metadata, "bounds": {}}
    return item.name, list[str], field(default_factory=lambda: [word], metadata=metadata)


def value_of(item: Field, given: Any) -> Any:
    """The value of a field of `Cell` that a value of `several` stands for."""
    kinds = get_args(item.type)
    if item.type in (int, float, str):
        return given
    if get_origin(item.type) is list:
        return list(map(kinds[0], given.split(",")))
    return None if given == "none" else string_to_bool(given)


Settings = make_dataclass("Settings", map(several, fields(Cell)))
Settings.__doc__ = "The settings of the cells, several values each."


def cells_of(settings: Any, grid: bool) -> Iterator[Cell]:
    """The base cell, and those that differ from it in one setting (with `grid`, in any number), with every seed."""
    values = {item.name: [value_of(item, given) for given in getattr(settings, item.name)] for item in fields(Cell)}
    seeds = values.pop("seed")
    base = {name: first for name, (first, *_) in values.items()}
    changed = [base | {name: value} for name, (_, *others) in values.items() for value in others]
    combinations = (dict(zip(values, combination)) for combination in product(*values.values()))
    for chosen in combinations if grid else [base, *changed]:
        for seed in seeds:
            check_ranges(cell := Cell(**chosen, seed=seed))
            yield cell


# --- A run -------------------------------------------------------------------------------------------------------


class Laboratory:
    """Runs cells: adjusts, fine-tunes, evaluates."""

    def __init__(self, model: str, use_cpu: bool) -> None:
        self.model, self.use_cpu = model, use_cpu
        self.tokenizer = load_tokenizer(model)
        self.disguise = partial(
            in_disguise, special=self.tokenizer.all_special_ids, n_rows=load_encoder(model).config.vocab_size
        )

    def run(self, cell: Cell, text: Text) -> dict[str, float]:
        """The scores of a cell: `words` (word retrieval on held-out pairs), `english` and `disguised` (the task)."""
        encoder = load_encoder(self.model)
        add_disguised_rows(encoder, self.tokenizer.all_special_ids, cell.disturbance, cell.seed)
        with TemporaryDirectory() as folder:
            words = self._adjust(encoder, cell, text, folder)
            return {"words": words, **self._fine_tune(encoder, cell, text, folder)}

    def _adjust(self, encoder: PreTrainedModel, cell: Cell, text: Text, folder: str) -> float:
        """Adjust the encoder, in place; returns the accuracy of word retrieval."""
        random = np.random.default_rng(cell.seed)
        sentences = {"text": text.sentences, "task": [row["tokens"] for row in text.train + text.test]}
        at_hand = sentences[cell.pairs_from]
        train = [at_hand[k] for k in random.permutation(len(at_hand))[: cell.pairs]]
        if len(train) < cell.pairs:
            raise InputError(f"--pairs {cell.pairs} is more than the {len(train)} sentences at hand; choose less.")
        tokenizer = WordTokenizer(self.tokenizer, cell.word_pooling, MAX_LENGTH)
        sets = {}
        # (The held-out sentences are shuffled in the same way whatever the training draws, so that cells can be compared.)
        of_held_out = np.random.default_rng((cell.seed, 1))
        for name, some, wrong, drawn in (
            ("train", train, cell.wrong_links, random),
            ("held out", text.held_out, 0.0, of_held_out),
        ):
            if some:
                rows = Dataset.from_list([linked_pair(words, cell.word_order, wrong, drawn) for words in some])
                rows = encode_pairs(rows, tokenizer, cell.include_special_tokens)
                sets[name] = self.disguise(rows, "source_input_ids")
        reference = copy.deepcopy(encoder)
        layers = aligned_layers(cell.alignment_layer, encoder.config.num_hidden_layers)
        freeze_unused_parameters(encoder, layers[-1])
        freeze_layers(encoder, cell.freeze_layers, cell.freeze_embeddings, layers[0])
        set_seed(cell.seed)
        trainer = AlignmentTrainer(
            model=encoder,
            args=self._training(AlignTrainingArguments, folder, cell, cell.learning_rate, cell.epochs, 16),
            alignment_loss=AlignmentLoss(cell.objective(), reference, layers, cell.weights),
            data_collator=AlignmentCollator(self.tokenizer.pad_token_id or 0),
            train_dataset=sets.get("train"),
            eval_dataset=sets["held out"],
        )
        if cell.pairs:
            trainer.train()
        return trainer.evaluate()["eval_word_retrieval_accuracy"]

    def _fine_tune(self, encoder: PreTrainedModel, cell: Cell, text: Text, folder: str) -> dict[str, float]:
        """Fine-tune a copy of the encoder on English examples; returns the score in each language."""
        tags, random = f"{cell.task}_tags", np.random.default_rng(cell.seed)
        labels = sorted({tag for row in text.train for tag in row[tags]})
        chosen = [text.train[k] for k in random.permutation(len(text.train))[: cell.examples]]
        shuffled = [reordered(row, tags, cell.word_order, random) for row in text.test]
        set_seed(cell.seed)  # (the head is random)
        model, _ = load_task_model(AutoModelForTokenClassification, self.model, labels)
        encode = partial(
            encode_tagged,
            column=tags,
            word_tokenizer=WordTokenizer(self.tokenizer, "start", MAX_LENGTH),
            label2id=model.config.label2id,
        )
        train, english, disguised = (_encoded(rows, tags, encode) for rows in (chosen, text.test, shuffled))
        disguised.rows = self.disguise(disguised.rows, "input_ids")
        model.resize_token_embeddings(encoder.config.vocab_size, mean_resizing=False)
        model.base_model.load_state_dict(encoder.state_dict(), strict=False)  # (without the pooler)
        spec, missing = TASKS[cell.task], MISSING_TAG[cell.task]

        def score(name: str, data: LanguageData, best: Any) -> tuple[list[dict[str, Any]], dict[str, float]]:
            records = predicted_tags(data, best, labels, tags, missing)
            contributions = [spec.score_prediction(record)[spec.selection_metric] for record in records]
            right, wrong, missed = map(sum, zip(*contributions))
            return records, {"score": 2 * right / max(1, 2 * right + wrong + missed)}

        trainer = ZeroShotTrainer(
            model=model,
            args=self._training(FineTuningArguments, folder, cell, cell.task_learning_rate, cell.task_epochs, 32),
            rows=TaskRows(train.rows, {}, {}),
            tokenizer=self.tokenizer,
            data_collator=DataCollatorForTokenClassification(self.tokenizer),
            score=score,
        )
        trainer.train()
        found = trainer.evaluate_sets({"english": english, "disguised": disguised}, "test")
        return {name: found[f"test_{name}_score"] for name in ("english", "disguised")}

    def _training(self, kind: Any, folder: str, cell: Cell, rate: float, epochs: int, batch_size: int) -> Any:
        return kind(
            output_dir=folder, learning_rate=rate, num_train_epochs=epochs, per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=64, seed=cell.seed, use_cpu=self.use_cpu, report_to="none", save_strategy="no",
            disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip


def _encoded(rows: Sequence[Mapping[str, Any]], tags: str, encode: Any) -> LanguageData:
    examples = [{"id": str(k), "tokens": row["tokens"], tags: row[tags]} for k, row in enumerate(rows)]
    return encoded(Dataset.from_list(examples), encode)


# --- Results -----------------------------------------------------------------------------------------------------


@dataclass
class Results:
    """The finished runs, in a file with a line each: `settings`, `data` (a fingerprint), and the scores."""

    path: Path

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.lines = list(rows_of(self.path)) if self.path.exists() else []

    def find(self, cell: Cell, data: str) -> dict[str, Any] | None:
        """The line of a cell. A setting that it does not name, being younger, has its default."""
        wanted, usual = asdict(cell), asdict(Cell())
        same = (line for line in self.lines if line["data"] == data and {**usual, **line["settings"]} == wanted)
        return next(same, None)

    def add(self, cell: Cell, data: str, scores: Mapping[str, float], seconds: float) -> dict[str, Any]:
        """Write a line, atomically."""
        facts = {"seconds": round(seconds), "machine": describe_machine(), "git_commit": run_record([])["git_commit"]}
        scores = {name: round(score, 4) for name, score in scores.items()}
        self.lines.append({"settings": asdict(cell), "data": data, **scores, **facts})
        write_json_lines(self.path, self.lines)
        return self.lines[-1]


def recovered(runs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> float | None:
    """The share of the gap that is recovered, over runs (original, adjusted); None if there is no gap."""
    gap = mean(original["english"] - original["disguised"] for original, _ in runs)
    return (
        mean(adjusted["disguised"] - original["disguised"] for original, adjusted in runs) / gap if gap > 0 else None
    )


def table(cells: Mapping[str, Sequence[tuple[Mapping[str, float], Mapping[str, float]]]]) -> ResultTable:
    """A line per cell, with means over the seeds in percent, and the standard deviation of what is recovered.

    `cells` gives the runs (original, adjusted) of each cell by its label.
    """
    rows = []
    for label, runs in cells.items():
        before, after = (
            {name: f"{100 * mean(run[side][name] for run in runs):.1f}" for name in ("words", "english", "disguised")}
            for side in (0, 1)
        )
        share, each = recovered(runs), [one for run in runs if (one := recovered([run])) is not None]
        spread = f" ± {100 * stdev(each):.0f}" if len(each) > 1 else ""
        both = [value for name in before for value in (before[name], after[name])]
        rows.append([label, str(len(runs)), *both, None if share is None else f"{100 * share:.0f}{spread}"])
    columns = [f"{name}: {side}" for name in ("words", "English", "disguised") for side in ("original", "adjusted")]
    return ResultTable(["cell", "seeds", *columns, "recovered"], rows)


def main() -> None:
    options, settings = parse_arguments(Options, Settings, description=__doc__)
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    laboratory, folder, path = (
        Laboratory(sample_model(), options.use_cpu),
        Path(options.data_dir),
        Path(options.results),
    )
    cells = list(cells_of(settings, options.grid))
    texts = {
        task: Text.read(folder, task, options.test_examples) for task in dict.fromkeys(cell.task for cell in cells)
    }
    prints = {task: text.fingerprint() for task, text in texts.items()}
    found: dict[str, list[tuple[Any, Any]]] = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        results = Results(path)

        def result(cell: Cell) -> dict[str, Any]:
            """That of the file, or of a run."""
            if line := results.find(cell, prints[cell.task]):
                return line
            begin = time.perf_counter()
            scores = laboratory.run(cell, texts[cell.task])
            line = results.add(cell, prints[cell.task], scores, time.perf_counter() - begin)
            print(
                f"{cell.label(Cell())}, seed {cell.seed}: {scores} ({line['seconds']} s)", file=sys.stderr, flush=True
            )
            return line

        for cell in cells:
            found.setdefault(cell.label(cells[0]), []).append((result(cell.original()), result(cell)))
    print(table(found).markdown())


if __name__ == "__main__":
    run_script(main)
