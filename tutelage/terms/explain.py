"""A verdict in words, at length: what each text says and how old that reading is, what else it would permit, and what
would change it. Pure."""

from collections.abc import Sequence
from datetime import date

from tutelage.terms.check import STALE_DAYS, cited, way_out
from tutelage.terms.model import Purpose, Reason, TermsEntry, Verdict
from tutelage.terms.registry import Registry


def ages_days(verdict: Verdict) -> dict[str, int]:
    """By entry: how many days before the verdict its deciding clause was read (negative: this clock is behind)."""
    day = date.fromisoformat(verdict.date)
    return {
        reason.entry: (day - date.fromisoformat(reason.checked_on)).days for reason in verdict.reasons if reason.entry
    }


def explain(verdict: Verdict, entries: Registry) -> str:
    """Plain lines for a person; `entries` tells which texts age."""
    lines = [
        f"{verdict.purpose} is {verdict.status.upper()}: "
        f"{'permitted' if verdict.permits else 'not permitted'} on {verdict.date}",
        f"  licence {verdict.licence or 'none given'}; route {verdict.route or 'none given'}",
    ]
    for reason in verdict.reasons:
        lines += [f"  {reason.status}: {cited(reason)}", *_age(reason, verdict, entries)]
    lines += [f"  condition {one.id}: {one.words} ({one.entry})" for one in verdict.conditions]
    lines += [f"  warning: {warning}" for warning in verdict.warnings]
    barred = [purpose for purpose in Purpose if purpose not in verdict.permitted_purposes]
    lines += [
        f"  these texts permit: {', '.join(verdict.permitted_purposes) or 'no purpose'}",
        f"  they do not permit: {', '.join(barred) or 'nothing is left out'}",
        f"  what would change this: {way_out(verdict)}",
    ]
    return "\n".join(lines)


def answer(verdict: Verdict, unmet: Sequence[str] = ()) -> str:
    """May it be used, why, and what must be done: one line. `unmet` are conditions that are known to be broken."""
    deciding, use = verdict.decisive, f"for {verdict.purpose}"
    source = f"{deciding.entry_name}, {deciding.number}".removesuffix(", ") if deciding.entry_name else ""
    why = f"{deciding.gist.rstrip('.')} ({source})" if source else deciding.gist.rstrip(".")
    if not verdict.permits:
        return f"no: {deciding.subject} may not be used {use}: {why}. To do: {way_out(verdict)}"
    if unmet:
        return f"no: it may be used {use}, but a condition is not met. To do: {'; '.join(unmet)}"
    conditions = " ".join(dict.fromkeys(one.words for one in verdict.conditions))
    risks = ", ".join(dict.fromkeys(risk.who for risk in verdict.accepted_risks))
    at_risk = f", at the risk that {risks} accepted" if risks and not verdict.status.permits else ""
    return f"yes: {verdict.subject} may be used {use}{at_risk}: {why}. To do: {conditions or 'nothing'}"


def _age(reason: Reason, verdict: Verdict, entries: Registry) -> list[str]:
    text = entries.find(reason.entry)
    if not reason.entry or not isinstance(text, TermsEntry):
        return []
    kind = (
        "a published version: it does not age"
        if text.versioned
        else f"a living text: read it again after {STALE_DAYS} days"
    )
    return [f"    read {ages_days(verdict)[reason.entry]} days before; {kind}"]
