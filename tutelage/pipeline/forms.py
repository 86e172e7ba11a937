"""The form in which a system of a proof is served: its folder as it is, or a GGUF file made of it in the run's folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tutelage.canon import digest_of
from tutelage.config import TeacherTable
from tutelage.errors import ConfigError
from tutelage.models.gguf_student import StudentFolder
from tutelage.pipeline.gate import Base, teacher_name
from tutelage.pipeline.serving import Served, serve_file, serve_teacher, weights_in
from tutelage.proof_config import ProofSystemTable

FOLDER = Path("work") / "served"  # of the files that are made here; each stays, to be handed on


def system_label(table: TeacherTable) -> str:
    """What a system is called on the page, with its form where that is not the folder's."""
    form = table.served_as if isinstance(table, ProofSystemTable) else None
    return f"{teacher_name(table)}, served as {form.upper()}" if form else teacher_name(table)


def require_servable(name: str, table: ProofSystemTable) -> None:
    """Before anything is asked. Raises `ResourceError` for a path without weights, `ConfigError` for a folder of which the form
    cannot be made, and for a form of a file."""
    if table.path is None:
        return
    weights = weights_in(Path(table.path))
    if table.served_as is None:
        return
    if weights == Path(table.path):
        raise ConfigError(
            f"systems.{name}.served_as = {table.served_as!r}, but {weights.name} is a file, which is served as it is",
            fix="leave served_as out, or give the folder it was made of",
        )
    try:
        StudentFolder(Path(table.path))
    except ConfigError as error:
        raise ConfigError(f"systems.{name}.served_as: {error.message}", fix=error.fix) from None


@contextmanager
def serve_system(table: TeacherTable, name: str, folder: Path) -> Iterator[Served]:
    """As `serve_teacher`; where the table names a form, a file of it is made anew (`FOLDER`) and served. `name` is the
    system's. Raises what `require_servable` does, and `StorageError` when the file cannot be written."""
    if not isinstance(table, ProofSystemTable) or table.served_as is None:
        with serve_teacher(table, folder) as served:
            yield served
        return
    source, out = Path(table.path or ""), folder / FOLDER / f"{name}-{table.served_as}.gguf"
    origin = {"folder": weights_digest(source), "made": f"{table.served_as.upper()} of the folder's weights"}
    StudentFolder(source).write(out, table.served_as)
    with serve_file(table, out, folder / "logs" / f"{name}.log", origin) as served:
        yield served


def weights_digest(path: Path) -> str:
    """Of every file that changes the answers: a GGUF file itself, or weights, tokenizer and template of a folder."""
    found = Base.of(None, str(path), "own")
    return found.digest if path.is_file() else digest_of(found.inputs("weights"))
