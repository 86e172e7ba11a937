"""`tutelage plan` of a proof: what it would ask, cost and show, with nobody asked; and what sessions do to its power."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.test_proving import Models, models, rows, write
from tutelage.cli.main import main
from tutelage.stats.power import items_needed, non_inferiority_power
from tutelage.stats.power_means import clustered_power

__all__ = ["models"]
JUDGE = '[judges.strict]\nurl = "http://127.0.0.1:1/v1"\nmodel = "referee"\nlicence = "mit"\nmax_tokens = 40\n'


def plan(run_file: Path, capsys: Any, *more: str) -> tuple[int, dict[str, Any], str]:
    said = []
    for how in (["--json"], []):
        with pytest.raises(SystemExit) as ended:
            main(["plan", str(run_file), *how, *more])
        said.append(capsys.readouterr().out)
    return int(ended.value.code or 0), json.loads(said[0]), said[1]


def test_calls_tokens_money_and_power(tmp_path: Path, models: Models, capsys: Any) -> None:
    table = "input_usd_per_mtok = 10\noutput_usd_per_mtok = 100\n"
    price = f'"mit"\n[systems.teacher.price]\n{table}dated = "2026-01-01"\n[systems.student]'
    run_file = write(tmp_path, models, rows(), JUDGE, **{'"mit"\n[systems.student]': price})
    code, found, words = plan(run_file, capsys)
    assert code == 0 and found["permitted"] and (found["items"], found["with_gold"], found["again"]) == (300, 300, 300)
    by_name = {row["name"]: row for row in found["models"]}
    assert {name: row["calls"] for name, row in by_name.items()} == {
        "teacher": 600, "student": 300, "before": 300, "judge strict": 600,
    }  # fmt: skip
    asked = sum(len(row["prompt"]) for row in rows()) // 4
    assert by_name["teacher"]["prompt_tokens"] == 2 * asked and by_name["teacher"]["most_answer_tokens"] == 600 * 16
    exact = (2 * asked * 10 + 600 * 8 * 100) / 1e6
    assert (
        by_name["teacher"]["cost_usd"] == pytest.approx(exact, rel=0.02) == pytest.approx(found["cost_usd"], rel=0.02)
    )
    assert by_name["student"]["cost_usd"] == 0.0
    (claim,) = found["claims"]
    assert claim["power"] == pytest.approx(non_inferiority_power(300, 0.05, 0.0, 0.2))
    assert claim["items_for_80"] == items_needed(0.8, 0.05, 0.0, 0.2)
    assert non_inferiority_power(300, 0.05, claim["shown_from"], 0.2) == pytest.approx(0.8, abs=1e-6)
    assert "600 calls" in words and "a student that is truly" in words and "limit $3" in words
    assert [model.asked for model in models] == [0, 0, 0] and not (tmp_path / "runs").exists()


def test_power_is_that_beside_the_other_claims(tmp_path: Path, models: Models, capsys: Any) -> None:
    more = '[[claims]]\ncomparison = "teacher"\nmargin = 0.05\n'
    _, found, words = plan(write(tmp_path, models, rows(), more), capsys)
    claim = found["claims"][0]
    assert claim["power"] == pytest.approx(non_inferiority_power(300, 0.05, 0.0, 0.2, 0.975))
    assert claim["items_for_80"] == items_needed(0.8, 0.05, 0.0, 0.2, 0.975)
    assert non_inferiority_power(300, 0.05, claim["shown_from"], 0.2, 0.975) == pytest.approx(0.8, abs=1e-6)
    assert claim["level"] == 0.95 and "Holm's first step among 2 claims" in words


def test_over_the_budget_is_said(tmp_path: Path, models: Models, capsys: Any) -> None:
    code, found, words = plan(write(tmp_path, models, rows(40)), capsys, "--set", "budget.max_tokens=100")
    assert code == 1 and not found["within_budget"] and "OVER THE BUDGET" in words


def test_sessions_take_a_design_effect(tmp_path: Path, models: Models, capsys: Any) -> None:
    grouped = [{**row, "session": f"s{at // 10}"} for at, row in enumerate(rows())]
    run_file = write(tmp_path, models, grouped)
    _, found, words = plan(run_file, capsys)
    alone = found["claims"][0]
    assert alone["power"] == pytest.approx(non_inferiority_power(300, 0.05, 0.0, 0.2))
    assert "if items of a session were independent" in words and "300 in 30 sessions" in words
    run_file.write_text(run_file.read_text() + "expected_correlation = 0.05\n")
    _, found, words = plan(run_file, capsys)
    claim = found["claims"][0]
    assert claim["power"] == pytest.approx(clustered_power(30, 10, 0.0, 0.2**0.5, 0.05, 0.05))
    assert claim["power"] < alone["power"]
    assert "design effect 1.4" in words and claim["items_for_80"] > alone["items_for_80"]
    assert claim["shown_from"] > alone["shown_from"]
    assert claim["items_for_80"] % 10 == 0


def test_a_correlation_without_sessions_is_refused(tmp_path: Path, models: Models, capsys: Any) -> None:
    run_file = write(tmp_path, models, rows(40), "expected_correlation = 0.2\n")
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(run_file)])
    assert ended.value.code == 2 and "no item names a session" in capsys.readouterr().err


def test_too_few_items_show_nothing(tmp_path: Path, models: Models, capsys: Any) -> None:
    run_file = write(tmp_path, models, rows(12), **{"margin__0.05": "margin = 0.01"})
    _, found, words = plan(run_file, capsys)
    assert found["claims"][0]["shown_from"] is None and "nothing: with 12 items" in words
