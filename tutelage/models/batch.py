"""Asking through a provider's batch API: `ask` for those who can wait a day and want to pay half.

The same promises hold: what the store has is not asked again, what a job may cost is in the store before it is submitted,
and a process that is killed at any moment leaves a job that the next one finds, reads, and never pays for twice.
"""

import time
from collections import deque
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, field
from itertools import chain
from secrets import token_hex
from typing import NamedTuple

from tutelage.errors import BudgetError, SignalError, TeacherError, TutelageError
from tutelage.models.ask import (
    CONNECT_ATTEMPTS,
    ROW_OF_FAILURES,
    Asking,
    Todo,
    pause,
    raise_outcome,
    too_long,
    unanswered,
)
from tutelage.models.base import AskAgain, Refused
from tutelage.models.batches.answers import Answers, Entry
from tutelage.models.batches.base import MOST_BYTES, BatchModel, BatchState, BatchStatus, Gone
from tutelage.models.batches.journal import Journal, OpenJob, address_of, custom_id_of, now_exactly
from tutelage.models.batches.parts import seconds
from tutelage.models.exchange import bound_of
from tutelage.models.limits import LONGEST_WAIT_S
from tutelage.records import Attempt, Request, Reservation

UNDER_WAY = 4  # jobs at once; each is held in memory
MOST_SILENT = 10  # looks at a job in a row that came to nothing, after which the endpoint counts as gone
RESULTS_KEPT_S = 29 * 86_400  # the shortest time for which a provider keeps answers


class Pace(NamedTuple):
    """How often to look, in seconds: the wait grows from `first_s` while nothing happens. After `settles_s` a job that the
    provider does not list was never submitted."""

    first_s: float = 5.0
    longest_s: float = 60.0
    settles_s: float = 30.0


async def ask_in_batches(
    asking: Asking, batches: BatchModel, requests: Iterable[Request], what: str, total: int | None = None,
    pace: Pace = Pace(),  # noqa: B008  # immutable
) -> None:  # fmt: skip
    """Asks every request the store has no answer for, in jobs as large as provider and budget allow.

    `batches` is open; `asking.prices` are those of the tier "batch"; `asking.model` and its throttle are not used. Returns
    and raises as `ask` does. When it ends early, jobs go on at the provider: the next call with the same requests reads them.
    """
    total = len(requests) if isinstance(requests, Sized) else total or 0
    asking.progress.begin(what, total)
    work = _Work(asking, batches, unanswered(asking, requests), pace)
    try:
        work.resume()
        while not asking.is_over:
            await work.submit_what_fits()
            if not work.running:
                break
            await work.look()
    except TutelageError as error:
        asking.fatal = asking.fatal or error
    finally:
        asking.store.sync()
        asking.progress.end()
    if work.running:
        ids = ", ".join(running.job.batch_id or "one not yet confirmed" for running in work.running)
        asking.progress.say(f"still at the provider: {ids}; run the same command again to read the answers")
    raise_outcome(asking, total)


@dataclass(slots=True)
class _Running:
    """A job, those of its questions whose end is not known, and those that go into another once this one is over.

    `others`: it holds questions that are not asked here."""

    job: OpenJob
    waiting: dict[str, Entry]
    failed: list[tuple[Entry, AskAgain]] = field(default_factory=list)
    absent_from: float = 0.0  # monotonic time from which a job that is not listed was never submitted
    others: bool = False
    silent: int = 0


@dataclass(slots=True)
class _Work:
    asking: Asking
    batches: BatchModel
    source: Iterable[Todo]
    pace: Pace
    journal: Journal = field(init=False)
    answers: Answers = field(init=False)
    queue: deque[Entry] = field(init=False)
    most: int = field(init=False)
    running: list[_Running] = field(default_factory=list)
    is_full: bool = False  # the provider takes no more until a job is over
    has_heard: bool = False
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        self.journal = Journal(self.asking.store, self.batches.endpoint)
        self.answers = Answers(self.asking, self.batches)
        self.queue = self.answers.queue
        self.most = self.batches.most_requests
        self.source = iter(self.source)

    # Jobs of earlier starts ------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Takes up jobs of earlier starts with those of their questions that are asked here and not answered."""
        jobs = self.journal.open_jobs()
        if not jobs:
            return
        reserved = self.journal.reserved([job for job in jobs if not job.batch_id])
        noted = self.journal.noted(jobs)
        by_token = {job.token: _Running(job, {}) for job in jobs}
        owner = {address: by_token[job.token] for job in jobs for address in job.attempts}
        left = set(owner) - self.asking.store.known(list(owner))
        read: deque[Todo] = deque()
        source = iter(self.source)
        while left and (todo := next(source, None)) is not None:
            if todo.address not in left:
                read.append(todo)
                continue
            left.discard(todo.address)
            self._claim(owner[todo.address], todo, noted)
        self.source = chain(read, source)
        for running in by_token.values():
            job = running.job
            running.others = any(address in left for address in job.attempts)
            if not job.batch_id and len(reserved[job.token]) < len(job.attempts):
                self._dissolve(running, reserved[job.token] - noted[job.token])  # killed before it could be submitted
            elif running.waiting:
                age_s = max(0.0, time.time() - seconds(job.at))
                running.absent_from = time.monotonic() + max(0.0, self.pace.settles_s - age_s)
                self.running.append(running)
            else:  # every question of it has an answer, or is noted to have none
                self._end(running, "", {})
        if self.running:
            self.asking.progress.say(f"{len(self.running)} batches of an earlier start are looked for")

    def _claim(self, running: _Running, todo: Todo, noted: dict[str, set[str]]) -> None:
        job, bound = running.job, bound_of(todo.request, self.asking.prices)
        attempt = job.attempts[todo.address]
        aside = self.asking.store.reserved(todo.address, attempt)
        if aside is not None:  # at the prices of that day
            bound = bound._replace(nusd=aside.nusd)
        entry = Entry(todo, bound, attempt)
        if todo.address in noted[job.token]:
            running.failed.append((entry, AskAgain("no usable answer in a batch before")))
            return
        running.waiting[todo.address] = entry
        if aside is not None:  # what may be spent is a reservation again
            self.asking.budget.reopen(aside.nusd, aside.tokens, bound.nusd, bound.tokens)

    def _dissolve(self, running: _Running, reserved: Iterable[str]) -> None:
        """A job that was never submitted: nothing was paid, and its questions are asked in another."""
        job, reason = running.job, "the batch was never submitted"
        for address in (reserved := set(reserved)):
            asked = job.attempts[address]
            self.asking.store.put_attempt(Attempt(address, asked, reason, 0, 0, 0, 0, "", now_exactly()))
        for address, entry in running.waiting.items():
            if address in reserved:
                self.asking.budget.settle(entry.bound.nusd, entry.bound.tokens, 0, 0)
            self.queue.append(entry)
        self._end(running, reason, {})

    # Submitting ------------------------------------------------------------------------------------------------------

    async def submit_what_fits(self) -> None:
        """Raises `BudgetError` when nothing is under way and not even one more question fits."""
        while len(self.running) < UNDER_WAY and not self.is_full and not self.asking.stop:
            cut = self._cut()
            if not cut.entries or not await self._submit(cut):
                return

    def _cut(self) -> "_Cut":
        """Questions for one job, whose bounds are reserved in the budget."""
        cut, size, kind, budget = _Cut([], []), 0, "", self.asking.budget
        try:
            while len(cut.entries) < self.most and (entry := self._next()) is not None:
                line = self.batches.line(custom_id_of(entry.todo.address), entry.todo.request)
                size += len(line) + 1
                kind, before = self.batches.kind(entry.todo.request), kind
                try:
                    if cut.entries and (size > MOST_BYTES or kind != before):
                        self.queue.appendleft(entry)
                        break
                    budget.reserve(entry.bound.nusd, entry.bound.tokens)
                except BudgetError:
                    self.queue.appendleft(entry)
                    if not cut.entries and not self.running:
                        raise
                    break
                cut.entries.append(entry)
                cut.lines.append(line)
        except BaseException:
            for entry in cut.entries:
                budget.settle(entry.bound.nusd, entry.bound.tokens, 0, 0)
            raise
        return cut

    def _next(self) -> Entry | None:
        if self.queue:
            return self.queue.popleft()
        for todo in self.source:
            entry = Entry(todo, bound_of(todo.request, self.asking.prices), 1)
            if (reason := too_long(self.asking, todo.request)) is None:
                return entry
            self.answers.give_up(entry._replace(attempt=0), Refused(reason))
        return None

    async def _submit(self, cut: "_Cut") -> bool:
        job = OpenJob(token_hex(16), now_exactly(), {entry.todo.address: entry.attempt for entry in cut.entries})
        self.journal.submitting(job)
        for todo, bound, attempt in cut.entries:
            self.asking.store.reserve(Reservation(todo.address, attempt, bound.nusd, bound.tokens, job.at))
        self.asking.store.sync()
        running = _Running(job, {entry.todo.address: entry for entry in cut.entries})
        self.running.append(running)
        try:
            await self._send(running, cut.lines)
        except AskAgain as again:
            self._came_to_nothing(running, again)
            self.wait_s = max(self.pace.first_s, self.wait_s, min(again.wait_s or 0.0, LONGEST_WAIT_S))
            return False
        return True

    async def _send(self, running: _Running, lines: Sequence[bytes]) -> None:
        job = running.job
        sample = next(iter(running.waiting.values())).todo.request
        try:
            job.batch_id = await self.batches.submit(lines, sample, job.token)
        except AskAgain as again:  # it may have arrived all the same
            running.absent_from = time.monotonic() + (0.0 if again.throttled else self.pace.settles_s)
            raise
        except Refused as refused:
            self._dissolve(running, running.waiting)
            raise TeacherError(
                f"{self.batches.endpoint.base_url} does not take a batch: {refused.reason}",
                fix="see its message; set teacher.batch = false to ask one by one",
            ) from refused
        else:
            self.has_heard, running.silent, self.wait_s = True, 0, self.pace.first_s
            self.journal.submitted(job)
            self.asking.progress.say(f"batch {job.batch_id}: {len(lines)} questions submitted")

    # Looking ---------------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Waits, then looks at every job once."""
        await pause(self.asking, self.wait_s)
        before, wished_s = len(self.running), 0.0
        for running in list(self.running):
            if self.asking.is_over:
                return
            try:
                await self._look_at(running)
            except AskAgain as again:
                wished_s = max(wished_s, min(again.wait_s or 0.0, LONGEST_WAIT_S))
                self._came_to_nothing(running, again)
        grown = self.pace.first_s if len(self.running) < before else 1.5 * self.wait_s
        self.wait_s = max(wished_s, min(self.pace.longest_s, max(self.pace.first_s, grown)))

    def _came_to_nothing(self, running: _Running, again: AskAgain) -> None:
        running.silent += 1
        if running.silent >= (MOST_SILENT if self.has_heard else CONNECT_ATTEMPTS):
            raise TeacherError(
                f"{self.batches.endpoint.base_url} does not answer: {again.reason}",
                fix="check the network and teacher.url, then run again: batches go on, and their answers are read then",
            )

    async def _look_at(self, running: _Running) -> None:
        job = running.job
        if not job.batch_id:
            await self._find(running)
            return
        try:
            state = await self.batches.poll(job.batch_id)
        except Gone as error:
            if time.time() - seconds(job.at) < RESULTS_KEPT_S:
                raise TeacherError(
                    f"batch {job.batch_id} of {job.at} is not known: {error.message}",
                    fix="use the key of the account that submitted it: nothing is bought anew while it may be there",
                ) from error
            lost = BatchState(BatchStatus.ENDED, len(job.attempts), 0)
            self._close(running, "its answers are no longer kept", lost, 0)
            return
        self.has_heard = True
        if state.status is BatchStatus.RUNNING:
            note = f"batch {job.batch_id}: {state.answered}/{state.total or len(job.attempts)}"
            self.asking.progress.advance(self.asking.reused + self.asking.answered, note=note)
            running.silent = 0
        elif state.status is BatchStatus.FAILED:
            self._fail(running, state)
        else:
            await self._collect(running, state)

    async def _find(self, running: _Running) -> None:
        job = running.job
        found = await self.batches.find(job.token, job.at, len(job.attempts), self.journal.taken)
        if found is not None:
            job.batch_id, job.was_found, running.silent = found, True, 0
            self.journal.submitted(job)
            self.asking.progress.say(f"batch {found}: found again")
        elif time.monotonic() < running.absent_from:
            return
        elif running.waiting.keys() == job.attempts.keys():
            pairs = ((custom_id_of(address), entry.todo.request) for address, entry in running.waiting.items())
            await self._send(running, [self.batches.line(*pair) for pair in pairs])
        else:
            self._dissolve(running, running.waiting)

    def _fail(self, running: _Running, state: BatchState) -> None:
        """The provider did not begin with it. Raises `TeacherError` but where too much is waiting there already."""
        count = len(running.job.attempts)
        if state.is_queue_full and (self.running[1:] or count > 1):
            self.asking.progress.say(f"batch {running.job.batch_id} has to wait: {state.reason}")
            self.most = max(1, count // 2)
            self.is_full = bool(self.running[1:])
            self._dissolve(running, running.waiting)
            return
        for entry in running.waiting.values():
            self.answers.note(entry, AskAgain(state.reason, may_be_billed=state.answered > 0))
        self._end(running, state.reason, {})
        raise TeacherError(
            f"{self.batches.endpoint.base_url} failed batch {running.job.batch_id}: {state.reason}",
            fix="mend what it names and run again; set teacher.batch = false to ask one by one",
        )

    # Results ---------------------------------------------------------------------------------------------------------

    async def _collect(self, running: _Running, state: BatchState) -> None:
        """Reads everything once; after a broken connection or Ctrl-C it is read again, and counts once all the same."""
        job, seen, answered = running.job, set[str](), 0
        unknown = repeated = 0
        async for line in self.batches.results(job.batch_id):
            if self.asking.stop:
                return
            address = address_of(line.custom_id)
            if address not in job.attempts:
                unknown += 1
            elif address in seen:
                repeated += 1
            else:
                seen.add(address)
                answered += line.status == 200
                entry = running.waiting.pop(address, None)
                if entry is not None and (why := self.answers.take(entry, line, job.at)) is not None:
                    running.failed.append((entry, why))
        if unknown and not seen and job.was_found and not self.batches.keeps_marks:
            job.batch_id = ""  # somebody else's
            return
        if unknown or repeated:
            self.asking.progress.say(
                f"batch {job.batch_id}: {unknown} results of unknown questions and {repeated} repeated ones left out"
            )
        self._close(running, "", state, answered)

    def _close(self, running: _Running, reason: str, state: BatchState, answered: int) -> None:
        """What is missing may have been paid for, where the provider counts more answers than it gave."""
        why = AskAgain(reason or "no result in the batch", may_be_billed=state.answered > answered)
        missing = list(running.waiting.values())
        for entry in missing:
            self.answers.note(entry, why)
            running.failed.append((entry, why))
        asked = len(running.job.attempts)
        self.asking.progress.say(
            f"batch {running.job.batch_id}: {answered} of {asked} answered, {len(missing)} missing"
        )
        self._end(running, reason, {"answered": answered, "missing": len(missing)})
        if self.answers.without_form >= ROW_OF_FAILURES and not self.asking.answered:
            raise SignalError(
                f"no answer of {self.answers.without_form} had the form it must have",
                fix="check the schema or the tools against what the model can do; `tutelage probe` shows what it takes",
            )

    def _end(self, running: _Running, reason: str, counts: dict[str, int]) -> None:
        """The job is over, but where it holds questions of somebody who has not read their answers. Only then may what it
        did not answer go into another."""
        if not running.others:
            self.journal.ended(running.job, reason, counts)
        for failed in running.failed:
            self.answers.again(*failed)
        if running in self.running:
            self.running.remove(running)
            self.is_full = False


class _Cut(NamedTuple):
    entries: list[Entry]
    lines: list[bytes]
