"""What was trained on and stands among the items of a proof is found, however it is written."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.collect.unseen import Asked, asked_in, require_unseen
from tutelage.errors import DataError


def unseen(held_out: list[str], trained: list[str]) -> int:
    return require_unseen([[text] for text in held_out], [Asked([text], "the file") for text in trained]).questions


def test_an_item_that_is_trained_on_is_refused_with_the_overlap() -> None:
    trained = ["A warm, witty film!", "Slow and clumsy."]
    assert unseen(["A cold film.", "Fast."], trained) == 2
    with pytest.raises(DataError, match="1 of 2 held-out items were trained on: 'a  WARM witty film' in the file"):
        unseen(["a  WARM witty film", "Fast."], trained)
    assert unseen(["!!!"], ["???"]) == 1, "texts without words are told apart as they stand"
    assert unseen(["3 - 4"], ["3 + 4"]) == 1, "signs are told apart"
    with pytest.raises(DataError):
        unseen(["\ufb01lm \uff21"], ["Film A"])


@given(st.lists(st.text(min_size=1), min_size=1, max_size=20))
def test_a_copy_is_always_found(texts: list[str]) -> None:
    with pytest.raises(DataError, match=f"{len(texts)} of {len(texts)}"):
        unseen([f" {text}\n" for text in texts], texts)


def test_a_conversation_is_known_up_to_each_of_its_turns() -> None:
    trained = [Asked(["one", "two", "three"], "talks")]
    assert require_unseen([["two"], ["one", "three"]], trained).questions == 3
    for turns in (["One."], ["one", "two!"]):
        with pytest.raises(DataError, match="in talks"):
            require_unseen([turns], trained)


def test_files_and_run_folders_are_read_and_their_held_out_part_is_not(tmp_path: Path) -> None:
    rows = [{"kind": "train", "text": "a"}, {"kind": "validation", "text": "b"}, {"kind": "held-out", "text": "c"}]
    (tmp_path / "run" / "data").mkdir(parents=True)
    (tmp_path / "run" / "data" / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    talk = {"messages": [{"role": "user", "content": "d"}, {"role": "assistant", "content": "e"}]}
    (tmp_path / "talks.jsonl").write_text(json.dumps(talk) + "\n")
    names = [str(tmp_path / "run"), str(tmp_path / "talks.jsonl")]
    assert [list(one.turns) for one in asked_in(names)] == [["a"], ["b"], ["d"]]
    assert require_unseen([["c"], ["e"]], asked_in(names)).questions == 3
    with pytest.raises(DataError, match="is not there"):
        list(asked_in([str(tmp_path / "nowhere")]))
    with pytest.raises(DataError, match="names no questions"):
        list(asked_in([str(tmp_path)]))
