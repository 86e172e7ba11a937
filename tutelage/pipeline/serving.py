"""Endpoints of a run: the teacher's, embedded or remote, and the student's, served from its folder."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tutelage.config import RunConfig
from tutelage.models.base import Endpoint
from tutelage.models.llamacpp import embedded_server
from tutelage.models.process import ServedProcess
from tutelage.pipeline.gate import route_of, teacher_licence
from tutelage.resources import fetch, resource

STUDENT_CONCURRENCY = 8


@dataclass(frozen=True, slots=True)
class Served:
    """An endpoint that is up, and the CPU-seconds its server has used (None when the server is not ours)."""

    endpoint: Endpoint
    cpu_s: Callable[[], float] | None


@contextmanager
def serve_teacher(config: RunConfig, folder: Path) -> Iterator[Served]:
    """The teacher's endpoint; an embedded one is started and stopped here."""
    teacher = config.teacher
    licence = teacher_licence(config)
    if teacher.url is not None:
        endpoint = Endpoint(
            teacher.url.rstrip("/"),
            route_of(config),
            teacher.provider or route_of(config),
            teacher.model,
            licence,
            key_env=teacher.api_key_env,
            timeout_s=teacher.timeout_s,
        )
        yield Served(endpoint, None)
        return
    assert teacher.resource is not None
    pinned = resource(teacher.resource)
    with embedded_server(fetch(pinned), teacher.concurrency, folder / "logs" / "teacher.log") as server:
        endpoint = Endpoint(
            server.base_url,
            "embedded",
            pinned.provider,
            pinned.name,
            licence,
            weights_digest=f"sha256:{pinned.sha256}",
            timeout_s=teacher.timeout_s,
        )
        yield Served(endpoint, server.cpu_s)


@contextmanager
def serve_student(student: Path, name: str, weights_digest: str, log: Path) -> Iterator[Served]:
    """A student folder behind `tutelage serve`, on loopback. Its name carries the weights: new weights are asked anew."""
    model = f"{name}@{weights_digest.removeprefix('sha256:')[:16]}"
    # One thread: a small student's matrices are too small to be worth two, and CPU-seconds are what is counted.
    with ServedProcess("tutelage.serve", [str(student), "--name", model], log) as server:
        endpoint = Endpoint(server.base_url, "embedded", "tutelage", model, "own", weights_digest=weights_digest)
        yield Served(endpoint, server.cpu_s)


def key_is_set(config: RunConfig) -> bool:
    """Whether the teacher needs no key, or has one in the environment."""
    return config.teacher.api_key_env is None or bool(os.environ.get(config.teacher.api_key_env))
