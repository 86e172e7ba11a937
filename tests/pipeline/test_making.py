"""What a student took to make, out of the records around it: a label run, a training with answers named or not, none at all."""

import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.canon import digest_bytes
from tutelage.pipeline.making import EARLIER, cost_rows, made_in
from tutelage.pipeline.talks import ANSWERS, QUESTIONS, digest_of_answers

WEIGHTS = b"weights"


def log(run: Path, **stages: dict[str, Any]) -> None:
    (run / "ledger").mkdir(parents=True, exist_ok=True)
    lines = [
        {"kind": "statement", "stage": name, "config": {}, "inputs": {}, "outputs": {}, "facts": {}} | one
        for name, one in stages.items()
    ]
    (run / "ledger" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def student(run: Path, **stages: dict[str, Any]) -> str:
    folder = run / "student"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    log(run, ship={"outputs": {"student/model.safetensors": digest_bytes(WEIGHTS)}}, **stages)
    return str(folder)


def collection(folder: Path, **facts: Any) -> str:
    (folder / "store").mkdir(parents=True)
    for name in (ANSWERS, QUESTIONS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}\n")
    log(folder, collect={"facts": facts})
    return digest_of_answers(folder)


def test_of_a_label_run(tmp_path: Path) -> None:
    folder = student(
        tmp_path / "run", data={}, collect={"facts": {"cpu_ms": 30_000, "cost_nusd": 2 * 10**9}},
        train={"facts": {"cpu_ms": 60_000, "energy_mj": 9_000}},
    )  # fmt: skip
    made = made_in(folder, [])
    assert (made.cpu_s, made.usd, made.energy_j, made.counted) == (90.0, 2.0, 9.0, "collecting and training")
    row = {"usd_per_1000": 0.0, "cpu_s_per_query": 1.0, "latency_s": 1.0}
    cost = cost_rows(made, row, row | {"cpu_s_per_query": 0.1})
    assert (cost["break_even_queries"], cost["teacher_over_student"], cost["price"]) == (100, 10.0, "cpu_s_per_query")
    cost = cost_rows(made, row | {"usd_per_1000": 5.0, "cpu_s_per_query": None}, row)
    assert cost["break_even_queries"] == 400 and "money" in cost["break_even_basis"]
    cost = cost_rows(made, row, row)
    assert cost["break_even_queries"] is None and "costs no less" in cost["break_even_basis"]
    cost = cost_rows(made, row | {"cpu_s_per_query": None}, row)
    assert cost["break_even_basis"].startswith("not known: CPU-seconds of the teacher")


def test_of_a_training_whose_answers_are_named(tmp_path: Path) -> None:
    digest = collection(tmp_path / "asked", settled_nusd=3 * 10**8, teacher_weights={})
    folder = student(
        tmp_path / "run", data={"config": {"collected": True}, "inputs": {"file": digest}},
        signals={"facts": {"cpu_ms": 5_000}}, rollouts={"facts": {"cpu_ms": 7_000}},  # these for an earlier method
        train={"facts": {"cpu_ms": 20_000}, "inputs": {"signals": "sha256:1"}},
    )  # fmt: skip
    made = made_in(folder, [str(tmp_path / "asked"), str(tmp_path / "run")])
    assert (made.cpu_s, made.usd) == (25.0, 0.3)
    unnamed = made_in(folder, [str(tmp_path / "run")])
    assert unnamed.cpu_s is unnamed.usd is None and "items.seen" in unnamed.no_usd
    row = {"usd_per_1000": 1.0, "cpu_s_per_query": None, "latency_s": 1.0}
    assert cost_rows(unnamed, row, row | {"usd_per_1000": 0.0})["break_even_basis"].startswith(
        "not known: the folder of"
    )


def test_own_answers_and_a_paid_scorer_count(tmp_path: Path) -> None:
    digest = collection(tmp_path / "asked", settled_nusd=3 * 10**8)
    folder = student(
        tmp_path / "run", data={"config": {"collected": True}, "inputs": {"file": digest}},
        rejected={"facts": {"cpu_ms": 7_000, "energy_mj": 1_000}},
        train={
            "facts": {"cpu_ms": 20_000, "energy_mj": 2_000, "settled_nusd": 5 * 10**8}, "inputs": {"rejected": "sha256:1"}
        },
    )  # fmt: skip
    made = made_in(folder, [str(tmp_path / "asked")])
    assert (made.cpu_s, made.energy_j, made.usd) == (27.0, 3.0, 0.8)


def test_own_teachers_computing_that_nobody_measured(tmp_path: Path) -> None:
    digest = collection(tmp_path / "asked", settled_nusd=0, teacher_weights={"served": "sha256:0"})
    folder = student(
        tmp_path / "run",
        data={"config": {"collected": True}, "inputs": {"file": digest}},
        train={"facts": {"cpu_ms": 20_000}},
    )
    made = made_in(folder, [str(tmp_path / "asked")])
    assert made.cpu_s is None and made.no_cpu == EARLIER


def test_conversations_out_of_a_file_count_as_free(tmp_path: Path) -> None:
    folder = student(tmp_path / "run", data={"config": {"collected": False}}, train={"facts": {"cpu_ms": 20_000}})
    made = made_in(folder, [])
    assert made.cpu_s == 20.0 and "count as free" in made.counted and made.usd is None and "file" in made.no_usd


@pytest.mark.parametrize("what", ["elsewhere", "no run", "other weights", "earlier"])
def test_what_is_not_known_is_said(tmp_path: Path, what: str) -> None:
    folder: str | None = student(tmp_path / "run", data={"config": {"collected": False}}, train={"facts": {}})
    if what == "elsewhere":
        folder = None
    elif what == "no run":
        (tmp_path / "run" / "ledger" / "log.jsonl").unlink()
    elif what == "other weights":
        (tmp_path / "run" / "student" / "model.safetensors").write_bytes(b"others")
    made = made_in(folder, [])
    said = {
        "elsewhere": "served elsewhere",
        "no run": "no run folder",
        "other weights": "did not ship",
        "earlier": EARLIER,
    }
    assert made.cpu_s is None and said[what] in made.no_cpu and made.energy_j is None
