import json
from pathlib import Path

import pytest

from tutelage.collect.groups import group_of_each
from tutelage.collect.sources import Row, read_rows
from tutelage.collect.split import Origin, gold_label, split_rows
from tutelage.config import DataTable
from tutelage.errors import DataError

LABELS = ["negative", "positive"]
ORIGIN = Origin("file.csv", "sha256:0", "own")


def table(**changes: object) -> DataTable:
    settings = {"path": "x", "licence": "own", "gold": "label", "train": 4, "held_out": 2, "validation": 1}
    return DataTable(**{**settings, **changes})


def written(tmp_path: Path, text: str | bytes, name: str = "data.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_csv_with_quotes_newlines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = written(tmp_path, '\ufefftext,label\n"one, ""two""\nthree",positive\nfour,negative\n')
    rows = read_rows(path, table())
    assert [(row.text, row.gold) for row in rows.good] == [('one, "two"\nthree', "positive"), ("four", "negative")]


def test_tsv_without_a_header_takes_quotes_as_they_are(tmp_path: Path) -> None:
    path = written(tmp_path, '1\t2.5\the said "yes\n2\t-1\tno\n')
    rows = read_rows(path, table(format="tsv", columns=("id", "label", "text")))
    assert [row.text for row in rows.good] == ['he said "yes', "no"]


def test_json_lines(tmp_path: Path) -> None:
    path = written(tmp_path, '{"text": "a", "label": 1}\n\n{"text": "b"}\n')
    rows = read_rows(path, table(format="jsonl"))
    assert [(row.line, row.text, row.gold) for row in rows.good] == [(1, "a", "1"), (3, "b", "")]


@pytest.mark.parametrize(
    ("content", "settings", "line", "problem"),
    [
        ("text,label\ngood,x\nbad\n", {}, 3, "1 columns instead of 2"),
        ("text,label\n ,x\ngood,x\n", {}, 2, "empty"),
        (b"text,label\ngood,x\nb\xffd,x\n", {}, 3, "UTF-8"),
        ('{"text": "a"}\n{"text": \n', {"format": "jsonl"}, 2, "not JSON"),
        ('{"text": "a"}\n[1]\n', {"format": "jsonl"}, 2, "not an object"),
        ('{"text": "a"}\n{"text": 5}\n', {"format": "jsonl"}, 2, "no text"),
    ],
)
def test_bad_rows_are_named_with_line_and_count(
    tmp_path: Path, content: str | bytes, settings: dict, line: int, problem: str
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(DataError, match=rf"1 bad rows of 2: line {line}: .*{problem}") as caught:
        read_rows(path, table(**settings))
    assert "skip" in caught.value.fix
    rows = read_rows(path, table(**settings, bad_rows="skip"))
    assert len(rows.good) == len(rows.bad) == 1
    assert rows.bad[0].line == line


def test_missing_file_and_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data file"):
        read_rows(tmp_path / "none.csv", table())
    with pytest.raises(DataError, match="did you mean 'text'"):
        read_rows(written(tmp_path, "texte,text,label\na,b,c\n"), table(text="text "))
    with pytest.raises(DataError, match="no usable row"):
        read_rows(written(tmp_path, "text,label\n"), table())


@pytest.mark.parametrize(
    ("raw", "rules", "label"),
    [
        ("Positive ", None, "positive"),
        ("neutral", None, None),
        ("-0.4", {"negative": "< 0", "positive": "> 0"}, "negative"),
        ("0", {"negative": "< 0", "positive": "> 0"}, None),
        ("1e-3", {"negative": "< 0", "positive": "> 0"}, "positive"),
        ("n/a", {"negative": "< 0", "positive": "> 0"}, None),
        ("yes", {"negative": "= no", "positive": "= yes"}, "positive"),
        ("3", {"negative": "<= 2", "positive": ">= 3"}, "positive"),
    ],
)
def test_gold_labels(raw: str, rules: dict | None, label: str | None) -> None:
    assert gold_label(raw, LABELS, rules) == label


def test_wrong_gold_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="about 3"):
        gold_label("3", LABELS, {"positive": "about 3"})


def rows_of(count: int, labelled: int | None = None) -> list[Row]:
    words = ["alpha", "beta", "gamma", "delta", "omega"]
    texts = [f"{words[at % 5]} number {at} and {words[(at * 3) % 5]} again {at * 7}" for at in range(count)]
    labelled = count if labelled is None else labelled
    return [Row(at + 1, text, LABELS[at % 2] if at < labelled else "") for at, text in enumerate(texts)]


def test_split_is_seeded_complete_and_disjoint() -> None:
    rows = rows_of(60)
    one = split_rows(rows, table(train=40, held_out=15, validation=5), LABELS, ORIGIN, 1)
    assert one == split_rows(rows, table(train=40, held_out=15, validation=5), LABELS, ORIGIN, 1)
    other = split_rows(rows, table(train=40, held_out=15, validation=5), LABELS, ORIGIN, 2)
    assert {prompt.prompt_id for prompt in one.held_out} != {prompt.prompt_id for prompt in other.held_out}
    parts = [{prompt.prompt_id for prompt in part} for part in (one.train, one.validation, one.held_out)]
    assert [len(part) for part in parts] == [35, 5, 15]
    assert len(set.union(*parts)) == 55
    assert set(one.gold) == parts[2], "gold is read for held-out prompts alone"


def test_trap_e5_near_duplicates_never_straddle_the_split() -> None:
    rows = rows_of(60)
    rows += [Row(100 + at, row.text + "!", row.gold) for at, row in enumerate(rows)]
    split = split_rows(rows, table(train=80, held_out=30, validation=10), LABELS, ORIGIN, 3)
    train = {prompt.group for prompt in (*split.train, *split.validation)}
    assert not train & {prompt.group for prompt in split.held_out}
    assert not {prompt.group for prompt in split.train} & {prompt.group for prompt in split.validation}
    assert split.num_groups == 60


def test_a_smaller_size_holds_out_a_subset() -> None:
    rows = rows_of(60)
    large = split_rows(rows, table(train=30, held_out=20, validation=5), LABELS, ORIGIN, 1)
    small = split_rows(rows, table(train=10, held_out=6, validation=2), LABELS, ORIGIN, 1)
    assert {prompt.prompt_id for prompt in small.held_out} <= {prompt.prompt_id for prompt in large.held_out}


def test_rows_nobody_labelled_are_for_training() -> None:
    split = split_rows(rows_of(60, labelled=12), table(train=40, held_out=10, validation=5), LABELS, ORIGIN, 1)
    assert len(split.held_out) == 10
    with pytest.raises(DataError, match="too few"):
        split_rows(rows_of(60, labelled=8), table(train=40, held_out=10, validation=5), LABELS, ORIGIN, 1)


def test_groups() -> None:
    texts = ["the quick brown fox jumps over it", "The quick brown fox jumps over it!", "something else entirely", ""]
    assert group_of_each(texts) == [0, 0, 2, 3]
    assert json.dumps(group_of_each([])) == "[]"
