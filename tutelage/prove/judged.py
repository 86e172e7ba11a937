"""The judges of an open proof as evidence: figures of each, and the verdict of those of whom something was claimed."""

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.proof_config import ProofClaimTable
from tutelage.prove.judges.evidence import panel_evidence
from tutelage.prove.measure import Proof


def judge_rows(
    proof: Proof, claims: Sequence[ProofClaimTable], shown_of: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Every judge alone and their majority, each at the margin of its own claim; `together` is its claim's verdict beside all
    others, as `shown_of` has it, a row a claim. One without a claim has figures, at the margin of the first claim on judges,
    else of the first claim, and no verdict."""
    if proof.bench is None:
        return []
    declared: dict[str, ProofClaimTable] = {}
    verdicts: dict[str, str] = {}
    for claim, row in zip(claims, shown_of, strict=True):
        if claim.comparison == "judge":
            name = proof.bench.judge(claim.judge).name
            declared.setdefault(name, claim)
            verdicts.setdefault(name, row["verdict"])
    usual = next(iter(declared.values()), claims[0])
    panels = {}
    for margin, level in dict.fromkeys((claim.margin, claim.level) for claim in (usual, *declared.values())):
        found = panel_evidence(proof.bench.items, proof.bench.calls, margin, level, proof.bench.kin)
        panels[margin, level] = [*found["judges"], *([found["majority"]] if found["majority"] else [])]
    rows = list[dict[str, Any]]()
    for at, row in enumerate(panels[usual.margin, usual.level]):
        claim = declared.get(row["judge"])
        if claim is None:
            rows.append(row | {"declared": False, "verdict": None, "together": None})
        else:
            its_own = panels[claim.margin, claim.level][at]
            together = verdicts[row["judge"]] if len(claims) > 1 else None
            rows.append(its_own | {"declared": True, "together": together})
    for row in rows:
        row.pop("holm", None)  # over judges alone: the claims are held together
    return rows
