"""Errors about one of several models, by the table that the run file has for it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tutelage.errors import TutelageError
from tutelage.proof_config import JudgeTable, ProofSystemTable

_KEYS = ProofSystemTable.model_fields | JudgeTable.model_fields  # both hold those of `TeacherTable`
_KEY = re.compile(rf"\bteacher(?=\.({'|'.join(_KEYS)})\b)")


@contextmanager
def named(table: str) -> Iterator[None]:
    """Within: an error that says `teacher.url` says `systems.student.url`, where `table` is `systems.student`. Whoever asks
    a model knows one table, and there its name is `teacher`."""
    try:
        yield
    except TutelageError as error:
        error.message, error.fix = (_KEY.sub(lambda _: table, text) for text in (error.message, error.fix))
        raise
