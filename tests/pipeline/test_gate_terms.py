"""The gate of a run: what its sources carry on, what the run file breaks, and what the student will carry."""

import json
from pathlib import Path

import pytest

from tutelage.canon import canonical
from tutelage.cli.terms import check as command
from tutelage.config import RunConfig
from tutelage.errors import ConfigError, DataError, TermsError
from tutelage.pipeline.gate import Gate, check_terms, release, require_terms
from tutelage.run_file import validate
from tutelage.terms.check import check
from tutelage.terms.lineage import Lineage, Made, Tie, Upstream, read_lineage
from tutelage.terms.model import AcceptedRisk, Status
from tutelage.terms.registry import load_registry

TODAY = "2026-11-23"
REGISTRY = load_registry()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "topics.csv").write_text("text,topic\n")
    return tmp_path


def config_of(folder: Path, **overrides: object) -> RunConfig:
    """A run of a loopback teacher, a file and a folder of one's own; `table__key=value` sets one key."""
    raw: dict[str, dict[str, object]] = {
        "run": {"name": "topics", "seed": 3, "purpose": "internal"},
        "task": {"labels": ["sport", "food"]},
        "data": {"path": str(folder / "topics.csv"), "gold": "topic", "licence": "own"}
        | {"train": 120, "held_out": 60, "validation": 20},
        "teacher": {"url": "http://127.0.0.1:9/v1", "model": "word-counter", "licence": "MIT"},
        "student": {"path": str(folder / "base"), "licence": "Apache-2.0", "layers": 1},
        "train": {"epochs": 1},
        "claim": {"margin": 0.1},
    }
    for dotted, value in overrides.items():
        table, key = dotted.split("__")
        raw.setdefault(table, {})[key] = value
    return validate(RunConfig, raw, "run.toml")


def gate_of(folder: Path, **overrides: object) -> Gate:
    return check_terms(config_of(folder, **overrides), TODAY)


def refused(folder: Path, **overrides: object) -> TermsError:
    with pytest.raises(TermsError) as caught:
        require_terms(gate_of(folder, **overrides), folder / "terms.json")
    assert not (folder / "terms.json").exists()
    return caught.value


def write_lineage(path: Path, licence: str, route: str = "local", role: Tie = Tie.TEACHER) -> None:
    risk = AcceptedRisk("B. Before", "it was said to be fine", "that student only")
    verdict = check(
        REGISTRY,
        subject="the one before",
        licence=licence,
        route=route,
        purpose="internal",
        today=TODAY,
        accepted_risk=risk,
    )
    path.write_bytes(canonical(Lineage.of("parent", Made.STUDENT, {role: verdict}, {}).to_json()))


PLACES = {
    "base": ("base/lineage.json", {}),
    "data": ("topics.csv.lineage.json", {}),
    "teacher": ("teacher.json", {"teacher__lineage": "teacher.json"}),
}


@pytest.mark.parametrize("place", PLACES)
def test_taint_reaches_the_gate_from_base_data_and_teacher(
    folder: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    name, overrides = PLACES[place]
    assert gate_of(folder).permits
    write_lineage(folder / name, "llama-3")
    gate = gate_of(folder, **overrides)
    (one,) = gate.inherited
    assert one.status is gate.together.status is Status.FORBIDDEN
    assert not gate.permits
    assert gate.standing != gate_of(folder, teacher__licence="Apache-2.0").standing
    error = refused(folder, **overrides)
    assert "the one before (teacher of parent)" in error.message and "§1.b.v" in error.message
    assert "ship.inherited_risks" in error.fix


def test_an_inherited_risk_is_accepted_again_by_name_or_not_at_all(folder: Path) -> None:
    write_lineage(folder / "base" / "lineage.json", "", "anthropic")
    subject = gate_of(folder).inherited[0].subject
    risk = {"who": "N. Now", "reason": "it was approved in writing", "scope": "this run"}
    gate = gate_of(folder, ship__inherited_risks={subject: risk})
    assert gate.permits
    assert gate.together.status is Status.FORBIDDEN
    assert gate.together.accepted_risks == (AcceptedRisk(**risk),)
    require_terms(gate, folder / "terms.json")
    assert json.loads((folder / "terms.json").read_bytes())["inherited"][0]["accepted_risks"] == [risk]
    with pytest.raises(ConfigError, match="nothing here inherits"):
        gate_of(folder, ship__inherited_risks={"somebody else": risk})
    with pytest.raises(ConfigError, match=r"accepted_risk\.reason is empty"):
        gate_of(folder, ship__inherited_risks={subject: risk | {"reason": " "}})


def test_a_distilled_base_without_a_lineage_is_unknown_upstream(folder: Path) -> None:
    (folder / "base" / "README.md").write_text("---\ntags: [distillation]\n---\n")
    error = refused(folder)
    assert "whatever base was distilled from" in error.message
    assert "is unknown" in error.message


def test_a_lineage_that_cannot_be_read_stops_the_gate(folder: Path) -> None:
    (folder / "base" / "lineage.json").write_text("{}")
    with pytest.raises(DataError, match=r"lineage\.json is no lineage"):
        gate_of(folder)
    with pytest.raises(DataError, match="is not a file"):
        gate_of(folder, teacher__lineage=str(folder / "gone.json"))


def test_the_student_carries_all_of_it_on(folder: Path) -> None:
    write_lineage(folder / "base" / "lineage.json", "qwen3", role=Tie.BASE)
    first = gate_of(folder).lineage
    assert [(one.subject, one.role) for one in first.ancestors] == [
        ("word-counter at loopback", "teacher"),
        ("topics.csv", "data"),
        ("base", "base"),
        ("the one before", "base"),
    ]
    assert first.ancestors[2].upstream is Upstream.LISTED
    (folder / "base" / "lineage.json").write_bytes(canonical(first.to_json()))
    assert read_lineage(folder / "base" / "lineage.json") == first
    assert set(first.ancestors) <= set(gate_of(folder, run__name="next").lineage.ancestors)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ({"student__licence": "llama-3.1", "ship__monthly_users": 5}, 'run.name = "Llama-topics"'),
        ({"teacher__licence": "llama-3.1", "ship__monthly_users": 5}, 'run.name = "Llama-topics"'),
        ({"teacher__licence": "llama-3.1", "run__name": "Llama-topics"}, "ship.monthly_users"),
        ({"student__licence": "mit"}, "mit.txt and add it to ship.licence_files"),
        ({"teacher__licence": "cohere-labs"}, "ship.commercial = false"),
        ({"teacher__licence": "cohere-labs", "ship__commercial": True}, "ship.commercial is true"),
    ],
)
def test_a_condition_that_is_broken_already_stops_before_anything_is_asked(
    folder: Path, overrides: dict[str, object], problem: str
) -> None:
    gate = gate_of(folder, run__purpose="distributed", **overrides)
    assert gate.together.permits and not gate.permits
    assert problem in refused(folder, run__purpose="distributed", **overrides).fix


def test_nothing_is_asked_of_who_meets_the_conditions(folder: Path) -> None:
    good = {"run__purpose": "distributed", "run__name": "Llama-topics", "ship__monthly_users": 5}
    require_terms(gate_of(folder, teacher__licence="llama-3.1", **good), folder / "terms.json")
    assert (folder / "terms.json").exists()


def test_the_copies_that_must_go_along_are_known_before_anything_is_asked(folder: Path) -> None:
    (folder / "mit.txt").write_text("Copyright (c) the holder")
    wanted = {"run__purpose": "distributed", "student__licence": "mit"}
    assert not gate_of(folder, **wanted).permits
    assert gate_of(folder, **wanted, ship__licence_files=[str(folder / "mit.txt")]).permits
    with pytest.raises(DataError, match="is not a file"):
        gate_of(folder, ship__licence_files=[str(folder / "gone.txt")])


@pytest.mark.parametrize(
    "table", [{"ship__monthly_users": -1}, {"ship__comercial": True}, {"ship__inherited_risks": {"x": {"who": "y"}}}]
)
def test_the_tables_keys_are_checked(folder: Path, table: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="ship"):
        config_of(folder, **table)


def test_terms_check_shows_what_is_inherited_and_what_is_not_met(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lineage(folder / "base" / "lineage.json", "llama-3")
    run_file = folder / "run.toml"
    tables = config_of(folder, run__purpose="distributed", student__licence="mit").resolved()
    lines = []
    for table in ("run", "task", "data", "teacher", "student", "train", "claim"):
        lines.append(f"[{table}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in tables[table].items() if value not in (None, [], {})]
    run_file.write_text("\n".join(lines))
    assert command(run_file) == 1
    shown = capsys.readouterr().out
    assert "the one before (teacher of parent): distributed is FORBIDDEN, not permitted" in shown
    assert "not met: mit asks for a copy" in shown
    assert command(run_file, json=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["permitted"] and len(found["unmet"]) == 1
    assert [one["status"] for one in found["verdicts"]["inherited"]] == ["forbidden"]


def test_a_teachers_own_notice_does_not_bind_and_the_bases_does(folder: Path) -> None:
    asked = gate_of(folder, run__purpose="distributed").conditions
    assert [(one.entry, one.id) for one in asked] == [("apache-2.0", "notice-file"), ("own", "rights-held")]


def test_the_release_is_what_the_run_file_says(folder: Path) -> None:
    one = release(config_of(folder, ship__commercial=False), "card", ("NOTICE",))
    assert (one.name, one.purpose, one.distributed, one.commercial) == ("topics", "internal", False, False)
    assert (one.monthly_users, one.card, one.files) == (None, "card", ("NOTICE",))
    assert release(config_of(folder, run__purpose="distributed")).distributed


def test_the_evidence_tells_every_verdict_and_who_accepted_what(folder: Path) -> None:
    from tutelage.pipeline.assemble import _terms
    from tutelage.report.shape import SHAPE, _check

    write_lineage(folder / "base" / "lineage.json", "", "anthropic")
    risk = {"who": "N. Now", "reason": "it was approved in writing", "scope": "this run"}
    subject = gate_of(folder).inherited[0].subject
    rows = _terms(gate_of(folder, ship__inherited_risks={subject: risk}))
    _check(rows, SHAPE["terms"], "terms")
    assert [row["of"] for row in rows] == ["teacher", "data", "base", "inherited"]
    assert rows[3]["accepted_risks"] == [risk]
    assert (rows[3]["verdict"], rows[3]["subject"]) == ("forbidden", subject)
    assert any("does not count here" in warning for warning in rows[3]["warnings"])
    assert rows[0]["accepted_risks"] == []


def test_a_known_host_is_not_passed_off_as_another_provider(folder: Path) -> None:
    """The terms of the host that is asked count, whatever the run file calls it."""
    with pytest.raises(ConfigError, match="is OpenAI Services Agreement"):
        gate_of(folder, teacher__url="https://api.openai.com/v1", teacher__provider="deepseek-api")


@pytest.mark.parametrize("table", ["data", "student"])
def test_a_risk_in_data_or_base_can_be_accepted_and_is_part_of_what_is_told(folder: Path, table: str) -> None:
    unknown: dict[str, object] = {f"{table}__licence": "something-unread"}
    before = gate_of(folder, **unknown)
    assert not before.permits
    risk = {"who": "A. Person", "reason": "counsel approved it", "scope": "this run"}
    accepted = gate_of(folder, **unknown, **{f"{table}__accepted_risk": risk})
    assert accepted.permits
    assert accepted.standing == before.standing and accepted.risks != before.risks
