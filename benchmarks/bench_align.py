#!/usr/bin/env python
"""How much of an adjustment's time is the encoder's own work?

    python benchmarks/bench_align.py --json align.json

The bare work of a batch of pairs: forward and backward of both sides through the encoder f, forward of the English side
through the frozen encoder f0, and the optimizer's step. The real work: a step of `AlignmentTrainer`, from the data loader
to the optimizer. Both are timed on the same batches, in turns, step by step, so that whatever else the machine does
affects both equally. On a GPU in bfloat16 (autocast), on a CPU in fp32, unless --bf16 is given.

Without --parallel_file the pairs are made of the embedded sentences: one to four in a row, most often one, so that lengths
are spread as in real corpora.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any


sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase, TrainerCallback

from benchmarks.measuring import PeakMemory, describe_machine, forward_flops, peak_flops, synchronize, write_report
from data.sample_model import sample_model
from utils.alignment.losses import AlignmentLoss
from utils.alignment.objectives import OBJECTIVES, AlignmentArguments
from utils.alignment.pairs import AlignmentCollator, encode_pairs
from utils.alignment.words import WordTokenizer, split_on_punctuation
from utils.core.errors import run_script
from utils.core.tables import read_lines
from utils.models.encoders import load_encoder
from utils.models.layers import freeze_unused_parameters
from utils.models.tokenizers import encoder_max_length, load_tokenizer
from utils.training.alignment_trainer import AlignmentTrainer
from utils.training.arguments import AlignTrainingArguments


DATA = Path(__file__).resolve().parent.parent / "data" / "parallel"
# The first steps warm up caches and allocators.
WARM_UP = 3


def main() -> None:
    args = parse_arguments()
    name = args.model or sample_model()
    encoder, tokenizer = load_encoder(name), load_tokenizer(name)
    freeze_unused_parameters(encoder)
    pairs = read_pairs(args.parallel_file, args.pairs)
    words = WordTokenizer(tokenizer, max_length=encoder_max_length(tokenizer, encoder))
    rows = encode_pairs(Dataset.from_list(pairs), words)

    bare = BareSteps(copy.deepcopy(encoder), load_encoder(name))
    with TemporaryDirectory() as folder:
        memory = peak_of_training(trainer_for(copy.deepcopy(encoder), name, rows, tokenizer, folder, args, steps=5))
        trainer = trainer_for(encoder, name, rows, tokenizer, folder, args)
        trainer.add_callback(turns := InTurns(bare, trainer))
        trainer.train()
    report = summary(turns, trainer, args.batch_size, memory)
    print("\n".join(f"{key:28} {value}" for key, value in report.items()))
    if args.json:
        write_report(args.json, {**report, "arguments": vars(args)})


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="encoder: Hub id or folder (default: the sample encoder)")
    parser.add_argument("--parallel_file", nargs="+", help=".jsonl files of pairs, also .gz: {'en': …, 'hi': …}")
    parser.add_argument("--alignment_objective", default="mse", choices=list(OBJECTIVES))
    parser.add_argument("--batch_size", type=int, default=32, help="pairs in a step (default: 32)")
    parser.add_argument("--pairs", type=int, default=6400, help="pairs that batches are made of (default: 6400)")
    parser.add_argument("--steps", type=int, default=40, help="steps to train (default: 40)")
    parser.add_argument("--use_cpu", action="store_true", help="leave the GPU alone")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 on a CPU, too")
    parser.add_argument("--json", help="write the numbers there")
    return parser.parse_args()


# --- Data --------------------------------------------------------------------------------------------------------


def read_pairs(files: Sequence[str] | None, n_pairs: int) -> list[dict[str, list]]:
    """So many pairs of word lists, linked from both ends inwards (which words are linked does not matter for the time)."""
    random = np.random.default_rng(0)
    sentences = []
    for file in files or sorted(map(str, DATA.glob("*.jsonl"))):
        for _, line in read_lines(file):
            row = json.loads(line)
            source = next(text for key, text in row.items() if key not in ("en", "source", "id"))
            sentences.append((split_on_punctuation(source), split_on_punctuation(row["en"])))
    pairs = []
    for begin in random.integers(len(sentences) - 4, size=n_pairs):
        n_joined = 1 if files else random.choice([1, 2, 3, 4], p=[0.55, 0.25, 0.12, 0.08])
        source, english = ([word for pair in sentences[begin : begin + n_joined] for word in pair[k]] for k in (0, 1))
        links = [[k, k] for k in range(0, min(len(source), len(english)), 2)]
        pairs.append({"source": source[:100], "english": english[:100], "links": links[:50]})
    return pairs


# --- The real work -----------------------------------------------------------------------------------------------


def trainer_for(
    encoder: nn.Module,
    name: str,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    folder: str,
    args: argparse.Namespace,
    steps: int | None = None,
) -> AlignmentTrainer:
    on_gpu = torch.accelerator.is_available() and not args.use_cpu
    training = AlignTrainingArguments(
        output_dir=folder, per_device_train_batch_size=args.batch_size, max_steps=steps or args.steps, use_cpu=not on_gpu, bf16=on_gpu or args.bf16,
        report_to="none", save_strategy="no", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    objective = AlignmentArguments(alignment_objective=args.alignment_objective).objective()
    return AlignmentTrainer(
        model=encoder,
        args=training,
        alignment_loss=AlignmentLoss(objective, load_encoder(name)),
        data_collator=AlignmentCollator(tokenizer.pad_token_id or 0, pad_to_multiple_of=8 if on_gpu else None),
        train_dataset=rows,
    )


def peak_of_training(trainer: AlignmentTrainer) -> float:
    """MB that a short training needs beyond the encoders and the data."""
    with PeakMemory(trainer.args.device) as memory:
        trainer.train()
    return memory.growth_mb


# --- The bare work -----------------------------------------------------------------------------------------------


@dataclass
class BareSteps:
    """Nothing but the passes that cannot be spared, and the optimizer."""

    encoder: nn.Module
    reference: nn.Module

    def prepare(self, trainer: AlignmentTrainer) -> None:
        """On the same device, with the same optimizer and precision."""
        self.encoder.to(trainer.args.device).train()
        self.reference.to(trainer.args.device).eval().requires_grad_(False)
        weights = [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]
        kind, options = trainer.get_optimizer_cls_and_kwargs(trainer.args)
        self.optimizer = kind(weights, **options)
        self.autocast = trainer.accelerator.autocast

    def __call__(self, batch: dict[str, torch.Tensor]) -> None:
        self.optimizer.zero_grad()
        inputs = {
            side: {name: batch[f"{side}_{name}"] for name in ("input_ids", "attention_mask")}
            for side in ("source", "english")
        }
        with self.autocast():
            states = [self.encoder(**of_side).last_hidden_state for of_side in inputs.values()]
            with torch.no_grad():
                self.reference(**inputs["english"])
        sum(state.float().square().mean() for state in states).backward()
        self.optimizer.step()


class InTurns(TrainerCallback):
    """After every real step the bare one on the same batch; both are timed."""

    def __init__(self, bare: BareSteps, trainer: AlignmentTrainer) -> None:
        self.bare, self.trainer = bare, trainer
        self.real_seconds: list[float] = []
        self.bare_seconds: list[float] = []
        self.batches: list[dict[str, torch.Tensor]] = []
        collate = trainer.data_collator
        self._collated: list[dict[str, torch.Tensor]] = []

        def remember(rows: Sequence[Any]) -> dict[str, torch.Tensor]:
            self._collated.append(batch := collate(rows))
            return batch

        trainer.data_collator = remember

    def on_train_begin(self, *arguments: object, **kwargs: object) -> None:
        self.bare.prepare(self.trainer)
        self._begin = time.perf_counter()

    def on_step_end(self, *arguments: object, **kwargs: object) -> None:
        synchronize()
        end = time.perf_counter()
        self.real_seconds.append(end - self._begin)
        collated = self._collated[len(self.batches)]
        batch = {name: tensor.to(self.trainer.args.device) for name, tensor in collated.items()}
        self.batches.append({name: batch[name].cpu() for name in ("source_attention_mask", "english_attention_mask")})
        begin = time.perf_counter()
        self.bare(batch)
        synchronize()
        self._begin = time.perf_counter()
        self.bare_seconds.append(self._begin - begin)


# --- Report ------------------------------------------------------------------------------------------------------


def summary(turns: InTurns, trainer: AlignmentTrainer, batch_size: int, memory: float) -> dict[str, Any]:
    """What is printed: of all steps but the first few."""
    real, bare = sum(turns.real_seconds[WARM_UP:]), sum(turns.bare_seconds[WARM_UP:])
    masks = [mask for batch in turns.batches[WARM_UP:] for mask in batch.values()]
    tokens, room = sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)
    n_pairs = batch_size * len(turns.real_seconds[WARM_UP:])
    lengths = {
        side: [n for batch in turns.batches[WARM_UP:] for n in batch[f"{side}_attention_mask"].sum(dim=1).tolist()]
        for side in ("source", "english")
    }
    encoder = turns.bare.encoder
    flops = 3 * sum(forward_flops(encoder, of_side) for of_side in lengths.values())
    flops += forward_flops(encoder, lengths["english"])
    peak = peak_flops(trainer.args.device, torch.bfloat16 if trainer.args.bf16 else torch.float32)
    return {
        "machine": describe_machine(),
        # Of the two times of the same batch: one step that something else has held up does not count.
        "ratio": round(median(b / r for b, r in zip(turns.bare_seconds[WARM_UP:], turns.real_seconds[WARM_UP:])), 3),
        "pairs_per_second": round(n_pairs / real, 2),
        "bare_pairs_per_second": round(n_pairs / bare, 2),
        "tokens_per_second": round(tokens / real),
        "padding_share": round(1 - tokens / room, 4),
        "tflops_per_second": round(flops / real / 1e12, 3),
        "fraction_of_peak": round(flops / real / peak, 3) if peak else None,
        "training_memory_mb": round(memory),
        "n_parameters": sum(parameter.numel() for parameter in encoder.parameters()),
    }


if __name__ == "__main__":
    run_script(main)
