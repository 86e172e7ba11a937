"""What passed through the proxy, kept: read, redacted and stored in a thread of its own, for which nobody waits."""

import queue
import re
import sqlite3
import sys
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.canon import digest_bytes
from tutelage.collect.draws import free_draw
from tutelage.records import Exchange, ModelId, Origin, Price, Request, Role
from tutelage.redact import Patterns, Secrets, Tally
from tutelage.serve.unpacking import unpacked
from tutelage.store.store import Store
from tutelage.wire.answers import ChatAnswer
from tutelage.wire.calls import FIX, Asked
from tutelage.wire.captured import Kind, dump, parse_answer, parse_call, several, take_logprobs
from tutelage.wire.streams import assemble
from tutelage.wire.values import WireError, load

MAX_COPY_BYTES = (
    32 << 20
)  # of one request or one answer, as sent and unpacked: what is larger is passed on, not recorded
MAX_QUEUE = 2048
MAX_QUEUE_BYTES = 256 << 20
RETRY_S = 1.0
SHOUT_EVERY_S = 10.0
COUNTS = ("passed", "recorded", "dropped", "unusable", "too_large", "not_sampled", "opted_out", "failed")
RECENT_CALLS, ENOUGH_CALLS = 100, 20  # of which more than half must have been recorded, once there are enough
RECENT_S = 60.0  # how long the health page remembers that something was dropped


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was answered with status 200, as it went by. `keys` are the caller's own secrets, by name."""

    kind: Kind
    request: list[bytes]
    request_coding: str
    response: list[bytes]
    response_coding: str
    content_type: str
    keys: tuple[tuple[str, str], ...]
    request_id: str
    asked_at: str
    latency_ms: int

    @property
    def size(self) -> int:
        return sum(map(len, self.request)) + sum(map(len, self.response))


class Unusable(Exception):
    """A call that is outside the protocol, or cannot be kept. Its text names the field and shows nothing of the content:
    it is printed, and content may be a secret."""

    def __init__(self, side: str, param: str) -> None:
        where = re.sub(r"[^A-Za-z_.\[\]-]", "", re.sub(r"\d+", "n", param))[:60]
        super().__init__(f"{side}: {where or 'form'}")


class Kept(NamedTuple):
    """One answer, ready to be stored but for the number of its draw."""

    request: Request
    exchange: Exchange
    body: bytes


class Reader:
    """Makes records of calls: every text redacted, no secret of the environment or of the caller left."""

    def __init__(self, host: str, purpose: str, secrets: Secrets, patterns: Patterns) -> None:
        self._host = host
        self._purpose = purpose
        self._secrets = secrets
        self._patterns = patterns

    def read(self, call: Call, found: Tally) -> list[Kept]:
        """A record for each answer; what was redacted is added to `found`. Raises `Unusable` for what cannot be kept."""
        mine, keys, side = Tally(), _secrets_of(call.keys), "request"
        try:
            request = self._clean(
                load(unpacked(b"".join(call.request), call.request_coding, MAX_COPY_BYTES), FIX), keys, mine
            )
            asked = parse_call(call.kind, dump(request))
            side = "answer"
            raw = unpacked(b"".join(call.response), call.response_coding, MAX_COPY_BYTES)
            start = raw[:100].lstrip()
            if "event-stream" in call.content_type or start.startswith((b"data:", b"event:", b"[")):
                raw = assemble(call.kind.name, raw)
            answers = several(load(raw, FIX))
            bodies = [self._body(one, raw if len(answers) == 1 else b"", keys, mine) for one in answers]
            kept = [self._kept(call, asked, body, parse_answer(call.kind, body)) for body in bodies]
        except WireError as error:
            raise Unusable(side, error.param) from None
        found.add_all(mine)
        return kept

    def _body(self, answer: dict[str, Any], raw: bytes, keys: Secrets, found: Tally) -> bytes:
        """What is stored of a response: as it came when there is nothing to take out. Where there is, its
        log-probabilities go as well, because they spell it token by token."""
        logprobs = take_logprobs(answer)
        clean = self._clean(answer, keys, found)
        if clean is not answer:
            return dump(clean)
        for choice, key, value in logprobs:
            choice[key] = value
        return raw if raw and self._scrub(raw, keys) is raw else self._scrub(dump(answer), keys)

    def _clean(self, value: dict[str, Any], keys: Secrets, found: Tally) -> dict[str, Any]:
        """The same object when there is nothing to take out."""
        data = dump(value)
        scrubbed = self._scrub(data, keys)
        if scrubbed is not data:
            found.add("known-secret", "")
            value = load(scrubbed, FIX)
        return self._patterns.redact_value(value, found)

    def _scrub(self, data: bytes, keys: Secrets) -> bytes:
        return keys.scrub(self._secrets.scrub(data))

    def _kept(self, call: Call, asked: Asked, body: bytes, answer: ChatAnswer) -> Kept:
        request = Request(
            asked.messages,
            asked.params,
            asked.model,
            self._host,
            self._purpose,
            0,
            asked.tools,
            asked.schema,
            asked.extra,
        )
        exchange = Exchange(
            request_digest="",  # known when the number of its draw is
            model=ModelId(self._host, self._host, asked.model, answer.model, "", answer.fingerprint, "", "", "", ""),
            answer=answer.text,
            reasoning=answer.reasoning,
            tool_calls=answer.tool_calls,
            finish_reason=answer.finish_reason,
            logprobs=answer.positions,
            usage=answer.usage,
            price=Price(0, "captured: paid by the caller", call.asked_at[:10]),
            latency_ms=call.latency_ms,
            attempts=1,
            request_id_hash=digest_bytes(call.request_id.encode()) if call.request_id else "",
            raw_body_digest=digest_bytes(body),
            terms_digest="",
            twin=None,
            origin=Origin.CAPTURED,
            role=Role.TEXT_TARGET,
            asked_at=call.asked_at,
        )
        return Kept(request, exchange, body)


@lru_cache(maxsize=1024)
def _secrets_of(keys: tuple[tuple[str, str], ...]) -> Secrets:
    return Secrets(dict(keys))


class Recorder:
    """Takes calls without ever waiting, and stores them from a thread. With no folder it only reads and counts.

    While storing fails, calls wait in a bounded queue and are tried again each second; what does not fit is dropped and
    counted, loudly. `counts` is for showing.
    """

    def __init__(self, reader: Reader, folder: Path | None) -> None:
        self.reader = reader
        self.counts: Counter[str] = Counter()
        self.unusable: Counter[str] = Counter()
        self.found = Tally()
        self.failing = ""
        self._recent: deque[str] = deque(maxlen=RECENT_CALLS)  # why each could not be recorded; '' for those that were
        self._folder = folder
        self._store: Store | None = None
        self._queue: queue.Queue[Call | None] = queue.Queue(MAX_QUEUE)
        self._held = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._dropped_at = self._shouted_at = -1e9
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(self, call: Call) -> None:
        """Hands a call over, or drops it when the queue is full. Never waits."""
        with self._lock:
            fits = self._held + call.size <= MAX_QUEUE_BYTES
            self._held += call.size if fits else 0
        try:
            if not fits:
                raise queue.Full
            self._queue.put_nowait(call)
        except queue.Full:
            with self._lock:
                self._held -= call.size if fits else 0
            self.drop("more calls come than can be stored")

    def drop(self, reason: str) -> None:
        """Counts a call that was served and will not be stored, and says so at most every `SHOUT_EVERY_S`."""
        with self._lock:
            self.counts["dropped"] += 1
            self._dropped_at = time.monotonic()
        self._complain(self.failing or reason)

    def _complain(self, reason: str) -> None:
        with self._lock:
            now = time.monotonic()
            loud = now - self._shouted_at >= SHOUT_EVERY_S
            self._shouted_at = now if loud else self._shouted_at
        if loud:
            counted = f"{self.counts['dropped']} dropped, {self._queue.qsize()} waiting"
            _shout(f"calls are served and NOT RECORDED ({counted}): {reason}")

    def health(self) -> dict[str, Any]:
        """The state, "ok" or "degraded", and every count."""
        missing = self._missing()
        degraded = bool(self.failing or missing) or time.monotonic() - self._dropped_at < RECENT_S
        return {
            "status": "degraded" if degraded else "ok",
            "storage": self.failing or "ok",
            "recording": missing or "ok",
            "waiting": self._queue.qsize(),
            **{name: self.counts[name] for name in COUNTS},
            "redacted": {one.name: one.count for one in self.found.found()},
        }

    def close(self, timeout_s: float = 30.0) -> None:
        """Stores what waits, then ends; what cannot be stored by then is counted as dropped."""
        self._stopping.set()
        with suppress(queue.Full):
            self._queue.put_nowait(None)  # only wakes the thread; a full queue wakes it as well
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not (self._stopping.is_set() and self._queue.empty()):
            try:
                call = self._queue.get(timeout=RETRY_S)
            except queue.Empty:
                self._settle()
                continue
            if call is None:
                continue
            with self._lock:
                self._held -= call.size
            try:
                for kept in self.reader.read(call, self.found):
                    self._keep(kept)
                self._note("")
            except Unusable as error:
                self.refuse("unusable", str(error))
            except Exception as error:  # whatever a hostile body brings about must not end the recording
                self.refuse("unusable", f"{type(error).__name__} in reading it")
        self._close_store()

    def refuse(self, count: str, reason: str) -> None:
        """Counts a call that was served and cannot be recorded; complains when most of the recent ones could not."""
        with self._lock:
            self.counts[count] += 1
            if count == "unusable" and (len(self.unusable) < 100 or reason in self.unusable):
                self.unusable[reason] += 1
        self._note(reason)
        if missing := self._missing():
            self._complain(missing)

    def _note(self, reason: str) -> None:
        with self._lock:
            self._recent.append(reason)

    def _missing(self) -> str:
        """What keeps most of the recent calls from being recorded; empty when nothing does."""
        with self._lock:
            reasons, calls = Counter(filter(None, self._recent)), len(self._recent)
        if calls < ENOUGH_CALLS or 2 * reasons.total() <= calls:
            return ""
        ((reason, _),) = reasons.most_common(1)
        return f"{reasons.total()} of the last {calls} calls could not be recorded, most often because of {reason}"

    def _keep(self, kept: Kept) -> None:
        """Stores one answer, however long that takes; gives up only when the proxy stops."""
        if self._folder is None:
            self.counts["recorded"] += 1
            return
        placed = False
        while True:
            try:
                store = self._open_store(self._folder)
                if not placed:
                    request, placed = free_draw(store, kept.request), True
                    kept = Kept(request, replace(kept.exchange, request_digest=request.digest), kept.body)
                elif store.has(kept.request.digest) and store.digest_at(kept.request.digest) == kept.exchange.digest:
                    break  # the try before had stored it, and failed after that
                store.put(*kept)
                break
            except (OSError, sqlite3.Error) as error:
                self._fail(error)
            if self._stopping.wait(RETRY_S):
                self.drop("the proxy stopped")
                return
        self.counts["recorded"] += 1
        self._recover()

    def _open_store(self, folder: Path) -> Store:
        path = folder / "store"
        if self._store is not None and not (path / "index.sqlite").exists():  # somebody took the folder away
            self._close_store()
        if self._store is None:
            self._store = Store(path)
        return self._store

    def _settle(self) -> None:
        """In a quiet moment: what was stored reaches the disk."""
        if self._store is not None:
            try:
                self._store.sync()
            except (OSError, sqlite3.Error) as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failing = str(error) or type(error).__name__
        self._close_store()
        self._complain(self.failing)

    def _recover(self) -> None:
        if self.failing:
            self.failing = ""
            _shout(f"recording again; {self.counts['dropped']} calls were not recorded")

    def _close_store(self) -> None:
        if self._store is not None:
            with suppress(OSError, sqlite3.Error):
                self._store.close()
            self._store = None


def _shout(line: str) -> None:
    print(f"tutelage capture: {line}", file=sys.stderr, flush=True)
