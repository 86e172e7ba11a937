"""What was taken, example by example: the table's sums and trees against a naive recount of the steps."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ledger.made import BASE, Example, exchange_of
from tests.reference import merkle_naive as naive
from tutelage.canon import canonical
from tutelage.ledger import examples, sumtree, verify
from tutelage.ledger.examples import Lineage, Taken, Tokens, find_leaf, open_leaf, write_examples
from tutelage.ledger.merkle import EMPTY_ROOT, leaf_hash, root
from tutelage.ledger.sources import SourceRow
from tutelage.pipeline.accounting import consumed_tokens

KEY = bytes(range(32))
PROMPT = {"source": "topics.csv", "source_digest": BASE, "licence": "own"}
BASES = [Lineage("tiny", BASE, "Apache-2.0")]
counts = st.fixed_dictionaries({"soft-target": st.integers(0, 3), "text-target": st.integers(0, 9)})
used = st.builds(
    Example,
    teacher=st.sampled_from(["oak", "elm", "ash"]),
    licence=st.sampled_from(["MIT", "Apache-2.0", ""]),
    steps=st.lists(counts, min_size=1, max_size=4).map(tuple),
)


def taken(given_examples: list[Example], start: int = 0) -> list[Taken]:
    """As the pipeline hands them over, from steps in which every example takes part until it has no more."""
    made = [exchange_of(example, at) for at, example in enumerate(given_examples)]
    steps: list[dict[str, Any]] = []
    for step in range(max((len(example.steps) for example in given_examples), default=0)):
        rows = [at for at, example in enumerate(given_examples) if len(example.steps) > step]
        steps.append(
            {
                "exchanges": [made[at][1].digest for at in rows],
                "loss_tokens": [dict(given_examples[at].steps[step]) for at in rows],
            }
        )
    counted = consumed_tokens(steps)
    return [
        Taken(start + at, exchange.digest, exchange.to_json(), request.to_json(), PROMPT, counted[exchange.digest])
        for at, (request, exchange, _) in enumerate(made)
    ]


def recount(given_examples: list[Example]) -> dict[tuple[str, str, str], tuple[int, int]]:
    """(teacher, licence, role) -> examples, loss tokens; from the examples alone."""
    tokens: Counter[tuple[str, str, str]] = Counter()
    members: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for at, example in enumerate(given_examples):
        for step in example.steps:
            for role, count in step.items():
                if count:
                    tokens[example.teacher, example.licence, role] += count
                    members[example.teacher, example.licence, role].add(at)
    return {key: (len(members[key]), tokens[key]) for key in tokens}


@given(st.lists(used, max_size=25))
@settings(max_examples=40, deadline=None)
def test_the_table_is_a_recount_of_the_steps(
    tmp_path_factory: pytest.TempPathFactory, given_examples: list[Example]
) -> None:
    out = tmp_path_factory.mktemp("examples") / "out"
    rows = write_examples(KEY, taken(given_examples), BASES, out)
    targets = {
        (row.teacher, row.licence, str(row.role)): (row.examples, row.loss_tokens)
        for row in rows
        if row.role in verify.TARGETS
    }
    assert targets == recount(given_examples)
    assert [row.key for row in rows] == sorted({row.key for row in rows})
    others = {(row.role, row.teacher, row.examples, row.loss_tokens) for row in rows if row.role not in verify.TARGETS}
    authors = {("prompt-author", "topics.csv", len(given_examples), 0)} if given_examples else set()
    assert others == authors | {("base-lineage", "tiny", 0, 0)}
    for number, row in enumerate(rows):
        check_trees(out, number, row)


def check_trees(out: Path, number: int, row: SourceRow) -> None:
    """The row's roots are those of the definition, over its records under their salts."""
    if not row.examples:
        assert (row.leaves, row.sums) == (f"sha256:{EMPTY_ROOT.hex()}",) * 2
        return
    lines = (out / f"{number}.jsonl").read_bytes().splitlines()
    records = [verify._parse(line) for line in lines]
    data = [verify.salt_of(KEY, f"leaf/{row.role}", record["position"]) + line
            for record, line in zip(records, lines, strict=True)]  # fmt: skip
    assert row.leaves == "sha256:" + naive.mth(data).hex()
    nodes = [sumtree.leaf_node(leaf_hash(one), record["tokens"]["loss"])
             for one, record in zip(data, records, strict=True)]  # fmt: skip
    top = verify.root_of(nodes, verify.sum_node)
    assert (row.sums, row.loss_tokens) == (f"sha256:{top[:32].hex()}", int.from_bytes(top[32:], "big"))
    assert len(lines) == row.examples
    assert [canonical(record) for record in records] == lines
    for index, record in enumerate(records):
        assert open_leaf(out, number, index) == (index, record["position"], lines[index])
        assert find_leaf(out, number, record["position"]) == index
    missing = set(range(-1, max(record["position"] for record in records) + 2)) - {r["position"] for r in records}
    assert all(find_leaf(out, number, position) is None for position in missing)


def test_an_example_stepped_on_several_times_is_one_leaf(tmp_path: Path) -> None:
    rows = write_examples(KEY, taken([Example(steps=({"text-target": 3},) * 5)]), [], tmp_path / "out")
    target = next(row for row in rows if row.role == "text-target")
    assert (target.examples, target.loss_tokens) == (1, 15)
    number = rows.index(target)
    record = verify._parse(open_leaf(tmp_path / "out", number, 0).line)
    assert record["tokens"] == {"loss": 15, "passes": 5, "weight": 1}


def test_a_target_role_without_loss_tokens_has_no_record(tmp_path: Path) -> None:
    rows = write_examples(KEY, taken([Example(steps=({"soft-target": 0, "text-target": 2},))]), [], tmp_path / "out")
    assert [row.role for row in rows] == ["text-target", "prompt-author"]


def test_roles_without_loss_are_kept(tmp_path: Path) -> None:
    one = taken([Example()])[0]
    scored = one._replace(tokens={"scorer": Tokens(0, 1)})
    rows = write_examples(KEY, [scored], [], tmp_path / "out")
    assert [(row.role, row.examples, row.loss_tokens) for row in rows] == [("scorer", 1, 0), ("prompt-author", 1, 0)]


def test_rows_are_replaced_as_a_whole(tmp_path: Path) -> None:
    write_examples(KEY, taken([Example(), Example("elm")]), BASES, tmp_path / "out")
    write_examples(KEY, taken([Example()]), BASES, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert len(list((tmp_path / "out").glob("*.jsonl"))) == 3


def test_a_record_tells_nothing_that_could_be_guessed(tmp_path: Path) -> None:
    """Three labels, one prompt: whoever sees a record and tries them all finds none, in any field."""
    one = taken([Example()])[0]
    record = dict(examples.records(KEY, one))["oak", "", "loopback", "loopback", "MIT", "text-target"]
    text = canonical(record).decode()
    digests = {verify._digest(data)[7:] for data in (
        *(label.encode() for label in ("yes", "no", "maybe")), canonical(one.request["messages"]),
        b"question 0", canonical(one.exchange), canonical(one.request), canonical([]),
    )} | {one.digest[7:], one.exchange["request_digest"][7:], one.exchange["raw_body_digest"][7:]}  # fmt: skip
    assert not [digest for digest in digests if digest in text]
    assert "question" not in text
    assert record["logprobs"] == ""


def test_the_same_answer_at_two_places_looks_different(tmp_path: Path) -> None:
    first = taken([Example()])[0]
    again = first._replace(position=1)
    one, two = (next(iter(dict(examples.records(KEY, it)).values())) for it in (first, again))
    assert not {one[name] for name in ("exchange", "prompt", "answer")} & {
        two[name] for name in ("exchange", "prompt", "answer")
    }


def test_an_opened_salt_opens_nothing_else() -> None:
    salts = [examples.field_salt(KEY, field, at) for field in ("exchange", "prompt", "answer") for at in range(3)]
    salts += [examples.leaf_salt(KEY, role, at) for role in ("soft-target", "text-target") for at in range(3)]
    salts += [examples.row_salt(KEY, at) for at in range(3)]
    assert len(set(salts)) == len(salts)
    assert {len(salt) for salt in salts} == {32}


def test_a_published_table_is_its_rows_under_their_salts() -> None:
    rows = tuple(
        SourceRow(
            teacher=name, weights="", provider="", route="", licence="MIT", role="text-target", upstream="",
            examples=1, loss_tokens=at, leaves="", sums="",
        ) for at, name in enumerate(("ash", "elm"), 1)
    )  # fmt: skip
    table = examples.source_table(KEY, rows)
    data = [bytes.fromhex(entry["salt"]) + canonical(entry["row"]) for entry in table["rows"]]
    assert table["root"] == "sha256:" + naive.mth(data).hex()
    assert table["loss_tokens"] == 3
    stated = {"rows": 2, "root": table["root"], "loss_tokens": 3}
    assert verify.read_table(table["rows"], stated).rows[1] == rows[1].to_json()
    assert root([]) == EMPTY_ROOT
