"""The beginning of a line that a code model is sure of, for editors to show when the model is not sure of the whole.

Must not know how the line was decoded or how the beginning is shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

PROBABILITY = 0.5  # least of a beginning; measured in bench/NOTES.md
LEAST_PROBABILITY, MOST_PROBABILITY = 0.3, 0.95  # whatever caution a request asks for
LEAST_CHARACTERS = 4  # without the space around it
_ENDS = re.compile(r"[\w)\]}\"'`]\Z")
_WORD_END, _WORD_START = re.compile(r"\w\Z"), re.compile(r"\w")


def likely_beginning(
    tokens: Sequence[int],
    log_probabilities: Sequence[float],
    text_of: Callable[[Sequence[int]], str],
    probability: float = PROBABILITY,
) -> tuple[str, float, int]:
    """The longest beginning of `tokens` that has at least this probability and ends with a word, bracket or quote.

    text_of: the text of the first tokens. Returns the text, its probability and its number of tokens; "" if it would
    have fewer than LEAST_CHARACTERS.
    """
    total, best = 0.0, ("", 0.0, 0)
    texts = [text_of(tokens[: count + 1]) for count in range(len(tokens))]
    for count, log_probability in enumerate(log_probabilities, 1):
        total += log_probability
        if total < math.log(probability):
            break
        text, following = texts[count - 1], texts[count : count + 1]
        added = following[0][len(text) :] if following else ""
        splits_word = _WORD_END.search(text) and _WORD_START.match(added)
        if _ENDS.search(text) and "\ufffd" not in text and not splits_word:
            best = text, math.exp(total), count
    return best if len(best[0].strip()) >= LEAST_CHARACTERS else ("", 0.0, 0)
