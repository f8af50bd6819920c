#!/usr/bin/env python
"""What does sentence retrieval cost, compared with the encoder's bare passes, and how does the search scale?

    python benchmarks/bench_retrieval.py --json retrieval.json
    python benchmarks/bench_retrieval.py --quick

First, sentences to vectors. `encoder` is the bare forward pass over batches that are tokenized, sorted by length, padded
and on the device already; `retrieval` is `utils.evaluation.vectors.encode_sentences`, from text to vectors at the layers that
`run_xsr.py` compares. They take turns in one process; the ratio says how much of the encoder's speed is left.

Then the nearest-neighbor search, with random vectors: `retrieve`, against nothing but the matrix products of the same
size, in the same blocks. Beyond --max_comparisons, fewer queries search all candidates; the cost of a query is the same.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any


sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from benchmarks.measuring import (
    PeakMemory,
    describe_machine,
    forward_flops,
    interleaved_medians,
    peak_flops,
    peak_memory_mb,
    seconds_of,
    write_report,
)
from data.sample_model import sample_model
from utils.core.errors import run_script
from utils.evaluation.neighbors import RETRIEVAL_DISTANCES, default_block_size, retrieve
from utils.evaluation.vectors import encode_sentences
from utils.models.encoders import load_encoder
from utils.models.layers import parse_layers
from utils.models.tokenizers import encoder_max_length, load_tokenizer


_DATA = Path(__file__).resolve().parent.parent / "data"


# --- Sentences to vectors ----------------------------------------------------------------------------------------


def embedded_sentences(n: int) -> list[str]:
    """n different sentences in five languages, in random order; more than there are differ in a number at the end."""
    paths = sorted([*_DATA.glob("xsr/*.jsonl"), *_DATA.glob("parallel/*.jsonl")])
    rows = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    there_are = list(dict.fromkeys(sentence for row in rows for sentence in row.values()))
    order = torch.randperm(len(there_are), generator=torch.Generator().manual_seed(0)).tolist()
    rounds = (divmod(i, len(order)) for i in range(n))
    return [there_are[order[i]] + (f" {number}" if number else "") for number, i in rounds]


def padded_batches(
    ids: Sequence[Sequence[int]], batch_size: int, pad_token_id: int, device: torch.device
) -> list[dict[str, torch.Tensor]]:
    """What the bare encoder gets: like lengths together, the longest first."""
    by_length = sorted((torch.tensor(sentence) for sentence in ids), key=len, reverse=True)
    batches = []
    for begin in range(0, len(by_length), batch_size):
        batch = by_length[begin : begin + batch_size]
        input_ids = pad_sequence(batch, batch_first=True, padding_value=pad_token_id)
        mask = pad_sequence([torch.ones_like(sentence) for sentence in batch], batch_first=True)
        batches.append({"input_ids": input_ids.to(device), "attention_mask": mask.to(device)})
    return batches


@torch.inference_mode()
def forward_all(model: PreTrainedModel, batches: Sequence[dict[str, torch.Tensor]]) -> None:
    """The bare encoder's work."""
    for batch in batches:
        model(**batch)


def measure_encoding(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sequence[str],
    layers: Sequence[int],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Sentences and tokens per second of the bare encoder and of the retrieval, and how they compare."""
    limit = encoder_max_length(tokenizer, model)
    ids = tokenizer(list(sentences), truncation=True, max_length=limit, verbose=False)["input_ids"]
    batches = padded_batches(ids, args.batch_size, tokenizer.pad_token_id or 0, model.device)
    n_tokens = sum(map(len, ids))

    def precision() -> AbstractContextManager:
        return torch.autocast(model.device.type, torch.bfloat16, enabled=args.bf16)

    def encoder() -> None:
        with precision():
            forward_all(model, batches)

    def retrieval() -> None:
        with precision():
            encode_sentences(model, tokenizer, sentences, layers, batch_size=args.batch_size)

    seconds = interleaved_medians({"encoder": encoder, "retrieval": retrieval}, args.repeats)
    peak = peak_flops(model.device, torch.bfloat16 if args.bf16 else torch.float32)
    flops = forward_flops(model, [len(sentence) for sentence in ids])
    return {
        "sentences": len(sentences),
        "tokens": n_tokens,
        "layers": list(layers),
        "padding_share": 1 - n_tokens / sum(batch["input_ids"].numel() for batch in batches),
        "sentences_per_second": {name: len(sentences) / time for name, time in seconds.items()},
        "tokens_per_second": {name: n_tokens / time for name, time in seconds.items()},
        "ratio": seconds["encoder"] / seconds["retrieval"],
        "model_gflop_per_second": {name: flops / time / 1e9 for name, time in seconds.items()},
        "fraction_of_peak": {name: flops / time / peak for name, time in seconds.items()} if peak else "unknown",
        "peak_memory_mb": peak_memory_mb(model.device),
    }


def print_encoding(result: dict[str, Any]) -> None:
    print(
        f"{result['sentences']:,} sentences, {result['tokens']:,} tokens, padding {100 * result['padding_share']:.1f} %, "
        f"layers {' '.join(map(str, result['layers']))}\n\n{'':10} sentences/s  tokens/s  GFLOP/s  of peak"
    )
    for name in ("encoder", "retrieval"):
        of_peak = result["fraction_of_peak"]
        share = of_peak if isinstance(of_peak, str) else f"{100 * of_peak[name]:.1f} %"
        print(
            f"{name:10} {result['sentences_per_second'][name]:11,.0f} {result['tokens_per_second'][name]:9,.0f} "
            f"{result['model_gflop_per_second'][name]:8,.0f}  {share}"
        )
    memory = result["peak_memory_mb"]
    print(f"ratio {result['ratio']:.3f}, peak memory {'unknown' if memory is None else f'{memory:,.0f} MB'}\n")


# --- Nearest neighbors ------------------------------------------------------------------------------------------


def matrix_products(queries: torch.Tensor, candidates: torch.Tensor, block_size: int) -> None:
    """The products of all queries with all candidates, and nothing else."""
    scores = queries.new_empty(block_size, block_size)
    for query in queries.split(block_size):
        for candidate in candidates.split(block_size):
            torch.mm(query, candidate.T, out=scores[: len(query), : len(candidate)])


def measure_search(n_candidates: int, args: argparse.Namespace) -> dict[str, Any]:
    """How fast the search is among n candidates, and how much memory it needs beyond the vectors."""
    n_queries = max(1, min(n_candidates, args.max_comparisons // n_candidates))
    candidates = _random_directions(n_candidates, args.width, args.device)
    queries = _random_directions(n_queries, args.width, args.device)
    block_size = default_block_size(queries.device)
    search = partial(retrieve, queries, candidates, args.distance)
    memory = PeakMemory(queries.device)
    with memory:
        search()
    functions = {
        "products": lambda: matrix_products(queries, candidates, block_size),
        "search": search,
    }
    if n_queries * n_candidates <= 1e8:
        seconds = interleaved_medians(functions, args.repeats)
    else:  # minutes: once is enough, and the search above was the warm-up
        seconds = {name: seconds_of(function) for name, function in functions.items()}
    gflop = 2 * n_queries * n_candidates * args.width / 1e9
    return {
        "candidates": n_candidates,
        "queries": n_queries,
        "queries_per_second": n_queries / seconds["search"],
        "gflop_per_second": gflop / seconds["search"],
        "fraction_of_matrix_products": seconds["products"] / seconds["search"],
        "vectors_mb": (queries.nbytes + candidates.nbytes) / 1e6,
        "additional_memory_mb": memory.growth_mb,
    }


def _random_directions(n: int, width: int, device: torch.device) -> torch.Tensor:
    """n vectors [n, width] of length 1."""
    vectors = torch.randn(n, width, device=device)
    return vectors.div_(vectors.norm(dim=1, keepdim=True))


def print_search(result: dict[str, Any]) -> None:
    sampled = "" if result["queries"] == result["candidates"] else "  (a sample of queries)"
    print(
        f"{result['queries']:9,} x {result['candidates']:9,} {result['queries_per_second']:11,.0f} "
        f"{result['gflop_per_second']:9,.0f} {100 * result['fraction_of_matrix_products']:12.0f} % "
        f"{result['vectors_mb']:10,.0f} {result['additional_memory_mb']:13,.0f}{sampled}",
        flush=True,
    )


# --- Command -----------------------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="NAME", help="encoder; by default the sample encoder")
    parser.add_argument("--layers", nargs="+", help="as for run_xsr.py; by default the usual layer")
    parser.add_argument("--sentences", type=int, help="to encode (2,000 on a CPU, 100,000 on a GPU)")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="autocast (on a GPU)")
    parser.add_argument("--candidates", nargs="*", type=int, default=[1_000, 100_000, 1_000_000], metavar="N")
    parser.add_argument("--max_comparisons", type=lambda n: int(float(n)), default=10**10, metavar="N")
    parser.add_argument("--width", type=int, default=384, help="dimensions of the random vectors")
    parser.add_argument("--distance", choices=list(RETRIEVAL_DISTANCES), default="cosine")
    parser.add_argument("--repeats", type=int, default=5, help="medians are taken over these")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: small sizes, one repeat")
    parser.add_argument("--json", metavar="FILE", help="write the figures here as well")
    args = parser.parse_args()
    args.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = args.device.type != "cpu"
    args.bf16 = on_gpu if args.bf16 is None else args.bf16
    args.sentences = args.sentences or (100_000 if on_gpu else 2_000)
    if args.quick:
        args.sentences, args.repeats, args.candidates = min(args.sentences, 128), 1, [1_000, 5_000]
        args.max_comparisons = min(args.max_comparisons, 5_000_000)
    return args


def main() -> None:
    args = parse()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    name = args.model or sample_model()
    print(f"{describe_machine()}, {'bf16' if args.bf16 else 'fp32'}\n")

    model, tokenizer = load_encoder(name).to(args.device), load_tokenizer(name)
    layers = parse_layers(args.layers, model.config.num_hidden_layers)
    encoding = measure_encoding(model, tokenizer, embedded_sentences(args.sentences), layers, args)
    print_encoding(encoding)

    print("  queries x candidates   queries/s   GFLOP/s  of products  vectors MB  additional MB")
    results = []
    for n in args.candidates:
        results.append(measure_search(n, args))
        print_search(results[-1])
    if args.json:
        settings = {name: value for name, value in vars(args).items() if name not in ("device", "json", "model")}
        model_name = args.model or "sample"
        write_report(args.json, {**encoding, "search": results, "settings": settings, "model": model_name})


if __name__ == "__main__":
    run_script(main)
