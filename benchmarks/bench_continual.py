#!/usr/bin/env python
"""What does continual learning cost, compared with plain fine-tuning?

    python benchmarks/bench_continual.py --json continual.json

NLI at the paper's settings: 32 examples and 16 parallel pairs per step. Steps of a plain and of a continual run are
timed in turns, on the same examples. The yardstick is the count of tokens: forward and backward of a token is
three units, forward through the frozen model one. If the pairs cost what their tokens do, `cost / tokens` is 1.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory


sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from datasets import Dataset, concatenate_datasets, load_dataset
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, TrainerCallback

from benchmarks.bench_align import read_pairs
from benchmarks.measuring import describe_machine, synchronize, write_report
from data.sample_model import sample_model
from utils.alignment.continual import ContinualAlignment
from utils.alignment.losses import AlignmentLoss
from utils.alignment.objectives import CONTINUAL, MeanSquaredError
from utils.alignment.pairs import AlignmentCollator, encode_pairs
from utils.alignment.words import WordTokenizer
from utils.core.errors import run_script
from utils.models.encoders import load_encoder, load_task_model
from utils.models.tokenizers import encoder_max_length, load_tokenizer
from utils.tasks.arguments import FineTuningArguments
from utils.tasks.examples import TaskRows, encoded
from utils.tasks.sentence_pairs import encode_sentence_pairs, score
from utils.tasks.zero_shot_trainer import ZeroShotTrainer


DATA = Path(__file__).resolve().parent.parent / "data" / "nli"
LABELS = ["entailment", "neutral", "contradiction"]
WARM_UP = 2


def main() -> None:
    args = parse_arguments()
    name = args.model or sample_model()
    with TemporaryDirectory() as folder:
        trainers = {kind: trainer_for(kind, name, folder, args) for kind in ("plain", "continual")}
        clocks = {kind: Clock() for kind in trainers}
        for kind, trainer in trainers.items():
            trainer.add_callback(clocks[kind])
        for _ in range(args.repeats):
            for trainer in trainers.values():
                trainer.train()
    report = summary(clocks, trainers["continual"], args.steps)
    print("\n".join(f"{key:32} {value}" for key, value in report.items()))
    if args.json:
        write_report(args.json, {**report, "arguments": vars(args)})


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="encoder: Hub id or folder (default: the sample encoder)")
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn (default: 10)")
    parser.add_argument("--repeats", type=int, default=4, help="turns (default: 4)")
    parser.add_argument("--batch_size", type=int, default=32, help="examples in a step (default: 32)")
    parser.add_argument("--alignment_batch_size", type=int, default=16, help="pairs in a step (default: 16)")
    parser.add_argument("--use_cpu", action="store_true", help="compute on the CPU")
    parser.add_argument("--json", help="write the numbers there")
    return parser.parse_args()


def trainer_for(kind: str, name: str, folder: str, args: argparse.Namespace) -> ZeroShotTrainer:
    """The trainer of run_nli.py on the embedded examples; not grouped by length, so that all steps cost the same."""
    tokenizer = load_tokenizer(name)
    model, _ = load_task_model(AutoModelForSequenceClassification, name, LABELS)
    examples = concatenate_datasets(
        [load_dataset(str(DATA), "en", split="train")] * -(-args.steps * args.batch_size // 180)
    )
    encode = partial(
        encode_sentence_pairs,
        columns=("premise", "hypothesis"),
        tokenizer=tokenizer,
        max_length=128,
        label2id=model.config.label2id,
    )
    rows = TaskRows(encoded(examples, encode).rows, {}, {})
    on_gpu = torch.accelerator.is_available() and not args.use_cpu
    training = FineTuningArguments(
        output_dir=folder, per_device_train_batch_size=args.batch_size, max_steps=args.steps, use_cpu=not on_gpu, bf16=on_gpu,
        train_sampling_strategy="random", report_to="none", save_strategy="no", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    alignment = None if kind == "plain" else alignment_for(name, args, on_gpu)
    judge = partial(score, labels=LABELS)
    return ZeroShotTrainer(model, training, rows, tokenizer, DataCollatorWithPadding(tokenizer), judge, alignment)


def alignment_for(name: str, args: argparse.Namespace, on_gpu: bool) -> ContinualAlignment:
    tokenizer, reference = load_tokenizer(name), load_encoder(name)
    pairs = Dataset.from_list(read_pairs(None, 2 * args.steps * args.alignment_batch_size))
    return ContinualAlignment(
        encode_pairs(pairs, WordTokenizer(tokenizer, max_length=encoder_max_length(tokenizer, reference))),
        AlignmentLoss(MeanSquaredError(), reference, weights=CONTINUAL),
        AlignmentCollator(tokenizer.pad_token_id or 0, pad_to_multiple_of=8 if on_gpu else None),
        batch_size=args.alignment_batch_size,
    )


class Clock(TrainerCallback):
    """The time of every step but the first ones of a turn."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: object, state: object, control: object, **kwargs: object) -> None:
        if state.global_step == WARM_UP:
            synchronize()
            self._begin = time.perf_counter()

    def on_step_end(self, args: object, state: object, control: object, **kwargs: object) -> None:
        if state.global_step == state.max_steps:
            synchronize()
            self.seconds.append((time.perf_counter() - self._begin) / (state.max_steps - WARM_UP))


def summary(clocks: dict[str, Clock], trainer: ZeroShotTrainer, steps: int) -> dict[str, object]:
    """The time of a step of each kind, and the tokens that the models process in it, including padding."""
    seconds = {kind: median(clock.seconds) for kind, clock in clocks.items()}
    task = mean(batch["input_ids"].numel() for batch in trainer.get_train_dataloader())
    pairs = [trainer.alignment.batches(step, 1, [0])[0] for step in range(steps)]
    source, english = (mean(batch[f"{side}_input_ids"].numel() for batch in pairs) for side in ("source", "english"))
    tokens = 3 * (task + source + english) + english
    report: dict[str, object] = {"machine": describe_machine()}
    for kind, of_step in seconds.items():
        report[f"{kind}_seconds_per_step"] = round(of_step, 4)
    report["continual_cost"] = round(seconds["continual"] / seconds["plain"], 3)
    report["continual_tokens"] = round(tokens / (3 * task), 3)
    report["continual_cost_by_tokens"] = round(seconds["continual"] / seconds["plain"] / (tokens / (3 * task)), 3)
    report |= {"task_tokens": task, "source_tokens": source, "english_tokens": english}
    return report


if __name__ == "__main__":
    run_script(main)
