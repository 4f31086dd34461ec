"""The masked denoiser: known tokens, restrictions, several holes, limits, and what it keeps from pass to pass."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
import torch
from transformers import Qwen2ForCausalLM

from engine.canvas import Canvas, Known, Slots
from engine.canvas_run import CanvasRun, DenoiseRequest, DenoiseResult
from engine.errors import Cancelled, InputError, ModelError, NotFiniteError
from engine.masked import denoiser as masked_denoiser
from engine.masked.config import MaskedSampling
from engine.scheduling.request import Order
from engine.scheduling.scheduler import Scheduler
from tests.engine.masked.reference import DELETE, EXPAND, MASK, VOCAB, predictions, tiny_masked, tiny_reference
from tests.engine.masked.test_masked_parity import AFTER, BEFORE, eager_to_change
from tests.waiting import PATIENCE_S

GREEDY = MaskedSampling(max_steps=64, temperature=0.0, top_p=None)
SPECIAL = {DELETE, MASK, EXPAND}


def request(
    *holes: int, most: int | None = None, sampling: MaskedSampling = GREEDY, **others: object
) -> DenoiseRequest:
    """Holes with known tokens between them."""
    parts: list[Known | Slots] = [Known(BEFORE[3:])]
    for number, hole in enumerate(holes):
        parts += [Slots(hole), Known([AFTER[number], 7 + number])]
    growth = () if most is None else tuple((hole, most) for hole in holes)
    return DenoiseRequest(BEFORE[:3], Canvas.of(*parts, Known(AFTER)), sampling, growth=growth, **others)  # type: ignore[arg-type]


def known_runs(result: DenoiseResult) -> list[int]:
    holes = set(result.columns.tolist())
    return [token for column, token in enumerate(result.tokens.tolist()) if column not in holes]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_known_tokens_stay_and_every_hole_has_its_own_length(seed: int, cached: bool) -> None:
    asked = request(2, 5, 3, most=9, sampling=MaskedSampling(max_steps=200, temperature=1.0), seed=seed)
    (result,) = tiny_masked(eager_to_change(seed), cached=cached).run([asked])
    assert known_runs(result) == [token for token in asked.canvas.tokens.tolist() if token >= 0]
    assert result.sizes is not None and len(result.sizes) == 3 and all(1 <= size <= 9 for size in result.sizes)
    assert sum(result.sizes) == len(result.columns) == len(result.log_probabilities) == len(result.entropy)
    assert not {MASK, EXPAND} & set(result.tokens.tolist()) and result.finish in ("stable", "steps")


def test_without_growth_lengths_stay_and_no_token_changes_them() -> None:
    (result,) = tiny_masked(eager_to_change(0)).run([request(4, 4)])
    assert result.sizes is None and len(result.columns) == 8
    assert not SPECIAL & set(result.tokens.tolist())


def test_a_hole_of_which_nothing_is_left_has_one_deleted_slot() -> None:
    model = eager_to_change(0)
    with torch.no_grad():
        model.lm_head.weight[DELETE] = 50 * model.lm_head.weight.mean(dim=0).sign()
    denoiser = tiny_masked(model)
    hidden_sign = predictions(model, [*BEFORE, MASK])[-1][DELETE]
    if hidden_sign < 0:
        with torch.no_grad():
            model.lm_head.weight[DELETE] *= -1
        denoiser = tiny_masked(model)
    (result,) = denoiser.run([request(3, most=8)])
    assert result.sizes == (1,) and result.tokens[result.columns].tolist() == [DELETE]


def test_restricted_slots_take_allowed_tokens_and_are_not_deleted() -> None:
    canvas = Canvas.of(Known(BEFORE), Slots(3), Known(AFTER), allowed={len(BEFORE): [40, 41]})
    for seed in range(3):
        asked = DenoiseRequest([1], canvas, GREEDY, growth=((3, 6),))
        (result,) = tiny_masked(eager_to_change(seed)).run([asked])
        assert int(result.tokens[len(BEFORE)]) in (40, 41)


def test_banned_tokens_are_not_written() -> None:
    banned = torch.arange(20, VOCAB)
    (result,) = tiny_masked(tiny_reference()).run([request(6, banned=banned)])
    assert int(result.tokens[result.columns].max()) < 20


def test_drafts_are_kept_and_only_masks_are_filled() -> None:
    canvas = Canvas.of(Known(BEFORE), Slots(4, [50, None, 51, None]), Known(AFTER))
    (result,) = tiny_masked(tiny_reference()).run([DenoiseRequest([1], canvas, GREEDY)])
    filled = result.tokens[result.columns].tolist()
    assert filled[0] == 50 and filled[2] == 51 and result.steps == 2
    assert bool((result.log_probabilities < 0).all())


def drafted(tokens: Sequence[int]) -> DenoiseRequest:
    canvas = Canvas.of(Known(BEFORE[3:]), Slots(len(tokens), tokens), Known(AFTER))
    return DenoiseRequest(BEFORE[:3], canvas, GREEDY.warm())


def reviewed(model: Qwen2ForCausalLM, draft: Sequence[int]) -> list[int]:
    """The draft by the reference: the likeliest token for each, with every other token of the draft masked."""
    found = list(draft)
    for fold in (0, 1):
        shown = [MASK if index % 2 == fold else token for index, token in enumerate(draft)]
        rows = predictions(model, [*BEFORE, *shown, *AFTER])[len(BEFORE) :]
        rows[:, list(SPECIAL)] = -torch.inf
        found[fold::2] = rows[fold : len(draft) : 2].argmax(dim=-1).tolist()
    return found


@pytest.mark.parametrize("cached", [True, False])
def test_a_review_masks_the_tokens_of_a_draft_that_are_not_the_likeliest(cached: bool) -> None:
    model, draft = tiny_reference(), [50, 20, 51, 33, 60]
    draft[2] = reviewed(model, draft)[2]
    denoiser = tiny_masked(model, cached=cached)
    run = denoiser.start(drafted(draft))
    denoiser._review(run)
    kept = [mine == best for mine, best in zip(draft, reviewed(model, draft), strict=True)]
    assert kept[2] and not all(kept)
    assert [run.slots.filled[at] is not None for at in run.slots.slots] == kept
    assert [run.slots.tokens[at] for at in run.slots.slots] == [
        token if keep else MASK for token, keep in zip(draft, kept, strict=True)
    ]


@pytest.mark.parametrize("cached", [True, False])
def test_a_draft_that_the_model_agrees_with_takes_one_pass(cached: bool) -> None:
    model = tiny_reference()
    draft = reviewed(model, [50])
    denoiser = tiny_masked(model, cached=cached)
    (result,) = denoiser.run([drafted(draft)])
    assert result.tokens[result.columns].tolist() == draft and denoiser.passes == 1
    assert result.finish == "stable" and result.encoded_tokens == 3
    assert bool((result.log_probabilities < 0).all())


def test_fewer_steps_fill_more_tokens_in_each() -> None:
    for steps in (1, 2, 3, 12):
        (result,) = tiny_masked(tiny_reference()).run([request(12, sampling=GREEDY.with_steps(steps))])
        assert result.steps == steps and MASK not in result.tokens.tolist()


def test_a_threshold_fills_likely_tokens_together() -> None:
    everything = MaskedSampling(max_steps=64, temperature=0.0, top_p=None, threshold=1e-6)
    (result,) = tiny_masked(tiny_reference()).run([request(12, sampling=everything)])
    assert result.steps == 1


def test_p2_masks_the_least_likely_tokens_again() -> None:
    seen: list[list[bool]] = []

    def on_step(runs: Sequence[CanvasRun]) -> None:
        seen.append(runs[0].accepted.tolist())

    sampling = MaskedSampling(order="p2", max_steps=6, temperature=1.5, top_p=None)
    (result,) = tiny_masked(tiny_reference()).run([request(8, sampling=sampling)], on_step)
    assert [sum(accepted) for accepted in seen] == [2, 3, 4, 6, 7, 8]
    assert any(
        was and not now for one, two in zip(seen, seen[1:], strict=False) for was, now in zip(one, two, strict=True)
    )
    assert MASK not in result.tokens.tolist()


def test_a_seed_determines_the_result_alone_and_in_a_batch() -> None:
    sampling = MaskedSampling(temperature=1.5, top_p=None)
    asked = [request(6, sampling=sampling, seed=seed) for seed in (1, 2, 1)]
    one, two, three = (result.tokens.tolist() for result in tiny_masked(tiny_reference()).run(asked))
    assert one == three != two
    assert tiny_masked(tiny_reference()).run(asked[:1])[0].tokens.tolist() == one


# deadlines, cancellation, errors


def test_after_the_deadline_the_likeliest_tokens_fill_the_rest() -> None:
    (result,) = tiny_masked(tiny_reference()).run([request(6, deadline=time.monotonic() - 1)])
    assert result.finish == "deadline" and result.steps == 1 and not SPECIAL & set(result.tokens.tolist())
    (grown,) = tiny_masked(eager_to_change(0)).run([request(6, most=20, deadline=time.monotonic() - 1)])
    assert not {MASK, EXPAND} & set(grown.tokens.tolist())


def test_a_cancelled_request_ends_within_a_pass() -> None:
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > 3

    denoiser = tiny_masked(tiny_reference())
    with pytest.raises(Cancelled):
        denoiser.run([request(6, stop=stop)])
    assert denoiser.passes == 0 and not denoiser._generators


def test_a_callback_ends_all_runs() -> None:
    (result,) = tiny_masked(tiny_reference()).run([request(6)], lambda runs: runs[0].steps < 2)
    assert result.finish == "cancelled" and result.steps == 2


def test_what_the_model_cannot_take_is_an_error() -> None:
    with pytest.raises(InputError, match="shorten"):
        tiny_masked(tiny_reference()).run([DenoiseRequest([1] * 600, request(3).canvas, GREEDY)])
    with pytest.raises(InputError, match="another kind"):
        tiny_masked(tiny_reference()).run([DenoiseRequest([1], request(3).canvas)])
    with pytest.raises(ModelError, match="vocabulary"):
        tiny_masked(tiny_reference(), mask=VOCAB)


def test_nan_is_an_error() -> None:
    denoiser = tiny_masked(tiny_reference())
    denoiser.model.norm.weight.fill_(torch.nan)  # type: ignore[attr-defined]
    with pytest.raises(NotFiniteError):
        denoiser.run([request(3)])


# the cache


def test_with_a_cache_a_step_reads_the_holes_alone() -> None:
    denoiser = tiny_masked(tiny_reference(), cached=True)
    run = denoiser.start(request(4, 2))
    rows = []
    for _ in range(4):
        before = denoiser.rows
        denoiser.step([run])
        rows.append(denoiser.rows - before)
    assert rows == [len(run.slots.tokens), 8, 8, 8], "the slots of two holes, and what predicts each"


def test_every_pass_a_whole_one_is_exact() -> None:
    for seed in range(3):
        asked = request(3, 4, most=9, sampling=MaskedSampling(max_steps=64, temperature=1.0), seed=seed)
        exact, cached = (tiny_masked(eager_to_change(seed), cached=one) for one in (False, True))
        cached.refresh_steps = 1
        assert exact.run([asked])[0].tokens.tolist() == cached.run([asked])[0].tokens.tolist()


def test_a_whole_pass_is_made_after_some_steps() -> None:
    denoiser = tiny_masked(tiny_reference(), cached=True)
    run = denoiser.start(request(20))
    whole = []
    for _ in range(20):
        before = denoiser.rows
        denoiser.step([run])
        whole.append(denoiser.rows - before == len(run.slots.tokens))
    assert [index for index, one in enumerate(whole) if one] == [0, 8, 16]


def test_moved_keys_are_those_of_their_new_positions() -> None:
    """A layer that attends to nothing new: with one layer, keys depend on tokens and positions alone."""
    model = eager_to_change(1)
    denoiser = tiny_masked(model, cached=True)
    one, two = request(3), request(5)
    denoiser.run([one])
    run = denoiser.start(two)
    assert run.keys is not None and not run.new
    fresh = tiny_masked(model, cached=True)
    fresh.read_ahead(two)
    (kept,) = fresh.kept
    known = torch.tensor(run.slots.known)
    torch.testing.assert_close(run.keys.keys[0][:, :, known], kept.keys.keys[0][:, :, known], atol=1e-4, rtol=0)
    torch.testing.assert_close(run.keys.values[0][:, :, known], kept.keys.values[0][:, :, known], atol=1e-4, rtol=0)


def test_the_next_keystroke_reads_only_what_is_new() -> None:
    denoiser = tiny_masked(tiny_reference(), cached=True)
    denoiser.run([request(4)])
    typed = DenoiseRequest(
        BEFORE[:3], Canvas.of(Known([*BEFORE[3:], 77]), Slots(4), Known([AFTER[0], 7, *AFTER])), GREEDY
    )
    before = denoiser.rows
    run = denoiser.start(typed)
    denoiser.step([run])
    assert denoiser.rows - before == 5, "the typed token, which predicts the first slot, and the slots"
    denoiser.close(run)
    other = DenoiseRequest(list(range(60)), Canvas.of(Slots(4), Known(AFTER)), GREEDY)
    assert denoiser.start(other).keys is None, "too much is new"


def test_accepted_tokens_are_read_again() -> None:
    denoiser = tiny_masked(tiny_reference(), cached=True)
    (result,) = denoiser.run([request(4)])
    accepted = [int(token) for token in result.tokens]
    at = int(result.columns[-1]) + 1
    following = DenoiseRequest(BEFORE[:3], Canvas.of(Known(accepted[:at]), Slots(3), Known(accepted[at:])), GREEDY)
    assert set(range(6, 9)) <= denoiser.start(following).new, "they were read as masks, but for the first filled"


def test_changes_add_up_until_a_whole_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_denoiser, "MOST_CHANGED", 2)
    denoiser = tiny_masked(tiny_reference(), cached=True)
    whole = []
    for count in range(6):
        typed = DenoiseRequest(BEFORE, Canvas.of(Known([70 + n for n in range(count)]), Slots(2), Known(AFTER)), GREEDY)
        whole.append(denoiser.start(typed).keys is None)
        denoiser.run([typed])
    assert whole == [True, False, False, True, False, False]


def test_canvases_that_begin_together_share_their_first_pass_and_the_others() -> None:
    sampling = MaskedSampling(max_steps=9, temperature=1.0)
    asked = [request(4, sampling=sampling, seed=seed) for seed in range(3)]
    denoiser, calls = tiny_masked(tiny_reference(), cached=True), list[int]()
    encode = denoiser.model.encode

    def counted(tokens: torch.Tensor, *others: object) -> torch.Tensor:
        calls.append(tokens.shape[1])
        return encode(tokens, *others)  # type: ignore[arg-type]

    denoiser.model.encode = counted  # type: ignore[assignment, method-assign]
    together = [result.tokens.tolist() for result in denoiser.run(asked)]
    length = 3 + asked[0].canvas.width
    assert calls == [length, 2 * 5, *[3 * 5] * 3], "one whole pass, then the slots and what predicts them"
    alone = [tiny_masked(tiny_reference(), cached=True).run([one])[0].tokens.tolist() for one in asked]
    assert together == alone


def test_read_ahead_reads_once() -> None:
    denoiser = tiny_masked(tiny_reference(), cached=True)
    assert denoiser.read_ahead(request(4)) == len(BEFORE) + 4 + 2 + len(AFTER)
    assert denoiser.read_ahead(request(4)) == 0
    denoiser.forget()
    assert denoiser.read_ahead(request(4)) > 0


def test_kept_sequences_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = tiny_masked(tiny_reference(), cached=True)
    for first in range(20):
        denoiser.run([DenoiseRequest([first] * 60, Canvas.of(Slots(2)), GREEDY)])
    assert len(denoiser.kept) == masked_denoiser.MOST_KEPT
    denoiser.cache.limit_bytes = 0
    denoiser.run([request(2)])
    assert not denoiser.kept


# scores of texts


@pytest.mark.parametrize("cached", [True, False])
def test_a_text_is_scored_from_both_sides(cached: bool) -> None:
    model = tiny_reference()
    scorer = tiny_masked(model, cached=cached).scorer()
    text = [30, 31, 32]
    scores, empty = scorer.text_scores(BEFORE[:2], BEFORE[2:], [text, []], AFTER)
    at = len(BEFORE)
    first = predictions(model, [*BEFORE, MASK, 31, MASK, *AFTER]).log_softmax(dim=-1)
    second = predictions(model, [*BEFORE, 30, MASK, 32, *AFTER]).log_softmax(dim=-1)
    expected = torch.stack([first[at, 30], second[at + 1, 31], first[at + 2, 32]])
    whole = [0, 2] if cached else [0, 1, 2]  # the second pass of a cached model keeps what surrounds the text
    torch.testing.assert_close(scores[whole], expected[whole], atol=1e-4, rtol=0)
    assert bool((scores < 0).all())
    assert len(empty) == 0


def test_requests_of_a_scheduler_get_the_same_results() -> None:
    alone = [tiny_masked(tiny_reference()).run([request(size)])[0].tokens.tolist() for size in (3, 5, 7)]
    scheduler = Scheduler(tiny_masked(tiny_reference()))
    try:
        futures = [
            scheduler.submit(lambda view, size=size: view.run([request(size)])[0].tokens.tolist(), Order())  # type: ignore[misc]
            for size in (3, 5, 7)
        ]
        assert [future.result(PATIENCE_S) for future in futures] == alone
        scores = scheduler.submit(lambda view: view.scorer().text_scores([1], [2], [[3, 4]], [5]), Order())
        assert len(scores.result(PATIENCE_S)[0]) == 2
        assert scheduler.submit(lambda view: view.read_ahead(request(3)), Order()).result(PATIENCE_S) == 0
    finally:
        scheduler.close()
