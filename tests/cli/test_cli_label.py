"""`tutelage label`: what is asked for, what is refused, what is said at the end."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from tests.serve.labelled import MODELS, proof_run
from tutelage.cli.main import main
from tutelage.prove.gold import gold_answers, read_gold
from tutelage.prove.gold_file import Mode, read_rows
from tutelage.serve.labelling import Desk

TEXTS = [f"text {at}" for at in range(30)]


class Person:
    """Sits at the desk in place of a browser: `say` gives a button for the text of an item, None to skip it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.say: Callable[[str], int | None] = lambda text: 0
        self.most = 1000
        self.seen: list[str] = []
        monkeypatch.setattr("tutelage.serve.labelling.serve", self.serve)

    def serve(self, desk: Desk, port: int, words: object, on_listening: Callable[[str], None]) -> None:
        on_listening("http://127.0.0.1:1/key/")
        for _ in range(self.most):
            at = desk.current()
            if at is None:
                break
            text = desk.dealt[at].turns[-1][1]
            self.seen.append(text)
            desk.sent(at)
            button = self.say(text)
            assert desk.skip(at, "unclear") if button is None else desk.decide(at, button)
        raise KeyboardInterrupt


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Person:
    return Person(monkeypatch)


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps({"prompt": text, "gold": "hidden"}) + "\n" for text in TEXTS))
    return path


def label(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["label", *map(str, arguments)])
    return int(ended.value.code or 0)


def even(text: str) -> int:
    return int(text.split()[-1]) % 2


def test_a_sample_is_labelled_and_two_people_agree(tmp_path: Path, items: Path, person: Person, capsys) -> None:
    out, person.say = tmp_path / "gold.jsonl", even
    command = (items, "--out", out, "--labels", "even, odd", "--sample", 12, "--who")
    assert label(*command, "Anna") == 0
    said = capsys.readouterr().out
    assert "12 of 30 items, drawn at random by seed 0" in said and "Anna decided 12, skipped 0, 0 left" in said
    person.say = lambda text: None if text == person.seen[0] else 1 if text == person.seen[1] else even(text)
    assert label(*command, "Ben") == 0
    said = capsys.readouterr().out
    assert "Anna and Ben: the same on" in said and "kappa" in said and "Ben decided 11, skipped 1" in said
    assert person.seen[:12] == person.seen[12:]


def test_leaving_early_is_partial(tmp_path: Path, items: Path, person: Person, capsys) -> None:
    out, person.most = tmp_path / "gold.jsonl", 3
    command = (items, "--out", out, "--labels", "a,b", "--sample", 99, "--who", "Anna")
    assert label(*command) == 3
    said = capsys.readouterr().out
    assert "--sample 99 is more than there are" in said and "27 left" in said and "to go on" in said
    person.most = 1000
    assert label(*command) == 0
    assert "going on: Anna has decided 3" in capsys.readouterr().out
    assert sorted(person.seen) == sorted(TEXTS), "each once"


def test_what_people_disagree_on_goes_to_one_more(tmp_path: Path, items: Path, person: Person, capsys) -> None:
    out = tmp_path / "gold.jsonl"
    command = (items, "--out", out, "--labels", "even,odd", "--sample", 10, "--who")
    person.say = even
    assert label(*command, "Anna") == 0
    assert label(*command, "Carla", "--contested") == 2
    assert "others do not disagree on anything" in capsys.readouterr().err
    odd = [text for text in person.seen if even(text)]
    person.say = lambda text: 0
    assert label(*command, "Ben") == 0
    person.seen.clear()
    person.say = even
    assert label(*command, "Carla", "--contested") == 0
    assert person.seen == odd, "in the same order, nothing else"
    gold = read_gold(out)
    assert sorted(gold.labels().values()) == sorted(["odd"] * len(odd) + ["even"] * (10 - len(odd)))
    assert [(one.first, one.second, one.kappa.n) for one in gold.agreements()] == [("Anna", "Ben", 10)]


def test_a_proofs_run_file_names_the_items(tmp_path: Path, items: Path, person: Person) -> None:
    out = tmp_path / "gold.jsonl"
    run_file = tmp_path / "proof.toml"
    run_file.write_text(
        f"""
[run]
name = "p"
seed = 1
purpose = "internal"
question = "?"
[items]
path = "{items}"
gold_file = "{out}"
system = "Say even or odd."
limit = 20
licence = "own"
[task]
kind = "labels"
labels = ["even", "odd"]
[systems.teacher]
url = "http://127.0.0.1:1/v1"
model = "large"
licence = "mit"
[systems.student]
url = "http://127.0.0.1:1/v1"
model = "small"
licence = "mit"
[[claims]]
comparison = "gold"
margin = 0.05
"""
    )
    person.say = even
    assert label(run_file, "--out", out, "--sample", 8, "--who", "Anna") == 0
    assert read_gold(out).header.choices == ("even", "odd")
    assert label(run_file, "--out", tmp_path / "other", "--labels", "a,b", "--sample", 8, "--who", "Anna") == 0
    assert read_gold(tmp_path / "other").header.choices == ("a", "b")
    from tutelage.collect.items import read_items
    from tutelage.config import PromptsTable

    table = PromptsTable(path=str(items), system="Say even or odd.", limit=20, licence="own")
    found = read_items(items, table, None).items
    gold = gold_answers(out, [item.question.prompt_id for item in found])
    assert len(gold.answers) == 8
    for item in found:
        if answer := gold.answers.get(item.question.prompt_id):
            assert answer == ("even", "odd")[even(item.question.messages[-1].content)]


@pytest.mark.parametrize("how", [("--pairs",), ("--score", "1-5")])
def test_answers_of_a_proof_and_nothing_said_of_who_is_better(tmp_path: Path, person: Person, capsys, how) -> None:
    run, out = proof_run(tmp_path / "run", [(f"q {at}", f"t {at}", f"s {at}") for at in range(9)]), tmp_path / "g.jsonl"
    before = (run / "data" / "items.jsonl").read_bytes()
    assert label(run, "--out", out, "--who", "Anna", *how) == 0
    said = capsys.readouterr().out
    assert not any(word in said for word in (*MODELS, *MODELS.values(), "prefer", "tie"))
    head, rows = read_rows(out)
    assert head.systems == ("teacher", "student") and len(rows) == (9 if head.mode is Mode.PAIRS else 18)
    assert (run / "data" / "items.jsonl").read_bytes() == before


def test_items_that_one_system_refused_are_left_out_and_told(tmp_path: Path, person: Person, capsys) -> None:
    run = proof_run(tmp_path / "run", [(f"q {at}", "t", "s") for at in range(9)])
    rows = (run / "prove" / "exchanges.jsonl").read_bytes().splitlines(keepends=True)
    (run / "prove" / "exchanges.jsonl").write_bytes(b"".join(rows[1:]))
    assert label(run, "--out", tmp_path / "g.jsonl", "--who", "Anna", "--pairs") == 0
    assert "8 of 8 items" in (said := capsys.readouterr().out) and "1 items were not answered by both" in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "give one of --labels"),
        (("--labels", "a,b", "--pairs"), "give one of --labels"),
        (("--labels", "a"), "give 2 to 20"),
        (("--labels", "a,a"), "each once"),
        (("--labels", "a,,b"), "empty label"),
        (("--labels", "a,b\x1b[2J"), "printable"),
        (("--labels", ",".join(map(str, range(21)))), "give 2 to 20"),
        (("--score", "5-1"), "is no range"),
        (("--score", "1-10"), "is no range"),
        (("--pairs",), "holds no answers"),
        (("--labels", "a,b", "--sample", "0"), "draw 1 item or more"),
        (("--labels", "a,b", "--port", "70000"), "is no port"),
        (("--labels", "a,b", "--ask", " "), "is no question"),
        (("--labels", "a,b", "--seed", str(2**60)), "below 2^53"),
    ],
)
def test_wrong_options_are_named_and_nothing_is_written(
    tmp_path: Path, items: Path, person: Person, capsys, more, said
):
    assert label(items, "--out", tmp_path / "gold.jsonl", "--who", "Anna", *more) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "gold.jsonl").exists()


def test_folders_without_a_proof_are_named(tmp_path: Path, person: Person, capsys) -> None:
    assert label(tmp_path, "--out", tmp_path / "gold.jsonl", "--who", "Anna", "--pairs") == 2
    assert "has no data/items.jsonl" in capsys.readouterr().err
    assert label(tmp_path / "none.jsonl", "--out", tmp_path / "gold.jsonl", "--who", "Anna", "--labels", "a,b") == 2
    assert "none.jsonl" in capsys.readouterr().err


def test_a_label_tasks_run_file_names_items_labels_and_question(
    tmp_path: Path, items: Path, person: Person, capsys
) -> None:
    text = files("tutelage.recipes").joinpath("film_reviews/run.toml").read_text()
    run_file = tmp_path / "run.toml"
    run_file.write_text(text)
    assert label(run_file, "--out", tmp_path / "gold", "--who", "Anna") == 2
    assert "is a resource" in capsys.readouterr().err
    text = text.replace('resource = "film-review-sentences"\nformat = "tsv"', f'path = "{items}"\nformat = "jsonl"')
    text = text.replace('columns = ["id", "rating", "text"]\ntext = "text"', 'licence = "own"\ntext = "prompt"')
    run_file.write_text(text)
    assert label(run_file, "--out", tmp_path / "gold", "--sample", 5, "--who", "Anna") == 0
    header = read_gold(tmp_path / "gold").header
    assert header.asked == "Does this sentence from a film review speak well or ill of the film?"
    assert header.choices == ("bad", "good")
    assert label(run_file, "--out", tmp_path / "own", "--ask", "Which?", "--sample", 5, "--who", "Anna") == 0
    assert read_gold(tmp_path / "own").header.asked == "Which?"
