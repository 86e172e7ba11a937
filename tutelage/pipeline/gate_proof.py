"""The terms stage of a proof: may these models be asked, and these items be used, for the purpose of the run?"""

from pathlib import Path
from typing import Any, NamedTuple

from tutelage.pipeline.gate import judge_teacher, lineages_of, risk_of
from tutelage.pipeline.naming import named
from tutelage.proof_config import ProofConfig
from tutelage.terms.check import check, combine
from tutelage.terms.lineage import Tie, inherited
from tutelage.terms.model import Verdict
from tutelage.terms.registry import load_registry

JUDGE = "judge "  # before the name of a judge, among the models of a proof


class ProofGate(NamedTuple):
    """One verdict a model and one on the items, by name; those on what they descend from; all together."""

    judged: dict[str, Verdict]
    inherited: tuple[Verdict, ...]
    together: Verdict

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {name: verdict.to_json() for name, verdict in self.judged.items()}
        value["together"] = self.together.to_json()
        return value | {"inherited": [verdict.to_json() for verdict in self.inherited]}


def may_prove(config: ProofConfig, today: str) -> ProofGate:
    """Raises `ConfigError` and `DataError` as `gate.check_terms` does."""
    registry, purpose, items = load_registry(), config.run.purpose, config.items
    asked = {**config.systems, **{f"{JUDGE}{name}": table for name, table in config.judges.items()}}
    judged = {}
    for name, table in asked.items():
        with named(f"judges.{name.removeprefix(JUDGE)}" if name.startswith(JUDGE) else f"systems.{name}"):
            judged[name] = judge_teacher(registry, table, purpose, today)
    judged["items"] = check(
        registry, subject=Path(items.path).name, licence=items.licence, route="local", purpose=purpose, today=today,
        accepted_risk=risk_of(items.accepted_risk),
    )  # fmt: skip
    passed_on = tuple(
        dict.fromkeys(
            one
            for table in asked.values()
            for lineage in lineages_of(table.path, table.lineage)
            for one in inherited(lineage, registry, purpose, today, Tie.TEACHER)
        )
    )
    return ProofGate(judged, passed_on, combine([*judged.values(), *passed_on]))
