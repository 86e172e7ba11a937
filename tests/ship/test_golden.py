"""The four documents of one account, to the letter. After a change that is meant: run this file with `GOLDEN=write`."""

import json
import os
from pathlib import Path

import pytest

from tests.ship.sample import account
from tutelage.records import Record
from tutelage.ship.account import Account
from tutelage.ship.bom import ml_bom
from tutelage.ship.card import model_card
from tutelage.ship.croissant import croissant
from tutelage.ship.summary import eu_summary

GOLDEN = Path(__file__).parents[1] / "golden"
MAKE = {
    "mlbom.cdx.json": lambda one: json.dumps(ml_bom(one), indent=2, ensure_ascii=False) + "\n",
    "croissant.json": lambda one: json.dumps(croissant(one), indent=2, ensure_ascii=False) + "\n",
    "card.md": lambda one: model_card(one, ("Built with Smol",)),
    "eu-training-summary.md": eu_summary,
}


@pytest.mark.parametrize("name", MAKE)
def test_as_committed(name: str) -> None:
    made = MAKE[name](account())
    if os.environ.get("GOLDEN") == "write":
        (GOLDEN / name).write_text(made, encoding="utf-8")
    assert made == (GOLDEN / name).read_text(encoding="utf-8")
    assert made == MAKE[name](account()), "the same account gives the same bytes"


def test_an_account_survives_its_json() -> None:
    one = account()
    assert isinstance(one, Record)
    assert Account.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert one.digest.startswith("sha256:"), "no float, no key that canonical JSON refuses"


def test_shares_are_of_targets_alone() -> None:
    one = account()
    assert one.target_tokens == 1000
    assert [one.share(row) for row in one.sources] == ["", "700 of 1000", "70 of 1000", "230 of 1000", ""]
    assert [[row.teacher for row in rows] for rows in one.teachers] == [["smol-teacher", "smol-teacher"], ["closed-1"]]
