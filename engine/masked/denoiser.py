"""Denoising of masks with a bidirectional Qwen2, whose holes may grow and shrink while they are filled.

Source: the generation utilities of DreamLM/Dream and DreamLM/DreamOn (arXiv 2602.01326). A pass reads the whole
sequence, or with the cache only the holes: the keys and values of everything else are kept from pass to pass, and from
request to request. With the cache a whole pass is made
- for a sequence of which nothing is kept, or too much is new;
- after every REFRESH_STEPS passes of a run;
- when MOST_CHANGED known tokens have changed since the last one.

Must not know text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile

import torch
from torch import Tensor

from engine.canvas_loop import CanvasLoop, UnitOfWork
from engine.canvas_run import DenoiseRequest, DenoiseResult
from engine.config import RopeConfig
from engine.decoder import CausalDecoder
from engine.errors import InputError, NotFiniteError, Stop
from engine.joined_pass import Pass, run_together
from engine.logit_bias import BANNED_LOGIT
from engine.masked.config import MaskedConfig, MaskedSampling
from engine.masked.keys import PartialPass, SequenceKeys, WholePass
from engine.masked.run import KNOWN, Filled, MaskedRun, Slots
from engine.masked.sampler import Uniform, choose_tokens, select
from engine.memory import CausalModel, Masks
from engine.ops.rope import inverse_frequencies
from engine.prefix_cache import PrefixCache
from engine.scorer import HoleScorer

REFRESH_STEPS = 8
MOST_CHANGED = 32
MOST_KEPT = 8  # sequences
FOLDS = 2  # passes that score a text, each with every other token masked
NO_MASKS: Masks = {"full_attention": None, "sliding_attention": None}
Draw = Callable[[int, int], Tensor]
"""From a row and a count to as many uniform random numbers."""


@dataclass
class KeptSequence:
    """A sequence with its keys and values. changed: known tokens that have changed since its last whole pass."""

    tokens: list[int]
    keys: SequenceKeys
    changed: int
    used_at: float


@dataclass
class Reading:
    """One pass over a sequence for the outputs at `sources`. keys: None for a whole pass; new: known positions that
    they do not have. hidden [sources, hidden]: once it was made."""

    slots: Slots
    keys: SequenceKeys | None
    new: set[int]
    sources: Sequence[int]
    stop: Stop | None
    hidden: Tensor | None = None


class MaskedDenoiser(CanvasLoop[MaskedRun]):
    """One model, the sequences it has read, and its randomness. See `CanvasLoop`.

    cached: whether keys and values are kept; without it every pass reads the whole sequence, which is exact. draws:
    randomness for tests; by default each canvas has a generator of its own. passes, rows: since the start.
    refresh_steps: see the module.
    """

    def __init__(
        self, model: CausalModel, cache: PrefixCache | None = None, cached: bool = True, draws: Draw | None = None
    ) -> None:
        super().__init__(model, cache)
        config = model.config
        assert isinstance(config, MaskedConfig), "the model has no mask token"
        self._config, self.cached, self.draws = config, cached, draws
        self.refresh_steps = REFRESH_STEPS
        self.kept: list[KeptSequence] = []
        self.passes = self.rows = 0
        self._generators: dict[int, torch.Generator] = {}
        rope = RopeConfig("default", config.rope_theta)
        self._frequencies = inverse_frequencies(rope, config.head_dim).to(self.device)

    @property
    def config(self) -> MaskedConfig:
        return self._config

    def _lay_out(self, request: DenoiseRequest) -> MaskedRun:
        sampling = request.sampling
        if not isinstance(sampling, MaskedSampling):
            raise InputError("These sampling settings are for another kind of model; use those of the loaded one.")
        slots = Slots.of(request, self.config)
        free = self.config.max_positions - len(slots.tokens)
        if free < 0:
            raise InputError(
                f"Prompt and canvas have {len(slots.tokens)} tokens, but the model takes {self.config.max_positions}; "
                "shorten the prompt."
            )
        slots.budget = min(slots.budget, free)
        row = next(self._rows)
        self._generators[row] = torch.Generator().manual_seed(request.seed)
        banned = {self.config.mask, *([] if request.banned is None else request.banned.tolist())}
        banned -= {self.config.expand, self.config.delete}
        nothing = torch.empty(0, dtype=torch.long)
        run = MaskedRun(
            request=request, row=row, columns=nothing, canvas=nothing, argmax=nothing, accepted=nothing.bool(),
            entropy=nothing.float(), slots=slots, start=len(request.prompt), sampling=sampling,
            variable=len(slots.masks), banned=torch.tensor(sorted(banned), device=self.device),
        )  # fmt: skip
        run.keys, run.new, run.changed = self._kept_for(slots)
        run.show()
        return run

    def _step(self, runs: Sequence[MaskedRun]) -> None:
        for run in runs:
            if run.sampling.review and not run.steps:
                self._review(run)
        planned = [(run, self._plan(run)) for run in runs]
        reads = [(run, positions, self._reading(run, positions)) for run, positions in planned if positions]
        hidden = self._read([reading for _, _, reading in reads])
        for (run, positions, _), rows in zip(reads, hidden, strict=True):
            run.note_pass()
            uniform: Uniform = partial(self._uniform, run.row)
            logits = self._biased(run, positions, self.model.logits(rows))
            self._decide(run, positions, logits, uniform)
            run.read_logits = partial(_identity, logits)
            run.step += 1
        for run in runs:
            run.steps += 1
            if not run.slots.masks:
                run.finished = "stable"
            elif run.step >= run.sampling.max_steps:
                run.finished = "steps"
            run.show()

    def _review(self, run: MaskedRun) -> None:
        """Makes masks of the tokens that the holes start with and that are not the likeliest, in FOLDS passes."""
        slots = run.slots
        drafts = [(at, one.token) for at in slots.slots if (one := slots.filled[at]) is not None]
        doubted: list[int] = []
        for fold in range(min(FOLDS, len(drafts))):
            members = drafts[fold::FOLDS]
            positions = [at for at, _ in members]
            for at in positions:
                slots.tokens[at] = self.config.mask
            (hidden,) = self._read([self._reading(run, positions)])
            run.note_pass()
            log_probabilities = self._biased(run, positions, self.model.logits(hidden)).log_softmax(dim=-1)
            if not bool(log_probabilities.isfinite().all()):
                raise NotFiniteError
            entropies = -(log_probabilities.exp() * log_probabilities).sum(dim=-1)
            best = log_probabilities.max(dim=-1)
            columns = best.indices.tolist(), best.values.tolist(), entropies.tolist()
            for (at, token), likeliest in zip(members, map(Filled, *columns), strict=True):
                if likeliest.token == token:
                    slots.fill(at, likeliest)
                else:
                    slots.fill(at, Filled(token))
                    doubted.append(at)
        for at in doubted:
            slots.mask(at)
        run.variable = len(slots.masks)

    def _plan(self, run: MaskedRun) -> list[int]:
        """The positions to predict in the next pass of `run`. Steps of the schedule that fill nothing are skipped, for
        they need no pass; none if no step is left."""
        slots, sampling = run.slots, run.sampling
        masks = slots.masks
        while masks and run.step < sampling.max_steps:
            if sampling.order == "p2":
                return slots.slots
            if sampling.order == "origin":
                moves = (self._uniform(run.row, len(masks)) < sampling.share(run.step)).tolist()
                if chosen := [mask for mask, now in zip(masks, moves, strict=True) if now]:
                    return chosen
            elif self._count(run, masks):
                return masks
            run.step += 1
        return []

    def _count(self, run: MaskedRun, masks: Sequence[int]) -> int:
        return run.sampling.moves(run.step, len(masks))

    def _decide(self, run: MaskedRun, positions: Sequence[int], logits: Tensor, uniform: Uniform) -> None:
        """Fills some of the masks, and lets the holes grow and shrink."""
        slots, sampling = run.slots, run.sampling
        log_probabilities = logits.log_softmax(dim=-1)
        if not bool(log_probabilities.isfinite().all()):
            raise NotFiniteError
        choices = choose_tokens(logits, sampling, uniform)
        scores = log_probabilities.gather(-1, choices.tokens[:, None]).squeeze(-1)
        masks = [index for index, position in enumerate(positions) if slots.filled[position] is None]
        if sampling.order == "origin":
            selected = torch.ones(len(positions), dtype=torch.bool)
        elif sampling.order == "p2":
            selected = self._remask(run, positions, choices.confidence)
        else:
            count = self._count(run, masks)
            selected = select(choices.confidence, count, sampling, scores.exp(), uniform).cpu()
        if self.config.expand is not None:  # a guess is a token that may be shown
            log_probabilities[:, self.config.expand] = BANNED_LOGIT
        likeliest = log_probabilities.max(dim=-1)
        columns = choices.tokens.tolist(), scores.tolist(), choices.entropy.tolist()
        found = [Filled(*one) for one in zip(*columns, strict=True)]
        best = zip(likeliest.indices.tolist(), likeliest.values.tolist(), columns[2], strict=True)
        run.guesses = {position: Filled(*one) for position, one in zip(positions, best, strict=True)}
        chosen = selected.tolist()
        for index in masks:
            if chosen[index]:
                slots.fill(positions[index], found[index])
        self._resolve(run)

    def _remask(self, run: MaskedRun, positions: Sequence[int], confidence: Tensor) -> Tensor:
        """[positions] bool: which masks are filled; the least likely slots become masks again (path planning)."""
        slots, count = run.slots, min(run.variable, len(positions))
        left = int(run.variable * (1.0 - (run.step + 1) / run.sampling.max_steps))
        scores = confidence.clone()
        scores[[slots.filled[position] == Filled(slots.tokens[position]) for position in positions]] = torch.inf
        masked = torch.zeros(len(positions), dtype=torch.bool)
        masked[scores.argsort()[: min(left, count)].cpu()] = True
        for position, again in zip(positions, masked.tolist(), strict=True):
            if again:
                slots.mask(position)
        return ~masked

    def _resolve(self, run: MaskedRun) -> None:
        sources = run.slots.resolve(run.sampling.delete_rest)
        if sources is None:
            return
        first = {source: position for position, source in reversed([*enumerate(sources)])}
        run.guesses = {first[position]: one for position, one in run.guesses.items() if position in first}
        run.new = {first[position] for position in run.new if position in first}
        if run.keys is not None:
            run.read = [run.read[source] for source in sources]
            run.keys = run.keys.moved(torch.tensor(sources, device=self.device), self._frequencies)

    def _reading(self, run: MaskedRun, positions: Sequence[int]) -> Reading:
        """What the next pass of `run` reads. A whole pass is made at once and kept for other runs."""
        if run.since_whole >= self.refresh_steps:
            run.keys = None
        elif run.keys is None and not run.read:
            run.keys, run.new, run.changed = self._kept_for(run.slots)  # of a run that began together with this one
        reading = Reading(run.slots, run.keys, run.new, [self._source(at) for at in positions], run.request.stop)
        if run.keys is None:
            self._read_whole(reading)
            run.keys, run.changed, run.since_whole = reading.keys, 0, 0
            if run.keys is not None:
                self._keep(KeptSequence(list(run.slots.tokens), run.keys, 0, time.monotonic()))
        if not run.read:
            whole = reading.hidden is not None
            run.encoded = run.start if whole else sum(row < run.start for row in self._rows_of(reading))
        return reading

    def _read(self, readings: Sequence[Reading]) -> list[Tensor]:
        """Hidden states [sources, hidden] of each. Those that are left are small and made as one pass."""
        left = [reading for reading in readings if reading.hidden is None]
        rows = [self._rows_of(reading) for reading in left]
        passes = [self._partial(reading, at) for reading, at in zip(left, rows, strict=True)]
        found: list[Tensor] = []
        if len(passes) == 1:
            found = [replace(passes[0], masks=NO_MASKS).run(self.model)]
        elif passes:
            found = run_together(self.model, passes)
        for reading, at, hidden in zip(left, rows, found, strict=True):
            index = {row: number for number, row in enumerate(at)}
            reading.hidden = hidden[0, [index[source] for source in reading.sources]]
        self.passes, self.rows = self.passes + len(left), self.rows + sum(map(len, rows))
        return [reading.hidden for reading in readings if reading.hidden is not None]

    def _read_whole(self, reading: Reading) -> None:
        tokens = torch.tensor([reading.slots.tokens], device=self.device)
        memory = WholePass(self.cached, reading.stop)
        positions = torch.arange(tokens.shape[1], device=self.device)[None]
        hidden = self.model.encode(tokens, positions, NO_MASKS, memory)[0]
        reading.hidden, reading.keys = hidden[list(reading.sources)], memory.result() if memory.kept else None
        self.passes, self.rows = self.passes + 1, self.rows + tokens.shape[1]

    def _partial(self, reading: Reading, rows: Sequence[int]) -> Pass:
        assert reading.keys is not None
        at = torch.tensor(rows, device=self.device)
        tokens = torch.tensor([reading.slots.tokens[row] for row in rows], device=self.device)
        everything = torch.ones(len(rows), reading.keys.length, dtype=torch.bool, device=self.device)
        masks: Masks = {"full_attention": everything, "sliding_attention": None}
        return Pass(tokens[None], at[None], masks, PartialPass(reading.keys, at, reading.stop))

    def _rows_of(self, reading: Reading) -> list[int]:
        """The positions that a partial pass reads: the holes, what predicts them, and what is new."""
        slots = reading.slots.slots
        return sorted({*slots, *map(self._source, slots), *reading.sources, *reading.new})

    def _source(self, position: int) -> int:
        """The position whose output predicts `position`."""
        return max(position - 1, 0) if self.config.shifted else position

    def _biased(self, run: MaskedRun, positions: Sequence[int], logits: Tensor) -> Tensor:
        """Without tokens that may not be written, in place."""
        slots, config, device = run.slots, self.config, logits.device
        lengthens = run.sampling.order != "p2" and run.step + 1 < run.sampling.max_steps
        expand, delete = config.expand, config.delete
        expansions = None if expand is None else logits[:, expand].clone()
        logits[:, run.banned] = BANNED_LOGIT
        for row, position in enumerate(positions):
            if (allowed := slots.allowed[position]) is not None:
                ids = allowed.to(logits.device)
                only = torch.full_like(logits[row], BANNED_LOGIT)
                logits[row] = only.index_copy(0, ids, logits[row, ids])
        if expand is not None and expansions is not None:
            grows = torch.tensor([lengthens and slots.can_grow(at) for at in positions], device=device)
            logits[:, expand] = torch.where(grows, expansions, BANNED_LOGIT)
        if delete is not None:
            fixed = torch.tensor([run.sampling.order == "p2" or not slots.can_delete(at) for at in positions])
            logits[fixed.to(device), delete] = BANNED_LOGIT
        return logits

    @torch.inference_mode()
    def result(self, run: MaskedRun) -> DenoiseResult:
        """The canvas with the likeliest token for each mask that is left.

        An empty hole has one deleted slot, and a mask that no pass has predicted is deleted too.
        """
        slots, config = run.slots, self.config
        mask = Filled(config.mask if config.delete is None else config.delete)
        if slots.most:
            tokens, columns, filled, sizes = list(slots.gaps[0]), list[int](), list[Filled](), list[int]()
            for hole, (positions, gap) in enumerate(zip(slots.contents(), slots.gaps[1:], strict=True)):
                found = [slots.filled[at] or run.guesses.get(at, mask) for at in positions]
                found = found or [slots.removed.get(hole, mask)]
                columns += range(len(tokens), len(tokens) + len(found))
                tokens += [*(one.token for one in found), *gap]
                filled += found
                sizes.append(len(found))
        else:
            tokens, columns, sizes = slots.tokens[run.start :], [at - run.start for at in slots.slots], []
            filled = [slots.filled[at] or run.guesses.get(at, mask) for at in slots.slots]
            for column, one in zip(columns, filled, strict=True):
                tokens[column] = one.token
        known = [one.log_probability for one in filled if one.log_probability is not None]
        mean = sum(known) / max(1, len(known))  # for drafts, which no pass has predicted
        scores = [mean if one.log_probability is None else one.log_probability for one in filled]
        return DenoiseResult(
            tokens=torch.tensor(tokens),
            columns=torch.tensor(columns),
            log_probabilities=torch.tensor(scores),
            entropy=torch.tensor([one.entropy or 0.0 for one in filled]),
            steps=run.steps,
            finish=run.finished or "cancelled",
            prompt_tokens=run.start,
            encoded_tokens=run.encoded,
            sizes=tuple(sizes) or None,
        )

    def close(self, run: MaskedRun) -> None:
        """Keeps what was read for later requests."""
        self._generators.pop(run.row, None)
        if run.keys is not None and run.read:
            self._keep(KeptSequence(run.read, run.keys, run.changed, time.monotonic()))
        run.keys = None

    @torch.inference_mode()
    def read_ahead(self, request: DenoiseRequest) -> int:
        run = self._lay_out(request)
        before = self.rows
        try:
            if self.cached and run.keys is None:
                self._reading(run, run.slots.slots[:1])
        finally:
            self.close(run)
        return self.rows - before

    def scorer_for(self, view: CausalDecoder, call: UnitOfWork) -> HoleScorer:
        return MaskedScorer(self, call)

    @torch.inference_mode()
    def log_probabilities(
        self, before: Sequence[int], text: Sequence[int], after: Sequence[int], stop: Stop | None = None
    ) -> Tensor:
        """log p of each token of `text` between `before` and `after` in nats, [text] on the CPU.

        In each of FOLDS passes every FOLDS-th token is masked, and predicted from all others.
        """
        slots = Slots(
            config=self.config,
            tokens=[*before, *text, *after],
            holes=[KNOWN] * len(before) + [0] * len(text) + [KNOWN] * len(after),
            filled=[None] * (len(before) + len(text) + len(after)),
            allowed=[],
            most=[],
            budget=0,
            gaps=[],
        )
        found = torch.zeros(len(text))
        keys, new, _ = self._kept_for(slots)
        for fold in range(min(FOLDS, len(text))):
            slots.tokens[len(before) : len(before) + len(text)] = [
                self.config.mask if index % FOLDS == fold else token for index, token in enumerate(text)
            ]
            indices = range(fold, len(text), FOLDS)
            reading = Reading(slots, keys, new, [self._source(len(before) + index) for index in indices], stop)
            if keys is None:
                self._read_whole(reading)
                keys = reading.keys
                if keys is not None:
                    self._keep(KeptSequence(list(slots.tokens), keys, 0, time.monotonic()))
            (hidden,) = self._read([reading])
            rows = self.model.logits(hidden).log_softmax(dim=-1).cpu()
            found[list(indices)] = rows[range(len(rows)), [text[index] for index in indices]]
            new = set()
        return found

    def forget(self) -> None:
        self.kept.clear()
        super().forget()

    def _bytes_of(self, runs: Sequence[MaskedRun]) -> int:
        """Runs are stepped one after the other, so together they take no more than one."""
        return 0

    def _uniform(self, row: int, count: int) -> Tensor:
        if self.draws is not None:
            return self.draws(row, count)
        return torch.rand(count, generator=self._generators[row])

    def _kept_for(self, slots: Slots) -> tuple[SequenceKeys | None, set[int], int]:
        """A copy of the keys of the most similar kept sequence, the known positions that it does not have, and how many
        known tokens have changed since its last whole pass; None, if a whole pass is due."""
        if not self.cached:
            return None, set(), 0
        best: tuple[int, KeptSequence, int, int] | None = None
        length, known = len(slots.tokens), slots.known
        for kept in self.kept:
            front, back = _common(kept.tokens, slots.tokens)
            changed = kept.changed + sum(front <= position < length - back for position in known)
            if changed <= MOST_CHANGED and (best is None or changed < best[0]):
                best = changed, kept, front, length - back
        if best is None:
            return None, set(), 0
        changed, kept, front, end = best
        kept.used_at, shift = time.monotonic(), len(kept.tokens) - length
        sources = [*range(front), *([0] * (end - front)), *(position + shift for position in range(end, length))]
        keys = kept.keys.moved(torch.tensor(sources, device=self.device), self._frequencies)
        return keys, {position for position in known if front <= position < end}, changed

    def _keep(self, sequence: KeptSequence) -> None:
        """Adds a sequence; drops the same one, and the least recently used ones beyond the limit."""
        self.kept = [kept for kept in self.kept if kept.tokens != sequence.tokens]
        self.kept.append(sequence)
        self.kept.sort(key=lambda kept: kept.used_at)
        while len(self.kept) > MOST_KEPT or sum(kept.keys.bytes for kept in self.kept) > self.cache.limit_bytes:
            self.kept.pop(0)


class MaskedScorer:
    """A `HoleScorer`, which also sees what is after a text."""

    def __init__(self, denoiser: MaskedDenoiser, call: UnitOfWork) -> None:
        self.denoiser, self.call = denoiser, call

    def text_scores(
        self,
        prompt: Sequence[int],
        before: Sequence[int],
        texts: Sequence[Sequence[int]],
        after: Sequence[int],
        seam: int | None = None,
        stop: Stop | None = None,
    ) -> list[Tensor]:
        """See `HoleScorer`."""
        known = [*prompt, *before]
        return [self.call(partial(self._score, known, text, after, stop)) for text in texts]

    def _score(
        self, before: Sequence[int], text: Sequence[int], after: Sequence[int], stop: Stop | None, watch: Stop
    ) -> Tensor:
        def either() -> bool:
            return watch() or (stop is not None and stop())

        return self.denoiser.log_probabilities(before, text, after, either)


def _common(first: list[int], second: list[int]) -> tuple[int, int]:
    """How many tokens two sequences share at the front, and how many of the others at the back."""
    least = min(len(first), len(second))
    front = _shared(first, second, least)
    return front, _shared(first[::-1], second[::-1], least - front)


def _shared(first: list[int], second: list[int], least: int) -> int:
    pairs = zip(first[:least], second[:least], strict=True)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _identity(logits: Tensor) -> Tensor:
    return logits
