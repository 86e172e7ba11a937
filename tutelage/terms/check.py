"""The gate: what the texts say about one subject, by one route, for one purpose, on one day.

A model's licence and the terms of the route by which it is reached must both allow the use; the stricter wins and the
reasons of both stay. Unknown is never allowed. A named person may accept a risk: that is written down, changes whether
we go on, and never what the texts say.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date

from tutelage.errors import ConfigError, DataError, TermsError
from tutelage.terms.model import (
    UNDATED,
    AcceptedRisk,
    Clause,
    Condition,
    Fact,
    Kind,
    Purpose,
    Reason,
    Status,
    TermsEntry,
    UnknownName,
    Verdict,
)
from tutelage.terms.registry import Registry, fold

OWN_ROUTES = frozenset({"embedded", "local", "loopback"})  # weights on our own machine: only their licence speaks
STALE_DAYS = 90  # a provider's terms checked longer ago than this are warned about


def check(
    entries: Registry,
    *,
    subject: str,
    licence: str,
    route: str,
    purpose: Purpose | str,
    today: date | str,
    accepted_risk: AcceptedRisk | None = None,
) -> Verdict:
    """The verdict on `subject`. `licence` is an id, SPDX id or alias, and empty for a model whose weights are not
    public; `route` is one of `OWN_ROUTES`, or a provider's id, alias or host name.

    Raises `ConfigError` for an unknown purpose, an empty subject or a risk accepted without name, reason or scope, and
    `DataError` for a date that is malformed or, in the registry, later than `today`.
    """
    wanted, day = _purpose(purpose), _day(today)
    if not subject.strip():
        raise ConfigError("the terms gate was asked about nothing", fix="say which model or data the verdict is on")
    texts = _texts(entries, licence, route)
    warnings = [warning for _, text in texts if isinstance(text, TermsEntry) for warning in _ages(text, wanted, day)]
    reasons = [_reason(subject, asked, text, wanted) for asked, text in texts]
    verdict = Verdict(
        subject=subject,
        licence=licence,
        route=route,
        purpose=wanted,
        date=day.isoformat(),
        status=_strictest(reasons),
        reasons=_ordered(reasons),
        conditions=_conditions(texts, wanted),
        warnings=tuple(dict.fromkeys(warnings)),
        accepted_risks=(),
        permitted_purposes=tuple(other for other in Purpose if all(_status(text, other).permits for _, text in texts)),
    )
    return verdict if accepted_risk is None else accept(verdict, accepted_risk)


def accept(verdict: Verdict, risk: AcceptedRisk) -> Verdict:
    """The verdict with a risk that a named person takes: it permits, says who, and its status stays what the texts say.

    Raises `ConfigError` for a risk without name, reason or scope.
    """
    who = _accountable(risk)
    against = [reason for reason in verdict.reasons if not reason.permits]
    said = ", ".join(f"{reason.status} by {reason.entry_name or reason.asked!r}" for reason in against)
    warning = (
        f"{who} accepted a risk the terms do not cover ({said}): {risk.reason}"
        if against
        else f"{who} accepted a risk, but the terms permit this use anyway"
    )
    return replace(
        verdict,
        reasons=tuple(one if one.permits else replace(one, accepted_by=who) for one in verdict.reasons),
        warnings=tuple(dict.fromkeys((*verdict.warnings, warning))),
        accepted_risks=(*verdict.accepted_risks, risk),
    )


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict on several subjects (teacher, data, student's base): the strictest wins, every reason, condition and
    warning stays, and an accepted risk covers only the subject it was accepted for.

    Raises `ConfigError` when there is none, or they differ in purpose or day.
    """
    if not verdicts:
        raise ConfigError("no verdicts to combine", fix="check at least one subject")
    first = verdicts[0]
    for other in verdicts:
        if (other.purpose, other.date) != (first.purpose, first.date):
            raise ConfigError(
                f"verdicts differ: {first.purpose} on {first.date}, {other.purpose} on {other.date}",
                fix="check every subject for the same purpose on the same day",
            )
    reasons = [reason for verdict in verdicts for reason in verdict.reasons]
    return Verdict(
        subject=_joined(verdict.subject for verdict in verdicts),
        licence=_joined(verdict.licence for verdict in verdicts if verdict.licence),
        route=_joined(verdict.route for verdict in verdicts),
        purpose=first.purpose,
        date=first.date,
        status=_strictest(reasons),
        reasons=_ordered(reasons),
        conditions=tuple(dict.fromkeys(condition for verdict in verdicts for condition in verdict.conditions)),
        warnings=tuple(dict.fromkeys(warning for verdict in verdicts for warning in verdict.warnings)),
        accepted_risks=tuple(dict.fromkeys(risk for verdict in verdicts for risk in verdict.accepted_risks)),
        permitted_purposes=tuple(
            purpose for purpose in Purpose if all(purpose in verdict.permitted_purposes for verdict in verdicts)
        ),
    )


def require(verdict: Verdict) -> None:
    """Raises `TermsError` with clause, source and fix unless the verdict permits the use."""
    if verdict.permits:
        return
    reason = verdict.decisive
    raise TermsError(
        f"{reason.subject}: {verdict.purpose} is {reason.status} on {verdict.date}: {cited(reason)}",
        fix=way_out(verdict),
    )


def describe(verdict: Verdict) -> str:
    """The verdict in a few plain lines: clause, source, conditions, warnings, and what would change it."""
    permitted = "permitted" if verdict.permits else "not permitted"
    lines = [
        f"{verdict.subject}: {verdict.purpose} is {verdict.status.upper()}, {permitted} ({verdict.date})",
        f"  licence {verdict.licence or 'none given'}; route {verdict.route}",
    ]
    lines += [f"  {reason.status}: {cited(reason)}" for reason in verdict.reasons]
    lines += [f"  condition {condition.id}: {condition.words}" for condition in verdict.conditions]
    lines += [f"  accepted risk: {risk.who}: {risk.reason} (for {risk.scope})" for risk in verdict.accepted_risks]
    lines += [f"  warning: {warning}" for warning in verdict.warnings]
    lines.append(f"  what would change this: {way_out(verdict)}")
    return "\n".join(lines)


def _texts(entries: Registry, licence: str, route: str) -> list[tuple[str, TermsEntry | UnknownName]]:
    """The texts that speak, each with the name it was asked for by. A model on our own machine must name a licence, and
    so must one at a host of other people's models."""
    if fold(route) in OWN_ROUTES:
        return [(licence, _of_kind(entries, licence, Kind.LICENCE))]
    provider = _of_kind(entries, route, Kind.PROVIDER)
    hosted = isinstance(provider, TermsEntry) and any(item.id is Fact.MODEL_LICENCE for item in provider.conditions)
    named = [(licence, _of_kind(entries, licence, Kind.LICENCE))] if licence.strip() or hosted else []
    return [*named, (route, provider)]


def _of_kind(entries: Registry, name: str, kind: Kind) -> TermsEntry | UnknownName:
    found = entries.find(name)
    if isinstance(found, TermsEntry) and found.kind is not kind:
        return UnknownName(name, ())  # a provider's terms are no licence, and a licence grants no access
    return found


def _status(text: TermsEntry | UnknownName, purpose: Purpose) -> Status:
    return text.rule(purpose).status if isinstance(text, TermsEntry) else Status.UNKNOWN


def _reason(subject: str, asked: str, text: TermsEntry | UnknownName, purpose: Purpose) -> Reason:
    if isinstance(text, UnknownName):
        named = f"{text.name!r} is not in the terms registry" if text.name.strip() else "no licence was given"
        known = f"did you mean {' or '.join(text.near)}?" if text.near else "`tutelage terms list` names those that are"
        gist = f"{named}; {known}"
        return Reason(subject, asked, "", "", "", Status.UNKNOWN, "", gist, "", UNDATED, "", "", "")
    rule = text.rule(purpose)
    if rule.status is Status.UNKNOWN:
        nearest = text.clauses[0]
        gist = f"nothing read of {text.name} settles {purpose}: {nearest.gist}"
        clause = Clause("", gist, nearest.source, UNDATED, nearest.checked_on, "")
    else:
        clause = text.clause(rule.clause)
    return Reason(
        subject=subject,
        asked=asked,
        entry=text.id,
        entry_name=text.name,
        entry_digest=text.digest,
        status=rule.status,
        accepted_by="",
        **clause.to_json(),
    )


def _ages(text: TermsEntry, purpose: Purpose, today: date) -> list[str]:
    """Warnings on the deciding clause's age, and the entry's caveats. A published licence's text does not change, so a
    clock behind the day it was read is only warned about; on moving terms it is refused."""
    warnings = list(text.caveats)
    number = text.rule(purpose).clause
    for clause in text.clauses if not number else (text.clause(number),):
        checked = date.fromisoformat(clause.checked_on)
        if clause.effective != UNDATED and clause.effective > today.isoformat():  # ISO 8601 sorts as text
            raise _future(text, "effective", clause.effective, today)
        if checked > today:
            if not text.versioned:
                raise _future(text, "checked_on", clause.checked_on, today)
            warnings.append(f"{text.name} was read on {clause.checked_on}, later than today by this clock ({today})")
        elif not text.versioned and (age_days := (today - checked).days) > STALE_DAYS:
            warnings.append(
                f"{text.name}, {clause.number}: last checked {age_days} days ago ({clause.checked_on}), more than "
                f"{STALE_DAYS}; read {clause.source} again"
            )
    return warnings


def _future(text: TermsEntry, field: str, value: str, today: date) -> DataError:
    return DataError(
        f"{text.id}: {field} {value} is later than {today}: these terms say nothing about that day",
        fix=f"check this machine's clock, or mend {field} in tutelage/terms/data/{text.id}.yaml",
    )


def _conditions(texts: list[tuple[str, TermsEntry | UnknownName]], purpose: Purpose) -> tuple[Condition, ...]:
    known = [text for _, text in texts if isinstance(text, TermsEntry)]
    return tuple(dict.fromkeys(item for text in known for item in text.conditions_of(text.rule(purpose))))


def _strictest(reasons: Sequence[Reason]) -> Status:
    return max((reason.status for reason in reasons), key=lambda status: status.severity)


def _ordered(reasons: Sequence[Reason]) -> tuple[Reason, ...]:
    return tuple(sorted(reasons, key=lambda reason: -reason.status.severity))


def cited(reason: Reason) -> str:
    """One text's say: name, clause, dates, gist and address, or only why nothing is known."""
    if not reason.source:
        return reason.gist
    effective = "" if reason.effective == UNDATED else f"effective {reason.effective}, "
    name = f"{reason.entry_name}, {reason.number}" if reason.number else reason.entry_name
    return f"{name} ({effective}checked {reason.checked_on}): {reason.gist} [{reason.source}]"


def way_out(verdict: Verdict) -> str:
    """What a person can do about it, in one line."""
    others = ", ".join(verdict.permitted_purposes)
    if verdict.permits:
        if verdict.accepted_risks and not verdict.status.permits:
            return f"withdrawing the accepted risk; without one: {others or 'no purpose'} would be permitted"
        dropped = [purpose for purpose in Purpose if purpose not in verdict.permitted_purposes]
        moved = f"another purpose (not permitted: {', '.join(dropped)}), " if dropped else ""
        return f"{moved}another route or licence, or new terms"
    ways = [f"state the purpose as one these terms permit, if it is true ({others})"] if others else []
    if verdict.decisive.status is Status.UNKNOWN:
        ways.append("name the licence and provider as the registry does, or add an entry with clause and source")
    else:
        ways.append("use another teacher, or get written permission from the provider")
    if verdict.decisive.status is Status.FORBIDDEN_FOR_COMPETING:
        ways.append("or, if it does not compete, have a named person say so: accepted_risk with who, reason and scope")
    else:
        ways.append("or have a named person accept the risk: accepted_risk with who, reason and scope")
    return "; ".join(ways)


def _accountable(risk: AcceptedRisk) -> str:
    for name, value in risk.to_json().items():
        if not value.strip():
            raise ConfigError(f"accepted_risk.{name} is empty", fix="give who, reason and scope")
    return risk.who


def _purpose(purpose: Purpose | str) -> Purpose:
    try:
        return Purpose(purpose)
    except ValueError:
        raise ConfigError(f"unknown purpose {purpose!r}", fix=f"one of: {', '.join(Purpose)}") from None


def _day(today: date | str) -> date:
    """A calendar day. `datetime` is refused: its day depends on a time zone that nobody stated."""
    if type(today) is date:
        return today
    try:
        parsed = date.fromisoformat(str(today))
    except ValueError as error:
        raise DataError(f"today {today!r} is not a date: {error}", fix="give a day as YYYY-MM-DD") from None
    if parsed.isoformat() != today:
        raise DataError(f"today {today!r} is not a day written YYYY-MM-DD", fix="give a day as YYYY-MM-DD")
    return parsed


def _joined(texts: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(texts))
