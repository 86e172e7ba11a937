"""What the teacher's text is called, by how it was drawn; an answer that becomes no tokens is no text."""

from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.config import SamplingTable
from tutelage.pipeline.asking_texts import _ids, what_it_is


def config(**sampling: Any) -> Any:
    return SimpleNamespace(sampling=SamplingTable(**sampling))


def test_a_whole_distribution_that_was_asked_for_gives_an_estimate() -> None:
    assert what_it_is(config(temperature=1.0, top_p=1.0)).startswith("an estimate of KL")
    assert what_it_is(config(temperature=1.0, top_p=1.0, presence_penalty=0.0)).startswith("an estimate of KL")


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ({"top_p": None}, "the endpoint's own top_p"),
        ({"top_p": 0.9}, "top_p 0.9"),
        ({"presence_penalty": 0.5}, "presence penalty 0.5"),
        ({"frequency_penalty": -1}, "frequency penalty -1"),
        ({"stop": ("x",)}, "stop texts"),
        ({"extra": {"top_k": 5}}, "fields of the endpoint's own"),
    ],
)
def test_anything_that_bends_it_gives_none_and_is_named(sampling: dict[str, Any], words: str) -> None:
    said = what_it_is(config(**{"temperature": 1.0, "top_p": 1.0, **sampling}))
    assert said.startswith("not a KL divergence") and f"temperature 1, {words}, not" in said


def test_a_schema_bends_it() -> None:
    assert "a schema" in what_it_is(config(temperature=1.0, top_p=1.0), has_schema=True)


def test_an_answer_of_no_tokens_is_left_out() -> None:
    reader: Any = SimpleNamespace(answer=lambda text: tuple(text.encode().strip()), given=lambda *_: (1,), end=9)
    question: Any = SimpleNamespace(messages=(), tools="")
    said: Any = SimpleNamespace(answer=" ", finish_reason="stop")
    assert _ids(reader, question, said, config()) is None
    said.answer = "a"
    assert _ids(reader, question, said, config()) == (((1,), (97, 9)), True)
