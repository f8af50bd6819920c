"""What an alignment assumes for causal models (Llama, Qwen, Gemma), where the command line does not say."""

from transformers import PreTrainedModel

from utils.alignment.objectives import AlignmentArguments
from utils.core.arguments import announce, is_given
from utils.models.layers import is_causal


def assume_for_causal(arguments: AlignmentArguments, encoder: PreTrainedModel) -> None:
    """Set arguments that were not given to what suits a causal model, and announce them; nothing for other models.

    A word's vector is its last subword, the only one that has seen the whole word; special tokens are not linked, for
    the first token has seen nothing but itself; and the middle layer is aligned, in which decoders are nearest to a
    common space of languages, while the last ones predict the next token (Liu and Niehues, ACL 2025).
    """
    if not is_causal(encoder):
        return
    middle = encoder.config.num_hidden_layers // 2
    suited = {"word_pooling": "end", "include_special_tokens": False, "alignment_layer": [middle]}
    assumed = {name: value for name, value in suited.items() if not is_given(arguments, name)}
    vars(arguments).update(assumed)
    announce({f"--{name}": value for name, value in assumed.items()}, "for a causal model")
