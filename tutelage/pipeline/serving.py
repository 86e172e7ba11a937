"""Endpoints of a run: the teacher's, embedded or remote, and the student's, served from its folder."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from tutelage.canon import digest_file, digest_of
from tutelage.config import TeacherTable
from tutelage.errors import ResourceError
from tutelage.models.base import Endpoint, Model
from tutelage.models.llamacpp import embedded_server
from tutelage.models.own import OwnModel
from tutelage.models.process import ServedProcess
from tutelage.models.teachers import api_of, open_model
from tutelage.pipeline.gate import Base, route_of, teacher_licence
from tutelage.resources import fetch, resource

STUDENT_CONCURRENCY = 8


@dataclass(frozen=True, slots=True)
class Served:
    """An endpoint, and the CPU-seconds its server has used (None when the server is not ours).

    `server` is ours: the first question starts it (`models.own`), and the endpoint has no address before. `weights` says
    where the served weights come from: the pinned file's digest, and how what is served was made of it.
    """

    endpoint: Endpoint
    cpu_s: Callable[[], float] | None
    weights: Mapping[str, str] = field(default_factory=dict)
    server: ServedProcess | None = None

    def open(self, endpoint: Endpoint, connections: int) -> Model:
        """The model at this endpoint, or at one with more known of it; nothing is started or connected yet."""
        return (
            open_model(endpoint, connections) if self.server is None else OwnModel(endpoint, connections, self.server)
        )

    def up(self) -> Endpoint:
        """The endpoint with its address, which is ours to start. Raises `TeacherError` when it does not come up."""
        if self.server is None:
            return self.endpoint
        self.server.start()
        return replace(self.endpoint, base_url=self.server.base_url)


@contextmanager
def serve_teacher(teacher: TeacherTable, folder: Path) -> Iterator[Served]:
    """The teacher's endpoint; weights of our own, embedded or in a folder, are served from the first question
    to the end."""
    if teacher.url is not None:
        yield Served(remote(teacher), None)
    elif teacher.path is not None and Path(teacher.path).is_file():
        with serve_file(teacher, Path(teacher.path), folder / "logs" / "teacher.log") as served:
            yield served
    elif teacher.path is not None:
        with _own_folder(teacher, Path(teacher.path), folder / "logs" / "teacher.log") as served:
            yield served
    else:
        with _embedded(teacher, folder / "logs" / "teacher.log") as served:
            yield served


def remote(teacher: TeacherTable) -> Endpoint:
    """An endpoint that somebody else serves."""
    assert teacher.url is not None
    route = route_of(teacher)
    if route == "loopback":  # another port is another server: its answers are not this one's
        route = f"loopback:{urlsplit(teacher.url).port or 80}"
    return Endpoint(
        teacher.url.rstrip("/"),
        route,
        teacher.provider or route_of(teacher),
        teacher.model,
        teacher_licence(teacher),
        key_env=teacher.api_key_env,
        timeout_s=teacher.timeout_s,
        api=teacher.api or api_of(teacher.url),
    )


@contextmanager
def _embedded(teacher: TeacherTable, log: Path) -> Iterator[Served]:
    from tutelage.models.gguf import fast_copy  # numpy: a tenth of a second that other teachers need not wait

    assert teacher.resource is not None
    pinned = resource(teacher.resource)
    source = fetch(pinned)
    weights = fast_copy(source)
    digest = digest_file(weights)
    with closing(embedded_server(weights, teacher.concurrency, log)) as server:
        endpoint = Endpoint(
            "",
            "embedded",
            pinned.provider,
            pinned.name,
            teacher_licence(teacher),
            weights_digest=digest,
            timeout_s=teacher.timeout_s,
        )
        made = "as pinned" if weights == source else "Q8_0 copy of the pinned file"
        origin = {"pinned": digest_file(source), "served": digest, "made": made}
        yield Served(endpoint, server.cpu_s, origin, server)


def weights_in(path: Path) -> Path:
    """The weights of a Hugging Face folder, or a GGUF file itself. Raises `ResourceError` when there are none."""
    if path.is_file():
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ResourceError(f"{path} is no GGUF file", fix="give a Hugging Face folder, or a GGUF file")
        return path
    file = path / "model.safetensors"
    if not file.is_file():
        raise ResourceError(
            f"{path} has no model.safetensors", fix="give a Hugging Face folder in one file, or a GGUF file"
        )
    return file


@contextmanager
def serve_file(
    teacher: TeacherTable, weights: Path, log: Path, origin: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """A GGUF file of one's own behind llama.cpp, from the first question to the end; `origin` says what it was made of. Its name
    carries the file's digest: other weights, or another template, are asked anew. Raises `ResourceError` for another file."""
    digest = digest_file(weights_in(weights))
    with closing(embedded_server(weights, teacher.concurrency, log)) as server:
        endpoint = Endpoint(
            "",
            "embedded",
            "local",
            f"{weights.stem}@{digest.removeprefix('sha256:')[:16]}",
            teacher_licence(teacher),
            weights_digest=digest,
            timeout_s=teacher.timeout_s,
        )
        yield Served(endpoint, server.cpu_s, {**(origin or {}), "served": digest}, server)


@contextmanager
def _own_folder(teacher: TeacherTable, weights: Path, log: Path) -> Iterator[Served]:
    """Hugging Face weights behind our own server. Raises `ResourceError` when the folder holds none."""
    digest = digest_file(weights_in(weights))
    # Its name is that of all that is read: with another template or tokenizer it is asked anew.
    whole = digest_of(Base.of(None, str(weights), "own").inputs("weights"))
    name = f"{weights.name}@{whole.removeprefix('sha256:')[:16]}"
    with closing(ServedProcess("tutelage.serve", [str(weights), "--name", name], log)) as server:
        endpoint = Endpoint(
            "",
            "embedded",
            "local",
            name,
            teacher_licence(teacher),
            weights_digest=digest,
            timeout_s=teacher.timeout_s,
        )
        yield Served(endpoint, server.cpu_s, {"served": digest}, server)


@contextmanager
def serve_student(student: Path, name: str, folder_digest: str, weights_digest: str, log: Path) -> Iterator[Served]:
    """A student folder behind `tutelage serve`, on loopback. Its name carries the folder's digest: new weights, or a new
    template, are asked anew."""
    model = f"{name}@{folder_digest.removeprefix('sha256:')[:16]}"
    with closing(ServedProcess("tutelage.serve", [str(student), "--name", model], log)) as server:
        endpoint = Endpoint("", "embedded", "tutelage", model, "own", weights_digest=weights_digest)
        yield Served(endpoint, server.cpu_s, server=server)
