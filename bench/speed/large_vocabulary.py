"""CPU time of a request before its first step with a vocabulary of 262,144 tokens, as that of DiffusionGemma.

`python -m bench.speed.large_vocabulary` makes a tokenizer of that size, types `value = ` key by key, and measures what
a request does with the tokenizer and the vocabulary. Must not know the model's forward pass.
"""

from __future__ import annotations

import itertools
import random
import statistics
import string
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Annotated

import torch
import typer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from bench.report import RESULTS, Report, conditions
from engine.logit_bias import bias_rows, bias_values
from infill.code.context import show_context
from infill.complete.hole_length import PROBE_LENGTHS
from infill.prompts.chat import ChatPrompt
from infill.prompts.prompt import HoleKind
from infill.prompts.text_tokens import TextTokens
from train.program import reports_errors

VOCAB, SPACED = 262_144, 137_542  # tokens, and those that begin with a space, in Gemma's tokenizer
SPECIALS = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<|channel>": 100, "<channel|>": 101, "<|turn>": 105, "<turn|>": 106}
LINES = "    total = total + price_of(item)\n"
HOLE = HoleKind(one_line=True, whole_lines=False)


def large_tokenizer(size: int = VOCAB, spaced: int = SPACED) -> Tokenizer:
    """A BPE of Gemma's form: spaces as "▁", bytes as fallback, half of the words with a space before them."""
    names = {number: name for name, number in SPECIALS.items()}
    vocabulary = {names.get(number, f"<unused{number}>"): number for number in range(107)}
    for piece in ("\n", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *map(chr, range(0x21, 0x7F))):
        vocabulary.setdefault(piece, len(vocabulary))
    merges: list[tuple[str, str]] = []

    def add(first: str, second: str) -> None:
        if len(vocabulary) < size:
            vocabulary[first + second] = len(vocabulary)
            merges.append((first, second))

    for length in range(1, 32):
        add("\n" * length, "\n")
        add("▁" * length, "▁")
    letters, draw = string.ascii_letters, random.Random(0)
    words = [*letters]
    for letter in letters:
        add("▁", letter)
    with_space = sum(piece.startswith("▁") for piece in vocabulary)
    without = size - len(vocabulary) - (spaced - with_space)
    for length in itertools.count(2):
        words = [word + letter for word in words for letter in draw.sample(letters, max(3, 40 >> length))]
        for word in words:
            if with_space < spaced:
                add(f"▁{word[:-1]}", word[-1])
                with_space += 1
            if without > 0:
                add(word[:-1], word[-1])
                without -= 1
        if len(vocabulary) == size:
            break
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS])
    return tokenizer


@dataclass(frozen=True)
class Times:
    """Milliseconds of CPU time: making the family's tables once; per request, encoding the text of the plan, laying out
    all lengths, and the bias of the logits. choices: tokens that may come first, per request."""

    tables: float
    plan: list[float]
    layouts: list[float]
    bias: list[float]
    choices: list[int]

    @property
    def requests(self) -> list[float]:
        return [sum(parts) for parts in zip(self.plan, self.layouts, self.bias, strict=True)]


def measure(tokenizer: Tokenizer, typed: str = "value = ", lines: int = 400) -> Times:
    """The requests while `typed` is typed in the middle of a file, one after each key."""
    clock = _Clock()
    family = ChatPrompt(TextTokens(tokenizer))
    family.tokens.starting_with("")  # makes its table
    times = Times(clock.lap(), [], [], [], [])
    before, after = "def sums(items):\n" + LINES * lines + "    ", "\n" + LINES * lines
    for end in range(1, len(typed) + 1):
        text = before + typed[:end]
        shown = show_context(text + after, len(text), len(text), "python", "a.py", (), family.budget)
        clock.lap()
        plan = family.plan(shown, [HOLE], [])
        times.plan.append(clock.lap())
        layouts = [plan.lay_out([length]) for length in PROBE_LENGTHS]
        times.layouts.append(clock.lap())
        bias_values(layouts[0].canvas, layouts[0].banned, tokenizer.get_vocab_size(), torch.device("cpu"))
        for layout in layouts:
            bias_rows(layout.canvas)
        times.bias.append(clock.lap())
        times.choices.append(sum(map(len, layouts[0].canvas.allowed.values())))
    return times


class _Clock:
    def __init__(self) -> None:
        self.at = process_time()

    def lap(self) -> float:
        """Milliseconds since the last call."""
        before, self.at = self.at, process_time()
        return 1000 * (self.at - before)


def main(
    rounds: Annotated[int, typer.Option(help="How often the text is typed.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure requests with a large vocabulary; writes large_vocabulary.md and large_vocabulary.json."""
    torch.set_num_threads(1)
    tokenizer = large_tokenizer()
    found = [measure(tokenizer) for _ in range(rounds)]
    later = {
        "encode the text": [time for one in found for time in one.plan[1:]],
        "lay out all lengths": [time for one in found for time in one.layouts[1:]],
        "bias of the logits": [time for one in found for time in one.bias[1:]],
        "in all": [time for one in found for time in one.requests[1:]],
    }
    rows = [["tables, once", f"{statistics.median(one.tables for one in found):.0f}", ""]]
    rows += [[name, f"{statistics.median(times):.2f}", f"{max(times):.2f}"] for name, times in later.items()]
    figures = [{"tables": one.tables, "requests": one.requests, "choices": one.choices} for one in found]
    report = Report(TITLE, conditions(), ("", "median", "most"), rows, NOTES, figures)
    report.show()
    for file in report.write("large_vocabulary", out):
        print(file)


TITLE = "A request before its first step with 262,144 tokens, milliseconds of CPU time"
NOTES = (
    "One thread; a synthetic tokenizer of Gemma's form and size, a prefix of 14,000 and a suffix of 6,000 characters, "
    "the keys of `value = ` one by one. The first request of each round is left out. After the last space 137,542 "
    "tokens may come first.",
)


if __name__ == "__main__":
    typer.run(reports_errors(main))
