"""What an exchange says, as texts to list and to search, and what a person typed, as a search for SQLite's FTS5."""

import re
from collections.abc import Mapping
from typing import Any

from tutelage.records import RAW

SHOWN_CHARACTERS = 400  # of question and answer in lists
_SHOWN_END = 200
SEARCHED_CHARACTERS = 100_000  # of each: what comes behind is not found by a search
_MOST_TERMS = 16
# Scripts without spaces: each character is a word, and a run of them is looked for as a phrase.
_UNSPACED = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af\u0e00-\u0e7f])")


def question_of(request: Mapping[str, Any]) -> str:
    """The last turn that is not the model's own: what was asked. Of a text to be continued its end, where the question is:
    it begins with examples that are the same everywhere."""
    messages = request["messages"]
    if len(messages) == 1 and messages[0]["role"] == RAW and len(messages[0]["content"]) > _SHOWN_END:
        return "…" + messages[0]["content"][-_SHOWN_END:].lstrip()
    asked = [message for message in messages if message["role"] != "assistant"] or messages
    return str(asked[-1]["content"]) if asked else ""


def answer_of(exchange: Mapping[str, Any]) -> str:
    """The answer's text, or the tools it calls."""
    return str(exchange["answer"]) or "; ".join(map(called, exchange["tool_calls"]))


def searched(request: Mapping[str, Any], exchange: Mapping[str, Any]) -> tuple[str, str]:
    """The words of question and answer. System messages are left out: they are the same everywhere."""
    asked = "\n".join(str(message["content"]) for message in request["messages"] if message["role"] != "system")
    said = "\n".join((str(exchange["answer"]), str(exchange["reasoning"]), *map(called, exchange["tool_calls"])))
    return _spaced(asked[:SEARCHED_CHARACTERS]), _spaced(said[:SEARCHED_CHARACTERS])


def fts_query(typed: str) -> str:
    """What was typed as an FTS5 query: every word must be there; `begin*` may go on, "in quotes" is a phrase. Empty when
    nothing can be looked for. No operator of FTS5 gets through."""
    terms = []
    for quoted, plain in re.findall(r'"([^"]*)"|([^\s"]+)', typed.replace("\0", " ")[:1000]):
        words = _spaced(quoted or plain).split()
        if any(character.isalnum() for character in quoted or plain):
            terms.append('"' + " ".join(words) + '"' + ("*" if plain.endswith("*") else ""))
    return " ".join(terms[:_MOST_TERMS])


def _spaced(text: str) -> str:
    return _UNSPACED.sub(r" \1 ", text).encode("utf-8", "replace").decode()


def called(call: Mapping[str, Any]) -> str:
    """A call of a tool as `name(arguments)`."""
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    return f"{function.get('name', '')}({function.get('arguments', '')})"
