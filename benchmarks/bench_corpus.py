#!/usr/bin/env python
"""What does a large parallel corpus cost: time and memory of every step from the file to the first training steps?

    python benchmarks/bench_corpus.py --pairs 10000 100000 1000000 --json corpus.json
    python benchmarks/bench_corpus.py --pairs 1000000 --links dictionary --max_train_pairs 30000

The sentences are those of data/parallel, repeated with a number behind them so that no two pairs are the same. Every
size runs in a process of its own, with nothing cached. `links`: i-i in a file, or a word list made the same way.

Columns: pairs per second of each step (of the pairs that this step is given), then the peak of anonymous memory, which is
what a process cannot give back (mapped files do not count), until training and in it, and of all resident memory (Linux's
RssAnon, sampled, and VmHWM), in MB; `base` is the anonymous memory before the corpus is read, with the libraries and
the encoder loaded.
"""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any


sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import datasets
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, PrinterCallback
from transformers.utils import logging

from benchmarks.measuring import PeakMemory, write_report
from utils.alignment.losses import AlignmentLoss
from utils.alignment.objectives import MeanSquaredError
from utils.alignment.pairs import AlignmentCollator, PairEncoder
from utils.alignment.words import WordTokenizer, split_on_punctuation
from utils.core.errors import InputError, run_script
from utils.core.files import write_text
from utils.core.tables import read_json
from utils.models.encoders import load_encoder
from utils.models.tokenizers import encoder_max_length, load_tokenizer
from utils.parallel.aligners.registry import AlignerArguments
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.corpus import ParallelCorpus
from utils.training.alignment_trainer import AlignmentTrainer
from utils.training.arguments import AlignTrainingArguments


STEPS = ("read", "link", "choose", "record", "train")
SENTENCES = Path(__file__).resolve().parent.parent / "data" / "parallel"


def memory(name: str) -> float:
    """A figure of this process's memory in MB of 10⁶ bytes, by its name in /proc/self/status."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024 / 1e6


def write_corpus(folder: Path, language: str, n_pairs: int) -> None:
    """`pairs.tsv`, `pairs.links` and `words.txt` (a dictionary) with the given number of pairs."""
    rows = [row for _, row in read_json(str(SENTENCES / f"{language}.jsonl"))]
    pairs = [(row[language].split(), row["en"].split()) for row in rows]
    words = dict.fromkeys(chain.from_iterable(zip(*pair) for pair in pairs))
    write_text(folder / "words.txt", "".join(f"{source}\t{english}\n" for source, english in words))
    text = {"encoding": "utf-8", "newline": "\n"}
    with open(folder / "pairs.tsv", "w", **text) as sentences, open(folder / "pairs.links", "w", **text) as links:
        for k in range(n_pairs):
            source, english = pairs[k % len(pairs)]
            sentences.write(f"{' '.join(source)} {k}\t{' '.join(english)} {k}\n")
            links.write(" ".join(f"{i}-{i}" for i in range(min(len(source), len(english)))) + "\n")


def write_encoder(folder: Path, language: str) -> str:
    """A small encoder with random weights, whose tokenizer knows the words of the sentences, and digits."""
    text = (SENTENCES / f"{language}.jsonl").read_text(encoding="utf-8")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *sorted(set(split_on_punctuation(text)) - set("0123456789"))]
    pieces += [f"{prefix}{digit}" for prefix in ("", "##") for digit in range(10)]
    vocabulary = {piece: k for k, piece in enumerate(pieces)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    around = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=128,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder)
    return str(folder)


def measure(n_pairs: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Go from the file to the first training steps; pairs per second of every step, and memory in MB."""
    args = argparse.Namespace(**settings)
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        datasets.config.HF_DATASETS_CACHE = folder / "cache"
        write_corpus(folder, args.language, n_pairs)
        model = args.model or write_encoder(folder / "encoder", args.language)
        encoder, reference, tokenizer = load_encoder(model), load_encoder(model), load_tokenizer(model)
        words = WordTokenizer(tokenizer, max_length=encoder_max_length(tokenizer, encoder))
        data = ParallelDataArguments(
            languages=[args.language],
            preprocessing_num_workers=args.preprocessing_num_workers,
            word_splitting="space",
        )
        from_file = args.links == "file"
        links = AlignerArguments(
            aligner=args.links,
            links_file=[f"{folder}/pairs.links"] if from_file else None,
            dictionary_file=[f"{folder}/words.txt"] if args.links == "dictionary" else None,
        )
        result: dict[str, Any] = {"pairs": n_pairs, "pairs_per_second": {}, "anonymous": {}}
        result["anonymous"]["base"] = memory("RssAnon")

        @contextmanager
        def step(name: str, n: int = n_pairs) -> Iterator[None]:
            before, begin = memory("RssAnon"), time.perf_counter()
            with PeakMemory() as peak:
                yield
            result["pairs_per_second"][name] = n / (time.perf_counter() - begin)
            result["anonymous"][name] = before + peak.growth_mb

        with step("read"):
            corpus = ParallelCorpus.read(data, tokenizer, "avg", [f"{folder}/pairs.tsv"], links.links_file)
        with step("link"):
            linkable = corpus.linkable(links, reference, words)
        with step("choose"):
            encode = PairEncoder(words, include_special_tokens=True)
            pairs = linkable.choose(data.max_words, args.max_train_pairs, seed=1, encoder=encode)
        rows = pairs.all_rows
        with step("record", len(rows)):
            pairs.fingerprints()
        training = AlignTrainingArguments(
            f"{folder}/out", max_steps=args.steps, use_cpu=not torch.cuda.is_available(), disable_tqdm=True,
            report_to="none", save_strategy="no", logging_strategy="no",
        )  # fmt: skip
        trainer = AlignmentTrainer(
            encoder, training, AlignmentCollator(tokenizer.pad_token_id), rows,
            alignment_loss=AlignmentLoss(MeanSquaredError(), reference),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        with step("train", args.steps * training.train_batch_size):
            trainer.train()
        return result | {"drawn": len(rows), "VmHWM": memory("VmHWM")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--language", default="hi", choices=sorted(file.stem for file in SENTENCES.glob("*.jsonl")))
    parser.add_argument(
        "--links", default="file", choices=["file", "dictionary"], help="where the word links come from"
    )
    parser.add_argument("--max_train_pairs", type=int, help="draw at most this many; default: all that can be used")
    parser.add_argument("--steps", type=int, default=20, help="training steps, of 32 pairs")
    parser.add_argument("--model", metavar="NAME", help="encoder; default: one of two layers with random weights")
    parser.add_argument("--preprocessing_num_workers", type=int)
    parser.add_argument("--folder", help="where the corpus and the cache are written, and removed again")
    parser.add_argument("--json", metavar="FILE", help="write the figures here as well")
    args = parser.parse_args()
    if not Path("/proc/self/status").exists():
        raise InputError("This benchmark reads memory from /proc/self/status, which only Linux has; run it there.")

    print(
        f"{'pairs':>9} {'drawn':>9}"
        + "".join(f"{name:>9}" for name in STEPS)
        + "  |   base    until training    VmHWM"
    )
    results = []
    for n_pairs in args.pairs:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            result = process.submit(measure, n_pairs, vars(args)).result()
        results.append(result)
        paces = "".join(f"{result['pairs_per_second'][name]:9.0f}" for name in STEPS)
        memory_of = result["anonymous"]
        until_training = max(memory_of[name] for name in STEPS[:-1])
        sizes = f"{memory_of['base']:7.0f}{until_training:9.0f}{memory_of['train']:9.0f}{result['VmHWM']:9.0f}"
        print(f"{n_pairs:9} {result['drawn']:9}{paces}  |{sizes}", flush=True)
    if args.json:
        write_report(args.json, {"arguments": vars(args), "results": results})


if __name__ == "__main__":
    run_script(main)
