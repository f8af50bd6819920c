"""What continual learning and tracking add to a task: parallel pairs, linked, and the original encoder."""

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from utils.alignment.continual import ContinualAlignment
from utils.alignment.losses import AlignmentLoss
from utils.alignment.pairs import AlignmentCollator, PairEncoder
from utils.alignment.words import WordTokenizer
from utils.core.errors import InputError
from utils.models.adapters import without_adapter
from utils.models.encoders import check_same_kind, load_encoder
from utils.models.layers import encoder_of
from utils.models.lineage import original_model
from utils.models.tokenizers import encoder_max_length
from utils.parallel.corpus import ParallelCorpus
from utils.tasks.arguments import TaskArguments
from utils.training.tracking import AlignmentTracker, read_tracked_pairs


def continual_alignment(
    args: TaskArguments, model: Any, tokenizer: PreTrainedTokenizerBase
) -> tuple[ContinualAlignment | None, dict[str, Any]]:
    """With --continual, the parallel pairs and the losses that are kept beside the task loss.

    Args:
        args: of the run.
        model: the task model, possibly with an adapter.
        tokenizer: of the model.

    Returns:
        Pairs and losses (None without --continual), and the facts about them for `run.json`.

    Raises:
        InputError: for pairs that cannot be used, or an original model that is missing or of another kind.
    """
    if not args.continual.continual:
        return None, {}
    words = _word_tokenizer(args, model, tokenizer)
    reference = _reference_encoder(args, model)
    with args.training.main_process_first(desc="preparing the pairs"):
        corpus = ParallelCorpus.read(
            args.parallel,
            tokenizer,
            words.word_pooling,
            args.parallel.parallel_file,
            args.links.links_file,
            hub_options=args.hub_options,
        )
        linkable = corpus.linkable(args.links, reference, words)
        if args.training.should_save:
            linkable.write_links(args.links)
        if args.tracking.held_out_share:
            linkable, _ = linkable.split(args.tracking.held_out_share)
        encoder = PairEncoder(words, args.continual.include_special_tokens)
        pairs = linkable.choose(args.parallel.max_words, args.parallel.max_train_pairs, args.pair_seed, encoder)
    facts = {"reference_model": reference.name_or_path, "parallel_data": pairs.fingerprints()}
    frozen: Any = reference
    if args.lora.use_lora and reference.name_or_path == args.model.model_name_or_path:
        frozen = without_adapter(model)  # (the copy that linked the words is freed)
    alignment = ContinualAlignment(
        pairs.all_rows,
        AlignmentLoss(args.continual.objective(), frozen, args.continual.alignment_layer, args.continual.weights),
        AlignmentCollator(tokenizer.pad_token_id or 0, pad_to_multiple_of=8 if args.training.bf16 else None),
        args.continual.alignment_batch_size,
        args.continual.alignment_every,
        args.pair_seed,
    )
    return alignment, facts


def alignment_tracker(
    args: TaskArguments, model: Any, tokenizer: PreTrainedTokenizerBase
) -> tuple[AlignmentTracker | None, dict[str, Any]]:
    """With --track_alignment_every, the callback that measures held-out pairs; arguments and results as above."""
    if not args.tracking.track_alignment_every:
        return None, {}
    words = _word_tokenizer(args, model, tokenizer)
    with args.training.main_process_first(desc="preparing the pairs that are tracked"):
        corpus = read_tracked_pairs(
            args.tracking, args.parallel, args.links, words, lambda: _reference_encoder(args, model), args.hub_options
        )
    tracker = AlignmentTracker(
        corpus.pairs, words, args.tracking.track_alignment_every, args.continual.alignment_layer
    )
    return tracker, {"tracking_data": corpus.fingerprints()}


def _word_tokenizer(args: TaskArguments, model: Any, tokenizer: PreTrainedTokenizerBase) -> WordTokenizer:  # noqa: ANN401
    encoder: Any = encoder_of(model)
    args.continual.check_layer(encoder.config.num_hidden_layers)
    return WordTokenizer(tokenizer, args.continual.word_pooling, encoder_max_length(tokenizer, encoder))


def _reference_encoder(args: TaskArguments, model: Any) -> PreTrainedModel:  # noqa: ANN401
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
            f"--reference_model. ({error})"
        ) from None
    check_same_kind(encoder_of(model), reference)  # type: ignore[arg-type]  # (a module, by its annotation)
    return reference.to(args.training.device)
