"""Tracking alignment during training: a callback for any `Trainer`, and its arguments and data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState

from utils.alignment.words import WordTokenizer
from utils.core.arguments import arg, check_unused, require
from utils.core.errors import InputError
from utils.evaluation.word_distances import draw_triples, measure_words, with_vectors
from utils.models.layers import encoder_of, in_evaluation_mode
from utils.parallel.aligners.registry import AlignerArguments
from utils.parallel.arguments import ParallelDataArguments
from utils.parallel.corpus import ChosenPairs, ParallelCorpus


class AlignmentTracker(TrainerCallback):
    """Measures held-out word links before the first step, every N optimizer steps and at the end, and logs the results.

    Logged beside the loss, wherever the trainer reports to (see `utils.evaluation.word_distances.WordDistances`):

    - `alignment_share_nearer`: share of links whose related word is nearer than an unrelated one;
    - `alignment_median_related`, `alignment_median_unrelated`: medians of their cosine distances;
    - `alignment_word_retrieval_accuracy`: mean of both directions.

    With several languages each has its own: `alignment_hi_share_nearer`. Training is bit-for-bit identical with and
    without it: no random number is drawn, and dropout is off only while measuring. Of several processes the first one
    measures while the others wait, so the model must be whole on each of them (no FSDP, no ZeRO-3).

    Example:

        AlignmentTracker({"hi": linked_pairs}, WordTokenizer(tokenizer), every=100).watch(trainer)

    Args:
        pairs: by language, held-out pairs with the columns `source`, `english` (lists of words) and `links`.
        word_tokenizer: of the model.
        every: optimizer steps between two measurements.
        layer: hidden state to measure: 0 the embeddings, -1 the last layer.

    Raises:
        InputError: if a language has no link to measure.
    """

    def __init__(
        self, pairs: Mapping[str, Dataset], word_tokenizer: WordTokenizer, every: int, layer: int = -1
    ) -> None:
        self.pairs = pairs
        self.word_tokenizer = word_tokenizer
        self.every = every
        self.layer = layer
        self.triples = {}
        for language, bitext in pairs.items():
            self.triples[language] = with_vectors(draw_triples(bitext), bitext, [word_tokenizer])
            why = f"there is none in {len(bitext)} held-out pairs, hold out more"
            require(len(self.triples[language]), [f"A link of {language} to track"], why)
        self.trainer: Trainer  # of `watch`

    def watch(self, trainer: Trainer) -> None:
        """Measure the model of this trainer while it trains, and log by it.

        Raises:
            InputError: with FSDP or DeepSpeed.
        """
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise InputError(
                "Alignment cannot be tracked in a model that is divided among processes; train without FSDP and "
                "DeepSpeed, or without --track_alignment_every."
            )
        self.trainer = trainer
        trainer.add_callback(self)

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: object) -> None:
        self._last_step: int | None = None
        if state.global_step == 0:
            self._log(state, control)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._log(state, control)

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if self._last_step != state.global_step:  # training stopped early
            self._log(state, control)

    def _log(self, state: TrainerState, control: TrainerControl) -> None:
        self._last_step = state.global_step
        if state.is_world_process_zero:
            due = control.should_log  # `log` resets it, but the loss is not logged yet
            self.trainer.log(self.measure())
            control.should_log = due
        self.trainer.accelerator.wait_for_everyone()

    def measure(self) -> dict[str, float]:
        """The metrics of the current model, as they are logged."""
        accelerator = self.trainer.accelerator
        encoder = encoder_of(accelerator.unwrap_model(self.trainer.model, keep_torch_compile=False))
        numbers = {}
        for language, bitext in self.pairs.items():
            with in_evaluation_mode(encoder):
                measured = measure_words(
                    encoder, self.word_tokenizer, bitext, self.triples[language], [self.layer], ["cosine"],
                    self.trainer.args.eval_batch_size, accelerator.autocast,
                )  # fmt: skip
            found = measured[self.layer]["cosine"]
            name = f"alignment_{language}" if len(self.pairs) > 1 else "alignment"
            numbers[f"{name}_share_nearer"] = found.share_nearer
            numbers[f"{name}_median_related"] = float(np.median(found.related))
            numbers[f"{name}_median_unrelated"] = float(np.median(found.unrelated))
            numbers[f"{name}_word_retrieval_accuracy"] = (found.to_english + found.from_english) / 2
        return numbers


@dataclass
class TrackingArguments:
    """Tracking alignment during training."""

    track_alignment_every: int | None = arg(
        None,
        help="Measure held-out word links every N steps, and log beside the loss how often the linked word is nearer "
        "than another, distances, and word retrieval. Needs --language and parallel sentences (0: do not).",
        at_least=0,
    )
    tracking_file: list[str] | None = arg(
        None,
        help="Held-out pairs to measure, in the formats of --parallel_file. Default: a part of the parallel data "
        "that --continual then does not see.",
    )
    tracking_links_file: list[str] | None = arg(None, help="Word links of --tracking_file. Default: from the aligner.")
    tracking_split_percentage: float = arg(
        2.0,
        help="Without --tracking_file, hold out about this percentage of the parallel data: the same sentences as "
        "run_align.py --validation_split_percentage, however they are split into words and linked.",
        above=0,
        below=100,
    )
    max_tracking_pairs: int = arg(200, help="Measure at most this many pairs per language.", at_least=1)

    def __post_init__(self) -> None:
        if not self.track_alignment_every:
            check_unused(self, "track_alignment_every", but=["track_alignment_every"])
        if self.tracking_links_file and not self.tracking_file:
            raise InputError("--tracking_links_file belongs to --tracking_file, which is missing; give both.")

    def check(self, parallel: ParallelDataArguments, do_train: bool) -> None:
        """Stop if alignment is to be tracked but nothing is trained, or there are no pairs to track."""
        if not self.track_alignment_every:
            return
        if not do_train:
            raise InputError("--track_alignment_every does nothing without --do_train; add it.")
        require(parallel.languages, ["--language"], "--track_alignment_every needs a language to compare with English")
        pairs = self.tracking_file or parallel.parallel_dataset or parallel.parallel_file
        names = ["--tracking_file", "--parallel_dataset", "--parallel_file"]
        require(pairs, names, "--track_alignment_every needs parallel sentences")

    @property
    def held_out_share(self) -> float | None:
        """The share (0 to 1) of the parallel data that is tracked, and that nothing may learn from."""
        by_split = self.track_alignment_every and not self.tracking_file
        return self.tracking_split_percentage / 100 if by_split else None


# Arguments of continual learning that tracking uses without it.
NEEDED_FOR_TRACKING = frozenset(
    {item.name for group in (ParallelDataArguments, AlignerArguments) for item in fields(group)}
    - {"max_train_pairs", "write_links", "write_dictionary", "min_dictionary_count"}
    | {"word_pooling", "alignment_layer", "reference_model"}
)


def read_tracked_corpus(
    tracking: TrackingArguments,
    parallel: ParallelDataArguments,
    links: AlignerArguments,
    word_tokenizer: WordTokenizer,
    hub_options: Mapping[str, Any],
) -> ParallelCorpus:
    """The pairs of `--tracking_file`; without it those of the training, of which a share is held out."""
    files, links_files, purpose = parallel.parallel_file, links.links_file, "parallel"
    if tracking.tracking_file:
        files, links_files, purpose = tracking.tracking_file, tracking.tracking_links_file, "tracking"
    tokenizer, word_pooling = word_tokenizer.tokenizer, word_tokenizer.word_pooling
    return ParallelCorpus.read(
        parallel, tokenizer, word_pooling, files, links_files, purpose=purpose, hub_options=hub_options
    )


def choose_tracked_pairs(
    corpus: ParallelCorpus,
    tracking: TrackingArguments,
    parallel: ParallelDataArguments,
    links: AlignerArguments,
    word_tokenizer: WordTokenizer,
    reference: Callable[[], PreTrainedModel],
) -> ChosenPairs:
    """The held-out pairs that `AlignmentTracker` measures, linked; `reference` loads the encoder that links, if needed.

    Raises:
        InputError: if there are none.
    """
    encoder = reference() if "encoder" in corpus.aligners(links) else None
    linkable = corpus.linkable(links, encoder, word_tokenizer)
    return linkable.choose_to_measure(parallel.max_words, tracking.max_tracking_pairs, tracking.held_out_share)
