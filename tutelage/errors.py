"""The error tree: every error says what is wrong (with the offending value) and how to mend it.

TutelageError ............ exit code
  ConfigError ............ 2   a run file or an option is wrong
  DataError .............. 2   a data file is wrong
  ResourceError .......... 2   a pinned outside file is missing or has the wrong digest
  TeacherError ........... 2   an endpoint cannot be reached or refuses us
  StorageError ........... 2   disk full, store locked, a segment damaged
  SignalError ............ 2   the teacher does not reveal what the loss needs
  TermsError ............. 1   a licence or a provider's terms forbid this use (a finding)
  BudgetError ............ 3   the spending limit was reached; what was answered is kept
  PartialError ........... 3   some questions stayed unanswered; what was answered is kept
  Interrupted ............ 130 the person pressed Ctrl-C; re-running resumes
"""


class TutelageError(Exception):
    """Root of all errors meant for people: `message` with the offending value, `fix` in one line."""

    exit_code = 2

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{_shown(self.message)}\n  fix: {_shown(self.fix)}"


def _shown(text: str) -> str:
    """For a terminal: what others wrote and an error quotes moves no cursor and changes no colour."""
    return "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)


class ConfigError(TutelageError, ValueError):
    """A run file or an option is wrong."""


class DataError(TutelageError, ValueError):
    """A data file is wrong: which line, and how many."""


class ResourceError(TutelageError, ValueError):
    """A pinned outside file is missing or has the wrong digest."""


class TeacherError(TutelageError, ConnectionError):
    """A model endpoint cannot be reached, refuses us, or answers outside its protocol."""


class StorageError(TutelageError, OSError):
    """The disk is full, the store is locked by another writer, or a segment is damaged."""

    def __init__(self, message: str, *, fix: str) -> None:
        TutelageError.__init__(self, message, fix=fix)


class SignalError(TutelageError, ValueError):
    """The teacher does not reveal what the loss needs."""


class TermsError(TutelageError, PermissionError):
    """A licence or a provider's terms forbid this use, or say nothing that allows it."""

    exit_code = 1


class BudgetError(TutelageError):
    """The spending limit was reached before the work was done."""

    exit_code = 3


class PartialError(TutelageError):
    """Some questions stayed unanswered after every retry."""

    exit_code = 3


class Interrupted(TutelageError):
    """The person asked to stop; what was done so far is on disk."""

    exit_code = 130

    def __init__(self, message: str = "interrupted; what was done so far is kept") -> None:
        super().__init__(message, fix="run the same command again to resume")
