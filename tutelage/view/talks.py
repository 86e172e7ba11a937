"""The conversations of a training as examples. They are a file of the run and no records of its store; in the index they
stand as segment 0, and when the file changes the index is made anew."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tutelage.canon import digest_of
from tutelage.errors import DataError, StorageError
from tutelage.records import Message
from tutelage.store import segment
from tutelage.view.runs import AUTHORS, CONVERSATIONS, Run, read_json
from tutelage.view.slices import Place, Slice
from tutelage.view.texts import SHOWN_CHARACTERS, answer_of, question_of, searched

TALKS = 0  # the number of their segment: those of a store are counted from 1
TO_TRAIN, TRAINED, TO_JUDGE = "to train on", "trained on", "judged by"  # fates


def talks_in(folder: Path) -> list[Path]:
    """The file of a run folder, if there is one. A link is none: it could lead anywhere."""
    return [path for path in (folder / CONVERSATIONS,) if path.is_file() and not path.is_symlink()]


def mark_of(path: Path) -> bytes:
    """What tells that the file is still the one that was read: stages write it whole."""
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}".encode()


class TalkSlice(Slice):
    """Conversations in a row, each an example of its own."""

    def __init__(self, path: Path, start: int) -> None:
        super().__init__(TALKS, start)
        self._authors = _authors(path.parents[1])

    def take(self, line: bytes, path: Path) -> None:
        at, self.at = self.at, self.at + len(line)
        try:
            self._talk(orjson.loads(line), at)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise segment.damaged(path, at, f"{type(error).__name__} {error}"[:200]) from error
        self.last, self.end = at, self.at

    def _talk(self, value: Mapping[str, Any], at: int) -> None:
        name, digest = Place(TALKS, at).id, bytes.fromhex(value["id"].removeprefix("sha256:"))
        asked, said = _sides(value["messages"])
        who = str(self._authors[value["author"]]["teacher"])
        fate = TO_TRAIN if value["kind"] == "train" else TO_JUDGE
        finish = "length" if value["cut"] else ""
        self.examples.append(
            (name, at, -1, digest, digest, "", "", "", finish, "", who, who, 0, 0, "", "data", fate)
        )  # fmt: skip
        question, answer = question_of(asked), answer_of(said)
        self.said.append((name, question[:SHOWN_CHARACTERS], answer[:SHOWN_CHARACTERS]))
        self.words.append((name, *searched(asked, said)))


class Talk(NamedTuple):
    """A conversation with whose words it is: authors as the data stage names them. `raw` is its line."""

    place: Place
    id: str
    kind: str
    is_cut: bool
    messages: tuple[Message, ...]
    author: Mapping[str, str]
    asked_by: Mapping[str, str]
    lineage: dict[str, Any]
    raw: str


def read_talk(run: Run, place: Place, lineage: dict[str, Any]) -> Talk:
    """Reads the line anew and holds it against its digest. Raises `StorageError` when it is another one or gone, `DataError`
    when it is not in this version's shape."""
    path = run.folder / CONVERSATIONS
    try:
        if not talks_in(run.folder):
            raise FileNotFoundError(path)
        with path.open("rb") as file:
            file.seek(place.offset)
            value = json.loads(file.readline())
        if (
            value["id"] != "sha256:" + lineage["digest"].hex()
            or digest_of({"messages": value["messages"]}) != value["id"]
        ):
            raise segment.damaged(path, place.offset, "the digest differs")
        authors = _authors(run.folder)
        return Talk(
            place, value["id"], value["kind"], bool(value["cut"]), tuple(map(Message.from_json, value["messages"])),
            authors[value["author"]], authors[value["asked_by"]], lineage,
            json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True),
        )  # fmt: skip
    except FileNotFoundError:
        raise StorageError(f"{path} is gone", fix="restore it from a copy") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise DataError(
            f"conversation {place} of {run.name} is not in this version's shape: {error!r:.200}",
            fix="look at it with the version that wrote it",
        ) from error


def _authors(folder: Path) -> list[Mapping[str, str]]:
    found = read_json(folder / AUTHORS)
    return found["authors"] if found else []


def _sides(messages: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The turns that ask and the last answer, in the shapes of a request and of an exchange: lists and search read those."""
    asked = [turn for turn in messages if turn["role"] != "assistant"]
    said = [turn for turn in messages if turn["role"] == "assistant"]
    calls = [call for turn in said for call in turn.get("tool_calls", ())]
    answer = str(said[-1]["content"])
    earlier = "\n".join(str(turn["content"]) for turn in said[:-1])
    return {"messages": asked}, {"answer": answer, "reasoning": earlier, "tool_calls": calls}
