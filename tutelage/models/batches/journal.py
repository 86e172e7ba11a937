"""What the store says of jobs: a line before one is submitted, one with the provider's id, one when it is over.

So whoever comes after a killed process knows what may be running, and looks for it before anything is paid twice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tutelage.models.base import Endpoint
from tutelage.models.exchange import now_utc
from tutelage.store.store import Store

KIND = "batch"
_TAG = "sha256:"


def custom_id_of(address: str) -> str:
    """A request's digest as an id that every provider takes: 64 hexadecimal digits."""
    return address.removeprefix(_TAG)


def address_of(custom_id: str) -> str:
    return _TAG + custom_id


def now_exactly() -> str:
    """The time as RFC 3339 in UTC, to the microsecond: what belongs to a job, and what came before, is told by it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(slots=True)
class OpenJob:
    """A job that is not known to be over. `attempts` says, for each address in it, which attempt it is; `batch_id` is
    empty when the process ended before the provider's id was stored."""

    token: str
    at: str
    attempts: dict[str, int]
    batch_id: str = ""
    was_found: bool = False  # the id comes from a search, and may be another's where a provider keeps no marks


@dataclass(slots=True)
class Journal:
    """The jobs of one endpoint in a store."""

    store: Store
    endpoint: Endpoint
    taken: set[str] = field(default_factory=set)  # ids of all jobs that were ever ours

    def open_jobs(self) -> list[OpenJob]:
        """Jobs that may be running, or may have answers that nobody has read."""
        found: dict[str, OpenJob] = {}
        for line in self.store.records(KIND):
            value = line.value
            if (value.get("route"), value.get("api")) != (self.endpoint.route, self.endpoint.api):
                continue
            token, state = value["token"], value["state"]
            if state == "submitting":
                attempts = {address_of(custom_id): attempt for custom_id, attempt in value["requests"]}
                found[token] = OpenJob(token, value["at"], attempts)
            elif state == "submitted":
                self.taken.add(value["id"])
                if token in found:
                    found[token].batch_id, found[token].was_found = value["id"], value["found"]
            elif state == "ended":
                found.pop(token, None)
        return list(found.values())

    def submitting(self, job: OpenJob) -> None:
        """To be written before the first reservation of its questions, and on the disk before it is sent."""
        requests = [[custom_id_of(address), attempt] for address, attempt in job.attempts.items()]
        self._write(job, "submitting", {"requests": requests}, job.at)

    def submitted(self, job: OpenJob) -> None:
        self.taken.add(job.batch_id)
        self._write(job, "submitted", {"id": job.batch_id, "found": job.was_found}, now_utc())

    def ended(self, job: OpenJob, reason: str, counts: Mapping[str, int]) -> None:
        """Everything that will ever come of it is stored."""
        self._write(job, "ended", {"id": job.batch_id, "reason": reason, "counts": dict(counts)}, now_utc())

    def reserved(self, jobs: Iterable[OpenJob]) -> dict[str, set[str]]:
        """For each token, which of its questions were reserved for. Reads the whole store: for jobs without an id alone."""
        jobs = list(jobs)
        found: dict[str, set[str]] = {job.token: set() for job in jobs}
        if not jobs:
            return found
        for line in self.store.records("reservation"):
            value = line.value
            for job in jobs:
                of_job = job.attempts.get(value["request_digest"]) == value["attempt"]
                if of_job and value["reserved_at"] == job.at:
                    found[job.token].add(value["request_digest"])
        return found

    def noted(self, jobs: Iterable[OpenJob]) -> dict[str, set[str]]:
        """For each token, which of its questions are known to have got no usable answer."""
        jobs = list(jobs)
        found: dict[str, set[str]] = {job.token: set() for job in jobs}
        if not jobs:
            return found
        for line in self.store.records("attempt"):
            value = line.value
            for job in jobs:
                of_job = job.attempts.get(value["request_digest"]) == value["attempt"]
                if of_job and value["ended_at"] >= job.at:
                    found[job.token].add(value["request_digest"])
        return found

    def _write(self, job: OpenJob, state: str, more: dict[str, Any], at: str) -> None:
        about = {"token": job.token, "state": state, "at": at, "route": self.endpoint.route, "api": self.endpoint.api}
        self.store.put_record(KIND, {**about, **more})
