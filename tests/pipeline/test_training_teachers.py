"""Teachers that read more than the student, several teachers, and the student as its own: what is learnt, what the record says of
it, and what is refused before the first step."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.models.tiny import save_tiny
from tests.pipeline.test_training import RUN_FILE, Words, do, write_talks
from tutelage.canon import canonical, digest_file
from tutelage.errors import ConfigError, TutelageError
from tutelage.jsonl import read_lines
from tutelage.ledger.verify import verify
from tutelage.pipeline.teachers import Context, context_of
from tutelage.run_file import load_training_config, verb_of
from tutelage.training_config import WeightsTable

SYSTEM = "love the old film"
WHOLE: dict[str, Any] = {"student__init": "whole", "student__layers": None}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> Path:
    folder = tmp_path_factory.mktemp("file")
    path = folder / "run.toml"
    path.write_text(RUN_FILE.format(data=write_talks(folder / "talks.jsonl"), teacher=teacher))
    return path


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shots") / "shots.jsonl"
    path.write_text('{"question": "new plot", "answer": "fine"}\n{"question": "odd plot", "answer": "slow"}\n')
    return path


def statement(run: Path, stage: str) -> dict[str, Any]:
    lines = read_lines(run / "ledger" / "log.jsonl")
    return [line for line in lines if (line["kind"], line["stage"]) == ("statement", stage)][-1]


def rows_of(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "train" / "sources.json").read_bytes())["rows"]


def test_a_prompt_that_only_the_teacher_reads_goes_into_the_weights(run_file: Path, tmp_path: Path) -> None:
    """The student is its own teacher: all that there is to learn is the prompt."""
    found = do(run_file, tmp_path / "run", **WHOLE, teacher__system=SYSTEM, train__steps=30)
    assert found.objective_unats < 0.85 * found.before_objective_unats and found.before_objective_unats > 10_000
    plain = do(
        run_file, tmp_path / "plain", **WHOLE, train__steps=2, train__precision="float32", teacher__precision="float32"
    )
    assert plain.before_objective_unats == 0, "without a prompt they are the same"


def test_the_prompt_is_named_by_its_digest_and_shipped_nowhere(run_file: Path, tmp_path: Path) -> None:
    out, words = tmp_path / "run", Words()
    do(run_file, out, words, teacher__system=SYSTEM, train__steps=1)
    assert verify(out).findings == ()
    assert statement(out, "train")["config"]["contexts"] == {"": Context(SYSTEM).digest}
    files = [path for path in out.rglob("*") if path.is_file()]
    assert not [path for path in files if SYSTEM.encode() in path.read_bytes()]
    assert "with a prompt of its own" in (out / "student" / "README.md").read_text()
    do(run_file, out, words, teacher__system=SYSTEM + "!", train__steps=1)
    assert any(line.startswith("train: done anew") for line in words.said)


@pytest.mark.parametrize(
    "changes",
    [
        {"method__loss": "top-k-forward-kl", "method__k": 8, "method__text_weight": 0.5},
        {"method__loss": "jsd", "method__signal": "hidden"},
        {"method__loss": "reverse-kl", "method__prefix": 0.5},
        {"method__loss": "sampled-reverse-kl", "method__prefix": "student"},
        {"student__lora": {"rank": 2, "alpha": 4.0}, **WHOLE},
    ],
    ids=("top-k", "hidden", "mixture", "sampled", "adapters"),
)
def test_every_way_of_asking_knows_the_teachers_prompt(
    run_file: Path, shots: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    own = {"teacher__examples_file": str(shots), "data__max_tokens": 40}
    found = do(run_file, tmp_path / "run", **own, **changes)
    assert found.steps == 3 and verify(tmp_path / "run").findings == ()
    before = do(run_file, tmp_path / "plain", data__max_tokens=40, **changes).before_objective_unats
    assert found.before_objective_unats != before


def test_captured_signals_are_those_of_the_whole_teacher(run_file: Path, tmp_path: Path) -> None:
    """Kept hidden states and a live teacher say the same, and other signals are captured for another prompt."""
    own = {"teacher__system": SYSTEM, "teacher__precision": "float32", "train__steps": 2}
    live = do(run_file, tmp_path / "live", **own)
    kept = do(run_file, tmp_path / "kept", method__signal="hidden", **own)
    assert abs(live.before_objective_unats - kept.before_objective_unats) < 0.01 * live.before_objective_unats
    first = json.loads((tmp_path / "kept" / "signals" / "cache.json").read_bytes())["identity"]
    do(run_file, tmp_path / "kept", method__signal="hidden", **own | {"teacher__system": "bad"})
    second = json.loads((tmp_path / "kept" / "signals" / "cache.json").read_bytes())["identity"]
    assert first["dataset"] != second["dataset"] and verify(tmp_path / "kept").findings == ()


def test_the_teachers_conversation(shots: Path) -> None:
    talk = ({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"})
    own = ({"role": "system", "content": "be brief"}, *talk)
    found = context_of(WeightsTable(path="x", licence="mit", system="s", examples_file=str(shots)))
    assert [turn["content"] for turn in found.before(talk)] == ["s", "new plot", "fine", "odd plot", "slow", "q", "a"]
    assert [turn["content"] for turn in Context("s").before(own)] == ["s\n\nbe brief", "q", "a"]
    assert Context().before(own) == own and Context().digest == ""


def several(run_file: Path, folder: Path, other: Path, more: str = "", names: str = "one two one") -> Path:
    """The run file with two teachers; the rows name them in turn."""
    rows = list(read_lines(run_file.with_name("talks.jsonl")))
    data, ways = folder / "routed.jsonl", names.split(" ")
    data.write_text(
        "".join(json.dumps(row | {"who": ways[at % len(ways)]}) + "\n" for at, row in enumerate(rows))
    )  # fmt: skip
    text = run_file.read_text()
    start, end = text.index("[teacher]"), text.index("[student]")
    teachers = (
        text[start:end].replace("[teacher]", "[teachers.one]")
        + f'[teachers.two]\npath = "{other}"\nlicence = "mit"\n{more}'
    )
    head = (
        text[:start]
        .replace(str(run_file.with_name("talks.jsonl")), str(data))
        .replace("[data]", '[data]\nroute = "who"')
    )
    path = folder / "several.toml"
    path.write_text(head + teachers + text[end:])
    return path


@pytest.fixture
def licence(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "mit.txt"
    path.write_text("MIT License")
    return {"ship__licence_files": [str(path)]}


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Other weights with the same tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = save_tiny(tmp_path / "other")
    config: Any = LlamaConfig.from_pretrained(folder)
    config.hidden_size, config.intermediate_size = 48, 96
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "changes",
    [{}, {"method__loss": "sparse-forward-kl", "method__c": 0.1}, {"method__loss": "jsd", "method__signal": "hidden"},
     {"method__loss": "sampled-reverse-kl", "method__prefix": "student"}],
    ids=("live", "threshold", "hidden", "sampled"),
)  # fmt: skip
def test_each_row_is_taught_by_its_teacher_and_counted_for_it(
    run_file: Path, teacher: Path, other: Path, licence: dict[str, Any], tmp_path: Path, changes: dict[str, Any]
) -> None:
    path, out = several(run_file, tmp_path, other), tmp_path / "run"
    found = do(path, out, train__steps=4, **changes, **licence)
    held = verify(out)
    assert held.findings == ()
    soft = {row["teacher"]: row for row in rows_of(out) if row["role"] == "soft-target"}
    assert {name: row["licence"] for name, row in soft.items()} == {teacher.name: "Apache-2.0", "other": "mit"}
    assert sum(row["loss_tokens"] for row in soft.values()) == found.tokens["soft-target"]
    taught = {row["id"]: row["teacher"] for row in read_lines(out / "data" / "conversations.jsonl")}
    counts = {"one": 0, "two": 0}
    for step in read_lines(out / "train" / "consumed.jsonl"):
        for name, by_role in zip(step["examples"], step["loss_tokens"], strict=True):
            counts[taught[name]] += by_role["soft-target"]
    assert (counts["one"], counts["two"]) == (soft[teacher.name]["loss_tokens"], soft["other"]["loss_tokens"])
    judged = json.loads(next((out / "terms").glob("*.json")).read_bytes())
    assert (judged["teacher"]["licence"], judged["teacher-2"]["licence"]) == ("Apache-2.0", "mit")
    ancestors = json.loads((out / "student" / "lineage.json").read_bytes())["ancestors"]
    assert {one["subject"] for one in ancestors if one["role"] == "teacher"} == {teacher.name, "other"}
    assert f"taught by {teacher.name} and other" in (out / "student" / "README.md").read_text()


def test_another_route_is_another_training_and_a_forged_one_is_found(
    run_file: Path, other: Path, licence: dict[str, Any], tmp_path: Path
) -> None:
    out, words = tmp_path / "run", Words()
    captured: dict[str, Any] = {"method__loss": "top-k-forward-kl", "method__k": 8}
    do(several(run_file, tmp_path, other), out, words, **licence, **captured)
    assert {path.name for path in (out / "signals").iterdir()} == {"one", "two"}
    do(several(run_file, tmp_path, other, names="two one"), out, words, **licence, **captured)
    assert any(line.startswith("train: done anew") for line in words.said) and verify(out).findings == ()
    do(run_file, out, words, **captured)  # one teacher again: what the others said is no part of it
    assert verify(out).findings == () and not (out / "signals" / "one").exists()
    do(several(run_file, tmp_path, other), tmp_path / "forged", **licence)
    path = tmp_path / "forged" / "train" / "sources.json"
    table = json.loads(path.read_bytes())
    one, two = [row for row in table["rows"] if row["role"] == "soft-target"]
    one["loss_tokens"], two["loss_tokens"] = one["loss_tokens"] + 1, two["loss_tokens"] - 1
    path.write_bytes(canonical(table) + b"\n")
    assert any("the steps taken say" in finding.what for finding in verify(tmp_path / "forged").findings)


def test_the_student_as_it_was_keeps_rows_of_its_own(
    run_file: Path, other: Path, licence: dict[str, Any], tmp_path: Path
) -> None:
    path, out = several(run_file, tmp_path, other), tmp_path / "run"
    text = path.read_text()
    start, end = text.index("[teachers.one]"), text.index("[teachers.two]")
    path.write_text(f"{text[:start]}[teachers.one]\nold_self = true\n{text[end:]}")
    found = do(path, out, train__steps=4, **licence)
    assert verify(out).findings == ()
    own = next(row for row in rows_of(out) if row["teacher"].endswith("as it was before"))
    assert own["weights"] == digest_file(out / "before" / "model.safetensors")
    assert (own["licence"], own["role"]) == ("Apache-2.0", "soft-target")
    assert 0 < own["loss_tokens"] < found.tokens["soft-target"]
    judged = json.loads(next((out / "terms").glob("*.json")).read_bytes())
    assert "teacher-2" not in judged and judged["teacher"]["subject"] == "other"
    assert "its own self before training" in (out / "student" / "README.md").read_text()


def test_an_old_self_alone_has_nothing_to_teach_at_first(run_file: Path, tmp_path: Path) -> None:
    text = run_file.read_text()
    start, end = text.index("[teacher]"), text.index("[student]")
    path = tmp_path / "self.toml"
    path.write_text(f'{text[:start]}[teacher]\nold_self = true\nprecision = "float32"\n{text[end:]}')
    found = do(path, tmp_path / "run", train__precision="float32")
    assert found.before_objective_unats == 0 and verify(tmp_path / "run").findings == ()
    found = do(path, tmp_path / "baked", teacher__system=SYSTEM, train__steps=30)
    assert found.objective_unats < 0.8 * found.before_objective_unats


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an empty prompt": ({"teacher__system": " "}, "is empty"),
    "a prompt that is not there": ({"teacher__system_file": "nowhere.txt"}, "nowhere.txt cannot be read"),
    "examples that are not there": ({"teacher__examples_file": "nowhere.jsonl"}, "nowhere.jsonl cannot be read"),
    "a prompt twice": ({"teacher__system": "a", "teacher__system_file": "b"}, "not both"),
    "a prompt that leaves no room": ({"teacher__system": "love " * 200}, "before it; it reads 128"),
    "a prompt that the template leaves out": (
        {"teacher__system": SYSTEM, "student__template": "{% for m in messages %}{% if m['role'] != 'system' %}"
         "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"},
        "with the prompt of the teacher: the template leaves out a message of role 'system'",
    ),
    "a route to nobody": ({"data__route": "who"}, "there are no \\[teachers.NAME\\]"),
    "old self with a licence": (
        {"teacher__path": None, "teacher__old_self": True, "teacher__licence": "mit"},
        "those of \\[student\\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_teacher_cannot_read_is_refused(run_file: Path, tmp_path: Path, name: str) -> None:
    changes, words = REFUSED[name]
    with pytest.raises(TutelageError, match=words) as caught:
        do(run_file, tmp_path / "run", **changes)
    assert caught.value.fix and not (tmp_path / "run" / "train").exists()


ROUTES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "a name that none has": ("", "one tow", {}, "from line 2 on: column 'who' is 'tow', none of the teachers one, two"),
    "no name and no usual teacher": ("", "one  two", {}, "from line 2 on: column 'who' names no teacher"),
    "nothing routed": ("", "one", {}, r"taught by teachers\.two"),
    "two and a single one": (
        "",
        "one two",
        {"teacher": {"path": "x", "licence": "mit"}},
        "give one teacher, or several",
    ),
    "nobody says which": ("", "one two", {"data__route": None}, "data.route"),
    "a usual one that is none": ("", "one two", {"data__teacher": "tow"}, "none of the teachers one, two"),
    "no terms for one of them": ("", "one two", {"teachers__two__licence": "who-knows"}, "unknown"),
}


@pytest.mark.parametrize("name", ROUTES)
def test_wrong_routes_are_refused_with_their_row(
    run_file: Path, other: Path, licence: dict[str, Any], tmp_path: Path, name: str
) -> None:
    more, names, changes, words = ROUTES[name]
    path = several(run_file, tmp_path, other, more, names)
    with pytest.raises(TutelageError, match=words) as caught:
        do(path, tmp_path / "run", **licence, **changes)
    assert caught.value.fix and not (tmp_path / "run" / "train").exists()


def test_rows_without_a_name_have_the_usual_teacher(
    run_file: Path, other: Path, licence: dict[str, Any], tmp_path: Path
) -> None:
    path = several(run_file, tmp_path, other, names="one  two")
    do(path, tmp_path / "run", data__teacher="two", train__steps=1, **licence)
    taught = [row["teacher"] for row in read_lines(tmp_path / "run" / "data" / "conversations.jsonl")]
    assert (taught.count("one"), taught.count("two")) == (7, 13)


def test_one_conversation_has_one_teacher(run_file: Path, other: Path, tmp_path: Path) -> None:
    path = several(run_file, tmp_path, other)
    data = tmp_path / "routed.jsonl"
    first = json.loads(data.read_text().splitlines()[0])
    data.write_text(data.read_text() + json.dumps(first | {"who": "two"}) + "\n")
    with pytest.raises(TutelageError, match="line 21: taught by 'two', and an earlier row"):
        do(path, tmp_path / "run")


def test_the_same_weights_may_teach_by_several_prompts(run_file: Path, teacher: Path, tmp_path: Path) -> None:
    """Rows of different instructions, and one model that is loaded once."""
    path = several(run_file, tmp_path, teacher, f'system = "{SYSTEM}"\n')
    text = path.read_text().replace('licence = "mit"', 'licence = "Apache-2.0"')
    path.write_text(text.replace("[teachers.one]\n", '[teachers.one]\nsystem = "bad plot"\n'))
    found = do(path, tmp_path / "run", **WHOLE, train__steps=30)
    assert found.objective_unats < found.before_objective_unats
    assert set(statement(tmp_path / "run", "train")["config"]["contexts"]) == {"one", "two"}
    assert [row["role"] for row in rows_of(tmp_path / "run")].count("soft-target") == 1, "one model was taken from"
    assert verify(tmp_path / "run").findings == ()


def test_whose_run_file_it_is(run_file: Path, other: Path, tmp_path: Path) -> None:
    assert verb_of(several(run_file, tmp_path, other)) == "train"
    config = load_training_config(several(run_file, tmp_path, other))
    alone = config.each_teacher()
    assert list(alone) == ["one", "two"] and all(one.teacher is not None and not one.teachers for one in alone.values())
    with pytest.raises(ConfigError, match=r"unknown key teachers\.two\.sytem \(did you mean system"):
        load_training_config(several(run_file, tmp_path, other, 'sytem = "x"\n'))


def test_the_student_never_reads_what_its_teacher_reads(run_file: Path, teacher: Path, tmp_path: Path) -> None:
    do(run_file, tmp_path / "run", teacher__system=SYSTEM, method__loss="reverse-kl", method__prefix="student")
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "run" / "student")
    shown = tokenizer.apply_chat_template([{"role": "user", "content": "q"}], tokenize=False)
    assert SYSTEM not in shown
    talks = list(read_lines(tmp_path / "run" / "data" / "conversations.jsonl"))
    assert not [talk for talk in talks if any(turn["role"] == "system" for turn in talk["messages"])]


def test_a_student_of_fewer_tokens_has_a_card_with_several_teachers(
    run_file: Path, tmp_path: Path, teacher: Path, licence: dict[str, Any]
) -> None:
    path = several(run_file, tmp_path, teacher)
    do(path, tmp_path / "run", train__steps=1, student__trim_vocabulary=True, **licence)
    card = (tmp_path / "run" / "student" / "README.md").read_text()
    assert re.search(r"to which each teacher gives [0-9.]+ % of its probability or more", card)
