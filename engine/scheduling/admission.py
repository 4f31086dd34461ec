"""Which requests may start: as many as can end before their deadlines, by the time that earlier ones took.

Must not know what requests are for, nor which one has the next turn.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from engine.scheduling.request import Priority, Task

RUNNING = 16  # requests of a priority under way, each with a thread and its share of the prompts
MOST_RUNNING = 32  # requests under way, counting those whose client has no other under way
NEWEST = 0.2  # weight of the newest request in the average
LEAST_LEFT = 0.25  # of the average, for a request that takes longer
USABLE = 0.8  # of the time until a deadline, since requests differ


class Durations:
    """How long the engine works for a request: the average of each priority, in seconds."""

    def __init__(self) -> None:
        self._average: dict[Priority, float] = {}

    def learn(self, task: Task[object], now: float) -> None:
        """From a request that has ended. now: time.monotonic().

        A request that ends after its deadline would have needed more time, so all time since its start counts.
        """
        if task.started_at is None or (task.failed and not task.is_late()):
            return
        took = now - task.started_at if task.is_late() else task.used
        average = self._average.get(task.order.priority, took)
        self._average[task.order.priority] = average + NEWEST * (took - average)

    def of(self, priority: Priority) -> float | None:
        """None before the first one has ended."""
        return self._average.get(priority)

    def left(self, task: Task[object]) -> float:
        """The expected time for the rest of a request; 0 if unknown."""
        average = self._average.get(task.order.priority, 0.0)
        return max(average - task.used, LEAST_LEFT * average)

    def until_answer(self, priority: Priority, tasks: Iterable[Task[object]]) -> float:
        """The expected time from now to the answer of one more request; 0 if it is the only one, or if unknown."""
        before = [one for one in tasks if one.order.priority <= priority and not one.ended and not one.is_cancelled()]
        if not before:
            return 0.0
        return (self.of(priority) or 0.0) + sum(map(self.left, before))


class Admission:
    """Which of `tasks` may start now: a snapshot. now: time.monotonic()."""

    def __init__(self, tasks: Iterable[Task[object]], durations: Durations, now: float) -> None:
        self.durations, self.now = durations, now
        self._running: Counter[Priority] = Counter()
        self._needed: Counter[Priority] = Counter()  # of those, without cancelled ones, which end at their next step
        self._clients: set[tuple[Priority, str]] = set()
        self._left: defaultdict[Priority, float] = defaultdict(float)
        self._short_of_memory = [one.order.priority for one in tasks if one.memory_failures]
        for task in tasks:
            if task.started and not task.ended:
                priority = task.order.priority
                self._running[priority] += 1
                self._clients.add((priority, task.order.client))
                if not task.is_cancelled():
                    self._needed[priority] += 1
                    self._left[priority] += durations.left(task)

    def may_start(self, task: Task[object]) -> bool:
        """Whether one more may be under way, or its client has none, and it can end before its deadline."""
        priority = task.order.priority
        if any(short <= priority for short in self._short_of_memory):
            return False
        is_clients_first = (priority, task.order.client) not in self._clients
        if self._running[priority] >= (MOST_RUNNING if is_clients_first else RUNNING):
            return False
        return self._is_first(priority) or self._fits(task)

    def is_hopeless(self, task: Task[object]) -> bool:
        """Whether a waiting request cannot end before its deadline any longer."""
        if task.is_late():
            return True
        duration, deadline = self.durations.of(task.order.priority), task.order.deadline
        if duration is None or deadline is None or self._is_first(task.order.priority):
            return False
        return self.now + duration > deadline

    def _is_first(self, priority: Priority) -> bool:
        """Whether nothing as urgent is under way. Then any request may start, however little is known of it."""
        return not any(self._needed[one] for one in Priority if one <= priority)

    def _fits(self, task: Task[object]) -> bool:
        priority, deadline = task.order.priority, task.order.deadline
        duration = self.durations.of(priority)
        if deadline is None:
            return True
        if duration is None:  # the first of its kind shows how long they take
            return not self._needed[priority]
        before = sum(self._left[one] for one in Priority if one <= priority)
        return before + duration <= USABLE * (deadline - self.now)
