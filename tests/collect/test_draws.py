"""Under which draws imported answers go, and what an import refuses before it stores anything."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.collect.test_import_export import DECLARED, NONE, exchanges, imported
from tutelage.collect.draws import MAX_DRAW
from tutelage.collect.importing import import_file
from tutelage.errors import DataError
from tutelage.store.store import Store


def test_many_answers_to_one_question_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    has = Store.has
    monkeypatch.setattr(Store, "has", lambda store, address: looks.append(address) or has(store, address))
    rows = [{"prompt": "q", "completion": str(at)} for at in range(150)]
    rows += [{"prompt": "p", "completion": str(at), "metadata": {"draw": at % 75}} for at in range(150)]
    for added, known in ((300, 0), (0, 300)):
        done = imported(tmp_path, rows)
        assert (done.added, done.known) == (added, known)
        assert len(looks) < 4 * len(rows)
        looks.clear()


ROWS = st.lists(st.tuples(st.integers(0, 4) | st.just(MAX_DRAW), st.sampled_from("abcdef")), min_size=1, max_size=12)


@settings(max_examples=15, deadline=None)
@given(ROWS, ROWS)
def test_where_answers_go(
    tmp_path_factory: pytest.TempPathFactory, first: list[tuple[int, str]], second: list[tuple[int, str]]
) -> None:
    folder, stored = tmp_path_factory.mktemp("any"), dict[int, str]()
    for part in (first, second):
        for draw, said in part:
            if stored.setdefault(draw, said) == said:
                continue
            end = next(at for at in range(99) if at not in stored)
            if said not in [stored[at] for at in range(end)]:
                stored[end] = said
        rows = [{"prompt": "q", "completion": said, "metadata": {"draw": draw}} for draw, said in part]
        imported(folder, rows)
        with Store(folder / "into") as store:
            pairs = store.pairs([value["request_digest"] for value in exchanges(folder / "into")])
            assert {pair.request["draw"]: pair.exchange["answer"] for pair in pairs} == stored
        assert imported(folder, rows).added == 0


@pytest.mark.parametrize(
    ("header", "said"), [(b"prompt,completion,caf\xe9", "is not UTF-8"), (b'"prompt"x,completion,c', "is not CSV")]
)
def test_a_header_that_cannot_be_read_is_told(tmp_path: Path, header: bytes, said: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(header + b"\nq,a,1\nr,b,2\n")
    with Store(tmp_path / "into") as store, pytest.raises(DataError, match=said) as caught:
        import_file(path, store, DECLARED, NONE, bad_rows="skip")
    assert "the header of" in caught.value.message
    assert exchanges(tmp_path / "into") == []
