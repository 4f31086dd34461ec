"""The pipeline from an instruction to new code for a selection, with a code model that follows instructions.

Selection, prompt, an answer decoded with the old code as a guess, the code in it, checks. Further answers choose
another token where the model was least sure. Must not know editors, command lines or files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from engine.decoding import Continuation, Limits, decode
from engine.errors import InputError, Stop, leave_if
from engine.guesses import Guesses
from engine.token_tree import TokenTree
from infill.checks.context import CheckContext
from infill.checks.rewriting import first_rewrite_refusal
from infill.code.context import ContextBudget
from infill.complete.code_model import CodeModel
from infill.complete.judging import until_stopped
from infill.complete.pipeline import AnyModel
from infill.complete.prepared import PreparedRequest, prepare
from infill.edit.answer import closing_fence, is_prose, without_surroundings
from infill.edit.selection import Selection
from infill.edit_request import EditCandidate, EditRequest, EditResult
from infill.instructions import cannot_rewrite
from infill.prompts.chatml import ChatMlPrompt, EditInput
from infill.request import Hole, InfillRequest, OnStep, Piece, StepView

SEGMENT = 64  # tokens of one tree, which keeps the keys of wrong guesses too
MOST_SELECTED = 1024  # tokens of the selected code
LEAST_ANSWER, MOST_LONGER = 128, 2  # an answer has at most LEAST_ANSWER + MOST_LONGER * selected code, in tokens
ATTEMPTS = 3  # further answers until one may be shown
MARGIN = 4.0  # nats that the first different token of a further answer may be less likely
MOST_INSTRUCTION = 4_000  # characters


@dataclass
class _Answer:
    """tokens: all that was decoded. doubts: (margin, position, second choice): nats between the two likeliest tokens.

    done: whether the model ended the answer.
    """

    tokens: list[int] = field(default_factory=list)
    doubts: list[tuple[float, int, int]] = field(default_factory=list)
    done: bool = False


@dataclass(frozen=True)
class _Task:
    """A request on its way. draft: the old code as the tokens of an answer. limit: most tokens of an answer."""

    request: EditRequest
    selection: Selection
    prepared: PreparedRequest
    line_end: str
    original: Hole
    edit: EditInput
    draft: list[int]
    limit: int

    @property
    def is_late(self) -> bool:
        deadline = self.prepared.deadline
        return deadline is not None and time.monotonic() >= deadline


class Rewriter:
    """Rewrites selections with a loaded model. Cheap to make; for one caller at a time.

    Raises InputError if the model cannot.
    """

    def __init__(self, model: AnyModel) -> None:
        if not (isinstance(model, CodeModel) and model.has_chat):
            raise InputError(cannot_rewrite(model.name))
        self.model, self.decoder, self.tokens = model, model.decoder, model.family.tokens
        self.prompt = ChatMlPrompt(self.tokens)
        self._ends = model.family.ends
        self._banned = torch.tensor(model.family.banned, dtype=torch.long)

    def rewrite(self, request: EditRequest, on_step: OnStep | None = None, stop: Stop | None = None) -> EditResult:
        """The new code for the range of `request`.

        on_step: gets the text with the new lines so far; once it returns False, the answer ends and is not shown.
        stop: called before every pass of the model; once it returns True, Cancelled is raised. Raises InputError for
        a range without code, one that is too long, or a missing instruction.
        """
        started = time.perf_counter()
        leave_if(stop)
        task = self._task(request, stop)
        watch = until_stopped(on_step) if on_step is not None else None
        encoding = time.perf_counter()
        with self.decoder.cache.encoded(task.edit.tokens[:-1], stop) as lease:
            encoded = lease.encoded
        decoding = time.perf_counter()
        candidates = self._candidates(task, watch)
        best = candidates[0]
        ended = time.perf_counter()
        return EditResult(
            task.original.start,
            task.original.end,
            best.text,
            best.shown,
            best.reason,
            candidates,
            prompt_tokens=len(task.edit.tokens),
            encoded_tokens=encoded + 1,
            timings_ms={
                "context": 1000 * (encoding - started),
                "encode": 1000 * (decoding - encoding),
                "decode": 1000 * (ended - decoding),
                "total": 1000 * (ended - started),
            },
            model=self.model.name,
        )

    def _task(self, request: EditRequest, stop: Stop | None) -> _Task:
        _check(request)
        infill_request = InfillRequest(
            request.text,
            (Hole(request.start, request.end),),
            request.language,
            request.path,
            deadline_ms=request.deadline_ms,
            neighbours=request.neighbours,
        )
        given = prepare(infill_request, ContextBudget(0, 0, 0), stop)
        selection = Selection.of(given.text, given.holes[0].start, given.holes[0].end)
        if selection is None:
            raise InputError("The range has no code to rewrite; select some, or fill the gap with `gesso infill`.")
        hole = Hole(selection.first, selection.last)
        lines = replace(infill_request, text=given.text, holes=(hole,), language=given.language)
        prepared = prepare(lines, self.model.family.budget, stop)
        prepared.deadline = given.deadline
        code, known = selection.code, selection.known
        draft = self.tokens.encode(code[len(known.rstrip()) :])
        if len(draft) > MOST_SELECTED:
            raise InputError(
                f"The range has {len(draft)} tokens, but at most {MOST_SELECTED} can be rewritten; select fewer lines."
            )
        edit = self.prompt.edit(prepared.shown, selection.lines, code, known.rstrip(), request.instruction)
        draft += self.tokens.encode(f"\n{edit.fence}")
        limit = LEAST_ANSWER + MOST_LONGER * len(draft)
        return _Task(request, selection, prepared, given.line_end, given.originals[0], edit, draft, limit)

    def _candidates(self, task: _Task, on_step: OnStep | None) -> tuple[EditCandidate, ...]:
        """Distinct answers, those to show first."""
        first = self._answer(task, [], on_step)
        found = [self._judged(task, first)]
        for _, position, token in sorted(first.doubts)[: max(ATTEMPTS, task.request.candidates)]:
            enough = any(one.shown for one in found) and len(found) >= task.request.candidates
            if enough or task.is_late or not first.done:
                break
            candidate = self._judged(task, self._answer(task, [*first.tokens[:position], token], on_step))
            if candidate.text not in {one.text for one in found}:
                found.append(candidate)
        found.sort(key=lambda candidate: not candidate.shown)
        return tuple(found[: max(1, task.request.candidates)])

    def _answer(self, task: _Task, forced: Sequence[int], on_step: OnStep | None) -> _Answer:
        """The likeliest answer that begins with the tokens `forced`."""
        answer, prompt = _Answer(), task.edit.tokens
        drafts = [task.draft, forced]
        while not answer.done and len(answer.tokens) < task.limit:
            written = [*answer.tokens]
            limits = self._limits(task, written, forced)
            known = [*prompt, *written]
            rest = [[*draft[len(written) :]] for draft in drafts if [*draft[: len(written)]] == written]
            on_token = None if on_step is None else self._on_token(task, written, on_step)
            with (
                self.decoder.cache.encoded(known[:-1], task.prepared.stop) as lease,
                TokenTree(self.decoder.model, lease.kv, known[-1:], task.prepared.stop) as tree,
            ):
                (one,) = decode(tree, limits, guesses=Guesses(known, rest), on_token=on_token, seconds=True)
            answer.doubts += self._doubts(one, len(written), len(forced))
            answer.tokens += one.tokens
            answer.done = one.done
            if not one.done and len(one.tokens) < limits.tokens:  # stopped
                break
        return answer

    def _limits(self, task: _Task, written: Sequence[int], forced: Sequence[int]) -> Limits:
        def allowed(tokens: Sequence[int]) -> list[int] | None:
            position = len(written) + len(tokens)
            return [forced[position]] if position < len(forced) else None

        def done(tokens: Sequence[int]) -> bool:
            text = self._text(task, [*written, *tokens])
            return tokens[-1] in self._ends or closing_fence(text, task.edit.fence) is not None

        return Limits(
            tokens=min(SEGMENT, task.limit - len(written)),
            allowed=allowed,
            done=done,
            banned=self._banned,
            stop=lambda: task.is_late,
        )

    def _doubts(self, one: Continuation, offset: int, forced: int) -> list[tuple[float, int, int]]:
        found = []
        for index in range(max(0, forced - offset), len(one.tokens)):
            second, margin = one.seconds[index]
            if margin <= MARGIN and second not in self._ends and second not in self.model.family.banned:
                found.append((margin, offset + index, second))
        return found

    def _on_token(self, task: _Task, written: Sequence[int], on_step: OnStep) -> Callable[[Continuation], bool]:
        shown = task.prepared.shown

        def on_token(one: Continuation) -> bool:
            tokens = [*written, *one.tokens]
            lines = self._lines(task, self._text(task, tokens))
            pieces = (Piece(shown.prefix, "known"), Piece(lines, "settled"), Piece(shown.suffix, "known"))
            return on_step(StepView(len(tokens), task.limit, pieces)) is not False

        return on_token

    def _text(self, task: _Task, tokens: Sequence[int]) -> str:
        return task.selection.known.rstrip() + self.tokens.decode(tokens)

    def _lines(self, task: _Task, answer: str) -> str:
        """The whole lines in an answer, with the indentation of the selection and without repeated surroundings."""
        selection = task.selection
        code = answer[: closing_fence(answer, task.edit.fence)].rstrip("\ufffd").strip("\n").rstrip()
        before, after = task.prepared.near(0)
        return selection.indented(without_surroundings(code, selection.code, before, after, task.prepared.language))

    def _judged(self, task: _Task, answer: _Answer) -> EditCandidate:
        prepared, selection = task.prepared, task.selection
        leave_if(prepared.stop)
        lines = self._lines(task, self._text(task, answer.tokens))
        text = selection.replacement(lines)
        before, after = prepared.near(0)
        context = CheckContext(
            before, lines, after, prepared.language, replaced=selection.lines, stop=prepared.stop_parsing
        )
        if not answer.done:
            reason: str | None = _unfinished(task, answer)
        elif is_prose(lines, selection.lines):
            reason = "the answer is prose, not code"
        else:
            reason = first_rewrite_refusal(context)
            if reason is None and text is None:
                reason = "the answer changes code outside the selection"
        text = (text or "").replace("\n", task.line_end)
        return EditCandidate(text, reason is None, reason, len(answer.tokens))


def _check(request: EditRequest) -> None:
    if not 0 <= request.start <= request.end <= len(request.text):
        raise InputError(
            f"The range {request.start}-{request.end} lies outside the text; send one of its {len(request.text)} "
            "characters."
        )
    if not request.instruction.strip():
        raise InputError("The instruction is empty; say what to change.")
    if len(request.instruction) > MOST_INSTRUCTION:
        raise InputError(
            f"The instruction has {len(request.instruction)} characters; shorten it to {MOST_INSTRUCTION}."
        )


def _unfinished(task: _Task, answer: _Answer) -> str:
    if task.is_late:
        return "the deadline left no time to finish the answer"
    if len(answer.tokens) >= task.limit:
        return f"the answer does not end within {task.limit} tokens"
    return "the answer was stopped"
