"""Endpoints of a run: the teacher's, embedded or remote, and the student's, served from its folder."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tutelage.canon import digest_file
from tutelage.config import RunConfig
from tutelage.models.base import Endpoint
from tutelage.models.gguf import fast_copy
from tutelage.models.llamacpp import embedded_server
from tutelage.models.process import ServedProcess
from tutelage.pipeline.gate import route_of, teacher_licence
from tutelage.resources import fetch, resource

STUDENT_CONCURRENCY = 8


@dataclass(frozen=True, slots=True)
class Served:
    """An endpoint that is up, and the CPU-seconds its server has used (None when the server is not ours).

    `weights` says where the served weights come from: the pinned file's digest, and how what is served was made of it.
    """

    endpoint: Endpoint
    cpu_s: Callable[[], float] | None
    weights: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def serve_teacher(config: RunConfig, folder: Path) -> Iterator[Served]:
    """The teacher's endpoint; an embedded one is started and stopped here."""
    teacher = config.teacher
    licence = teacher_licence(config)
    if teacher.url is not None:
        route = route_of(config)
        if route == "loopback":  # another port is another server: its answers are not this one's
            route = f"loopback:{urlsplit(teacher.url).port or 80}"
        endpoint = Endpoint(
            teacher.url.rstrip("/"),
            route,
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
    log = folder / "logs" / "teacher.log"
    source = fetch(pinned)
    weights = fast_copy(source)
    digest = digest_file(weights)
    with embedded_server(weights, teacher.concurrency, log) as server:
        endpoint = Endpoint(
            server.base_url,
            "embedded",
            pinned.provider,
            pinned.name,
            licence,
            weights_digest=digest,
            timeout_s=teacher.timeout_s,
        )
        made = "as pinned" if weights == source else "Q8_0 copy of the pinned file"
        origin = {"pinned": digest_file(source), "served": digest, "made": made}
        yield Served(endpoint, server.cpu_s, origin)


@contextmanager
def serve_student(student: Path, name: str, folder_digest: str, weights_digest: str, log: Path) -> Iterator[Served]:
    """A student folder behind `tutelage serve`, on loopback. Its name carries the folder's digest: new weights, or a new
    template, are asked anew."""
    model = f"{name}@{folder_digest.removeprefix('sha256:')[:16]}"
    with ServedProcess("tutelage.serve", [str(student), "--name", model], log) as server:
        endpoint = Endpoint(server.base_url, "embedded", "tutelage", model, "own", weights_digest=weights_digest)
        yield Served(endpoint, server.cpu_s)
