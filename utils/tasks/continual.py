"""What continual learning and tracking add to a task: parallel pairs, linked, and the original encoder."""

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.alignment.continual import ContinualAlignment
from utils.alignment.losses import AlignmentLoss
from utils.alignment.pairs import AlignmentCollator, PairEncoder
from utils.alignment.vocabulary import vocabulary_fit
from utils.alignment.words import WordTokenizer
from utils.core.errors import InputError
from utils.models.adapters import without_adapter
from utils.models.encoders import check_same_kind, load_encoder
from utils.models.layers import aligned_layers, encoder_of
from utils.models.lineage import original_model
from utils.models.tokenizers import encoder_max_length
from utils.parallel.corpus import ChosenPairs, ParallelCorpus
from utils.parallel.data_sets import check_held_out
from utils.tasks.arguments import TaskArguments
from utils.training.tracking import AlignmentTracker, choose_tracked_pairs, read_tracked_corpus


def continual_alignment(
    args: TaskArguments, model: Any, tokenizer: PreTrainedTokenizerBase
) -> tuple[ContinualAlignment | None, AlignmentTracker | None, dict[str, Any]]:
    """With --continual the pairs and losses beside the task loss, with --track_alignment_every the measuring callback.

    Args:
        model: the task model, possibly with an adapter.

    Returns:
        Pairs and losses, the callback (each None without its argument), and the facts about both for `run.json`.

    Raises:
        InputError: for pairs that cannot be used, or an original model that is missing or of another kind.
    """
    continual, tracking, parallel, links = args.continual, args.tracking, args.parallel, args.links
    alignment: ContinualAlignment | None = None
    tracker: AlignmentTracker | None = None
    tracked: ParallelCorpus | None = None
    facts: dict[str, Any] = {}
    if not (continual.continual or tracking.track_alignment_every):
        return None, None, facts
    encoder: Any = encoder_of(model)
    layers = continual.alignment_layer = aligned_layers(continual.alignment_layer, encoder.config.num_hidden_layers)
    words = WordTokenizer(tokenizer, continual.word_pooling, encoder_max_length(tokenizer, encoder))
    if tracking.track_alignment_every:
        with args.training.main_process_first(desc="preparing the pairs that are tracked"):
            tracked = read_tracked_corpus(tracking, parallel, links, words, args.hub_options)
            held_out = choose_tracked_pairs(
                tracked, tracking, parallel, links, words, lambda: _reference_encoder(args, model)
            )
        tracker = AlignmentTracker(held_out.pairs, words, tracking.track_alignment_every, layers[-1])
        facts["tracking_data"] = held_out.fingerprints()
    if continual.continual:
        reference: Any = _reference_encoder(args, model)
        pairs = _linked_pairs(args, words, reference, tracked)
        facts |= {"reference_model": reference.name_or_path, "parallel_data": pairs.fingerprints()}
        facts["vocabulary"] = vocabulary_fit(words, pairs.pairs, parallel.directions)
        if args.lora.use_lora and reference.name_or_path == args.model.model_name_or_path:
            reference = without_adapter(model)  # (the copy that linked the words is freed)
        alignment = ContinualAlignment(
            pairs.all_rows,
            AlignmentLoss(continual.objective(), reference, layers, continual.weights),
            AlignmentCollator(tokenizer.pad_token_id or 0, 8 if args.training.bf16 else None, list(pairs.data)),
            continual.alignment_batch_size,
            continual.alignment_every,
            args.pair_seed,
            continual.log_gradient_cosine,
            continual.sampling,
        )
    return alignment, tracker, facts


def _linked_pairs(
    args: TaskArguments, words: WordTokenizer, reference: PreTrainedModel, tracked: ParallelCorpus | None
) -> ChosenPairs:
    parallel, files, links = args.parallel, args.parallel.parallel_file, args.links.links_file
    with args.training.main_process_first(desc="preparing the pairs"):
        corpus = ParallelCorpus.read(
            parallel, words.tokenizer, words.word_pooling, files, links, hub_options=args.hub_options
        )
        if tracked and args.tracking.tracking_file:
            check_held_out(tracked.pairs, corpus.pairs, "--tracking_file")
        linkable = corpus.linkable(args.links, reference, words)
        if args.training.should_save:
            linkable.write_links(args.links)
        if args.tracking.held_out_share:
            linkable, _ = linkable.split(args.tracking.held_out_share)
        linkable = linkable if args.continual.needs_links else linkable.unlinked()
        encoder = PairEncoder(words, args.continual.include_special_tokens)
        return linkable.choose(parallel.max_words, parallel.max_train_pairs, args.pair_seed, encoder)


def _reference_encoder(args: TaskArguments, model: Any) -> PreTrainedModel:
    """The encoder before any adjustment (f0), on the device of the training."""
    options = args.model.hub_options()
    name, revision = args.continual.reference_model, "main"
    if name is None:
        name, revision = original_model(args.model.model_name_or_path, **options)
    try:
        reference: Any = load_encoder(name, **{**options, "revision": revision})
    except InputError as error:
        if name in (args.continual.reference_model, args.model.model_name_or_path):
            raise
        raise InputError(
            f"{args.model.model_name_or_path} was made from {name}, which cannot be loaded; name its new place with "
            "--reference_model."
        ) from error
    check_same_kind(encoder_of(model), reference)  # type: ignore[arg-type]  # (a module, by its annotation)
    return reference.to(args.training.device)
