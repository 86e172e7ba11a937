"""Numbers and hostile text as people read them. Formatting only: no statistic is made here.

Strings use U+00A0 before a unit and U+2212 for minus; `tables` turns the former into plain spaces for terminals.
"""

import re
from collections.abc import Mapping
from typing import Any

NBSP = "\u00a0"
MINUS = "\u2212"
ALIKE = 1.05
DASH = "\u2014"

VERDICTS = {
    "NON-INFERIOR": "The whole interval lies above the margin line: the student is not worse than its teacher by more "
    "than the margin that was declared before looking.",
    "EQUIVALENT": "The whole interval lies between minus the margin and plus the margin that were declared before "
    "looking.",
    "INFERIOR": "The whole interval lies below the margin line: the student is worse than its teacher by more than the "
    "margin that was declared before looking.",
    "INCONCLUSIVE": "The interval does not settle the claim: the data fit a student inside the margin and one outside "
    "it. This is not evidence that student and teacher are alike.",
}

ROLES = {
    "teacher": "Teacher",
    "student": "Student",
    "plain": "Plain fine-tuning",
    "before": "Before training",
    "majority": "Majority class",
    "bag-of-words": "Bag of words",
}

# C0 and C1 controls but tab and newline; bidirectional, zero-width and invisible characters; lone surrogates.
_UNSEEN = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)


def visible(text: str) -> str:
    """`text` with every control, bidirectional, zero-width or lone-surrogate character written as ⟨U+202E⟩."""
    return _UNSEEN.sub(lambda match: f"⟨U+{ord(match.group()):04X}⟩", text)


def shorten(text: str, width: int) -> str:
    """`text` made visible on one line, cut to at most `width` characters with an ellipsis."""
    line = " ".join(visible(text).split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def percent(share: float, digits: int = 1) -> str:
    """A proportion as a percentage: 0.828 → `82.8 %`."""
    return f"{_signed(share * 100, digits)}{NBSP}%"


def points(share: float, digits: int = 1) -> str:
    """A difference of proportions as signed percentage points without unit: -0.006 → `−0.6`."""
    text = _signed(share * 100, digits)
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def plain_points(share: float) -> str:
    """A margin in points without needless decimals: 0.03 → `3`, 0.025 → `2.5`."""
    return f"{round(share * 100, 6):g}".replace("-", MINUS)


def percent_range(low: float, high: float) -> str:
    """`81.7 to 83.9` (percent, unit left to the estimate beside it)."""
    return f"{_signed(low * 100, 1)} to {_signed(high * 100, 1)}"


def points_range(low: float, high: float) -> str:
    """`−1.8 to +0.6` (points)."""
    return f"{points(low)} to {points(high)}"


def number(value: float, figures: int = 3) -> str:
    """A quantity with `figures` significant figures, thousands separated and never an exponent: 0.0021, 1.24, 1,240."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{figures - 1}e}")
    exponent = int(f"{rounded:e}".split("e")[1])
    return f"{rounded:,.{max(0, figures - 1 - exponent)}f}".replace("-", MINUS)


def count(value: int) -> str:
    """A whole number with thousands separated: 4500 → `4,500`."""
    return f"{value:,}".replace("-", MINUS)


def usd(value: float) -> str:
    """Money: cents from ten cents up, two significant figures below."""
    return f"${value:,.2f}" if value >= 0.1 or value == 0 else f"${number(value, 2)}"


def duration(seconds: float) -> str:
    """Wall or CPU time: `0.42 s`, `75 s`, `12 min 5 s`, `2 h 3 min`."""
    if seconds < 100:
        return f"{number(seconds, 2)}{NBSP}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{NBSP}min {whole % 60}{NBSP}s"
    return f"{whole // 3600:,}{NBSP}h {whole % 3600 // 60}{NBSP}min"


def energy(joules: float) -> str:
    """`840 J`, `12.3 kJ`, `5.2 MJ (1.44 kWh)`."""
    if joules < 1000:
        return f"{number(joules)}{NBSP}J"
    if joules < 1e6:
        return f"{number(joules / 1e3)}{NBSP}kJ"
    return f"{number(joules / 1e6)}{NBSP}MJ ({number(joules / 3.6e6)}{NBSP}kWh)"


def times(value: int) -> str:
    """How often: `once`, `twice`, `3 times`, `never`."""
    return {0: "never", 1: "once", 2: "twice"}.get(value, f"{count(value)} times")


def level(value: float) -> str:
    """A confidence level: 0.95 → `95 %`."""
    return f"{round(value * 100, 6):g}{NBSP}%"


def role(name: str) -> str:
    """The words for a system's role; a role this page does not know is shown as it is."""
    return ROLES.get(name, name)


def sentence(claim: Mapping[str, Any]) -> str:
    """The result in one sentence: both accuracies, n, the difference with its interval, and the margin."""
    return (
        f"student {percent(claim['student'])} vs teacher {percent(claim['teacher'])} on {count(claim['n'])} held-out "
        f"questions; difference {points(claim['difference'])}{NBSP}points, {level(claim['level'])} interval "
        f"{points_range(claim['ci_low'], claim['ci_high'])}; margin {plain_points(claim['margin'])}{NBSP}points"
    )


def verdict(claim: Mapping[str, Any]) -> str:
    """The verdict as it may be quoted: with every control that is missing."""
    return f"{claim['verdict']}, without: {lacking(claim)}" if claim["missing_controls"] else claim["verdict"]


def lacking(claim: Mapping[str, Any]) -> str:
    """The controls that are missing, in words."""
    return "; ".join(claim["missing_controls"])


def itself(ceiling: Mapping[str, Any] | None) -> str:
    """How far the teacher agrees with itself, the ceiling of any student's agreement; or a dash and why it is not known."""
    if ceiling is None:
        return f"{DASH} the teacher was not asked again"
    between = percent_range(ceiling["low"], ceiling["high"])
    return f"{percent(ceiling['agreement'])} ({between}; n {count(ceiling['n'])})"


def artefact(checkpoint: Mapping[str, Any] | None) -> str:
    """Whether what is served answers as what was trained, or a dash and why it is not known."""
    if checkpoint is None:
        return f"{DASH} not compared"
    apart = checkpoint["largest_nats"]
    most = f"{DASH} no label revealed by both" if apart is None else f"{number(apart, 2)}{NBSP}nats"
    return (
        f"{count(checkpoint['decisions_differ'])} of {count(checkpoint['n'])} decisions differ (at most "
        f"{percent(checkpoint['differ_high'])}); largest difference of a label's log-probability {most}"
    )


def p_value(value: float) -> str:
    """`0.031`, `1`, or `<0.0001`."""
    return "<0.0001" if value < 0.0001 else number(value, 2)


def price(cost: Mapping[str, Any]) -> str:
    """The price in one phrase, honest when the student is not the cheaper one."""
    if None in (cost["cpu_ratio"], cost["student_cpu_s_per_query"], cost["teacher_cpu_s_per_query"]):
        student, teacher = (cpu_seconds(cost[f"{role}_cpu_s_per_query"]) for role in ("student", "teacher"))
        return f"CPU-seconds per query: student {student}, teacher {teacher}"
    pair = (
        f"{number(cost['student_cpu_s_per_query'])} against {number(cost['teacher_cpu_s_per_query'])} CPU-seconds "
        "per query"
    )
    if is_alike(cost["cpu_ratio"]):
        return f"about the same CPU-seconds per query ({pair})"
    if cost["cpu_ratio"] > 1:
        return f"{number(cost['cpu_ratio'])} × fewer CPU-seconds per query ({pair})"
    return f"not cheaper: teacher over student is {number(cost['cpu_ratio'])} ({pair})"


def is_alike(ratio: float) -> bool:
    """Within 5 % of 1: a difference that another day would not show again."""
    return max(ratio, 1.0 / ratio) <= ALIKE if ratio > 0 else False


def cpu_seconds(value: float | None) -> str:
    """CPU-seconds per query, or a dash where the server is not ours."""
    return f"{DASH} not ours to measure" if value is None else number(value)


def break_even(cost: Mapping[str, Any]) -> str:
    """When the distillation has paid for itself, or a dash and why not."""
    if cost["break_even_queries"] is None:
        basis = visible(cost["break_even_basis"])
        return f"{DASH} break-even {basis}" if basis.startswith("not known") else f"{DASH} no break-even: {basis}"
    return f"pays for itself after {count(cost['break_even_queries'])} queries"


def gap(claim: Mapping[str, Any]) -> str:
    """The share of the gap between start and teacher that training closed, with its interval, or a dash and why not."""
    if claim["gap_recovered"] is None:
        return f"{DASH} not given: {visible(claim['gap_method'])}"
    text = percent(claim["gap_recovered"])
    if claim["gap_low"] is None or claim["gap_high"] is None:
        return f"{text} (interval {DASH} not given: {visible(claim['gap_method'])}; n {count(claim['n'])})"
    return f"{text} (interval {percent_range(claim['gap_low'], claim['gap_high'])})"


def accepted(risk: Mapping[str, str]) -> str:
    """Who took a risk that the terms do not cover, why, and for what."""
    return f"risk accepted by {risk['who']}: {risk['reason']} (for {risk['scope']})"


def standing(term: Mapping[str, Any]) -> str:
    """A verdict as printed: what the texts say, and that a person took the risk where one did."""
    return f"{term['verdict']}, risk accepted" if term["accepted_risks"] else term["verdict"]


def absent(system: Mapping[str, Any], field: str) -> str:
    """Why a number is missing for a system, short enough for a table cell."""
    if system["role"] == "teacher" and field in ("agreement", "kl_nats", "difference"):
        return "is the reference"
    if system["role"] in ("majority", "bag-of-words") and field in ("kl_nats", "ece", "plain_accuracy"):
        return "no model answer"
    if field == "ece_recalibrated":
        return (
            f"not recalibrated: {visible(system['recalibration'])}" if system["recalibration"] else "not recalibrated"
        )
    return "not measured"


def _signed(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)
