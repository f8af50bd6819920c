"""Labels of English words projected to the words of a translation along word links."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

from utils.evaluation.entities import entities


Links = Sequence[Sequence[int]]  # pairs: word of the translation, English word


def project_entities(tags: Sequence[str], links: Links, n_words: int) -> list[str]:
    """The BIO tags of a translation of `n_words` words, given those of the English sentence.

    The rules are those of García-Ferrero et al. (Findings of EMNLP 2022), without theirs for punctuation: an entity is
    projected to the words that are linked with its words; a gap of one word is closed; of what is still in several parts the
    longest is the entity (the first of equal ones). Where two entities meet on a word, the longer one stays. Words
    without a link are O, and so are those of an entity without links.
    """
    linked = defaultdict(set)
    for word, english in links:
        linked[english].add(word)
    spans = []
    for entity_type, first, last in entities(tags):
        words = sorted(set().union(*(linked[english] for english in range(first, last + 1))))
        if words:
            spans.append((entity_type, *_longest_part(words)))
    projected = ["O"] * n_words
    for entity_type, first, last in sorted(spans, key=lambda span: span[1] - span[2]):
        if all(tag == "O" for tag in projected[first : last + 1]):
            projected[first : last + 1] = [f"B-{entity_type}", *[f"I-{entity_type}"] * (last - first)]
    return projected


def _longest_part(words: Sequence[int]) -> tuple[int, int]:
    """First and last word of the longest part without a gap of more than one word; words are in ascending order."""
    parts = [(words[0], words[0])]
    for word in words[1:]:
        first, last = parts[-1]
        if word - last <= 2:
            parts[-1] = (first, word)
        else:
            parts.append((word, word))
    return max(parts, key=lambda part: part[1] - part[0])


def project_tags(tags: Sequence[str], links: Links, words: Sequence[str]) -> tuple[list[str], float]:
    """The parts of speech of a translation, given those of the English sentence, and the share of words that have one by a link.

    A word has the tag of its linked English word; of several, the most frequent tag (the first of equal ones). Without a link,
    punctuation is PUNCT and another word X.
    """
    linked: defaultdict[int, list[str]] = defaultdict(list)
    for word, english in sorted(map(tuple, links)):
        linked[word].append(tags[english])
    projected, n_known = [], 0
    for position, text in enumerate(words):
        is_punctuation = all(unicodedata.category(sign).startswith("P") for sign in text)
        found = Counter(linked[position]).most_common(1)
        projected.append(found[0][0] if found else "PUNCT" if is_punctuation else "X")
        n_known += bool(found) or is_punctuation
    return projected, n_known / max(1, len(words))
