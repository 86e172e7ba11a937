"""What it took to make a student, out of the records of the runs that trained it and asked for its answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.canon import digest_file
from tutelage.errors import TutelageError
from tutelage.jsonl import read_lines
from tutelage.pipeline.serving import weights_in
from tutelage.pipeline.talks import digest_of_answers
from tutelage.prove.paying import CPU, MONEY, queries_to_pay, unit_of
from tutelage.records import NUSD_PER_USD

LOG = Path("ledger") / "log.jsonl"
EARLIER = "the run was recorded by an earlier version, which did not measure it"


class Made(NamedTuple):
    """CPU-seconds and dollars once, each None with the reason in `no_cpu`, `no_usd`; joules of training where the machine told;
    `counted` says what is in the CPU-seconds."""

    cpu_s: float | None
    no_cpu: str
    usd: float | None
    no_usd: str
    energy_j: float | None
    counted: str


def made_in(student: str | None, seen: Sequence[str]) -> Made:
    """Of the student in the folder `student` (None: served elsewhere), whose run folder is around it; `seen` are run folders that
    may hold the answers it learnt from."""
    run = Path(student or "").parent
    if student is None or not (run / LOG).exists():
        why = "the student is in no run folder" if student else "the student is served elsewhere"
        return Made(None, why, None, why, None, "")
    stages = _stages(run)
    if not _is_of(stages, digest_file(weights_in(Path(student)))):
        why = f"the run folder {run.name} did not ship these weights"
        return Made(None, why, None, why, None, "")
    if "collect" in stages:
        return _of(stages, [stages["collect"]])
    if not stages["data"]["config"].get("collected"):
        made = _of(stages, [])
        return made._replace(
            usd=None, no_usd="the conversations came as a file, whose price nobody recorded",
            counted=made.counted and f"{made.counted} (the conversations came as a file and count as free)",
        )  # fmt: skip
    answers = _asked_in(seen, stages["data"]["inputs"]["file"])
    if answers is None:
        why = "the folder of `tutelage collect` that the answers came from is not named (items.seen)"
        return _of(stages, [])._replace(cpu_s=None, no_cpu=why, usd=None, no_usd=why)
    return _of(stages, [answers])


def cost_rows(made: Made, teacher: dict[str, Any], student: dict[str, Any]) -> dict[str, Any]:
    """The part of `evidence.json`'s `cost` that compares the two: ratio, unit, and when the student has paid for itself."""
    unit = unit_of(teacher, student)
    found = {
        "teacher_over_student": teacher[unit.key] / student[unit.key] if unit else None,
        "basis": unit.words if unit else "neither price nor CPU-seconds of both are known",
        "price": unit.key if unit else "",
        "made_cpu_s": made.cpu_s, "made_usd": made.usd, "made_energy_j": made.energy_j, "made_counted": made.counted,
        "made_no_cpu": made.no_cpu, "made_no_usd": made.no_usd,
    }  # fmt: skip
    if teacher[MONEY.key]:
        each = teacher[MONEY.key] / 1000, student[MONEY.key] / 1000
        return found | _even(made.usd, *each, made.no_usd, "money for answers and scores of others alone", MONEY.words)
    each = teacher[CPU.key], student[CPU.key]
    of = "teacher" if each[0] is None else "student" if each[1] is None else ""
    why = f"CPU-seconds of the {of} are not known, and it costs no money" if of else made.no_cpu
    return found | _even(
        made.cpu_s, *each, why, f"CPU-seconds: {made.counted} against what each query saves", CPU.words
    )


def _even(
    once: float | None, teacher: float | None, student: float | None, unknown: str, basis: str, unit: str
) -> dict[str, Any]:
    queries = queries_to_pay(once, teacher, student)
    if queries is None:
        basis = (
            f"not known: {unknown}"
            if unknown
            else f"a query of the student costs no less than the teacher's, in {unit}"
        )
    return {"break_even_queries": queries, "break_even_basis": basis}


def _of(stages: dict[str, dict[str, Any]], answers: list[dict[str, Any]]) -> Made:
    """The sums over what goes before training, training and the answers; a scorer that is paid has its money in training."""
    rests_on = stages["train"]["inputs"]  # what was made for an earlier method in the same folder is no part of it
    training = [stages[name] for name in ("signals", "rejected", "rollouts") if name in stages and name in rests_on]
    training.append(stages["train"])
    words = "collecting and training" if answers else "training"
    # Answers of others' servers have no CPU-seconds of ours: `tutelage collect` then leaves the key out.
    cpu_ms = [one["facts"].get("cpu_ms") for one in training] + [one["facts"].get("cpu_ms", 0) for one in answers]
    own = [one for one in answers if "cpu_ms" not in one["facts"] and one["facts"].get("teacher_weights")]
    energy_mj = [one["facts"].get("energy_mj") for one in training]
    known = None if None in cpu_ms or own else sum(cpu_ms) / 1000
    nusd = sum(one["facts"].get("cost_nusd", one["facts"].get("settled_nusd", 0)) for one in answers)
    nusd += sum(one["facts"].get("settled_nusd", 0) for one in training)
    return Made(
        known, "" if known is not None else EARLIER, nusd / NUSD_PER_USD, "",
        None if None in energy_mj else sum(energy_mj) / 1000, words if known is not None else "",
    )  # fmt: skip


def _stages(run: Path) -> dict[str, dict[str, Any]]:
    """The latest statement of each stage."""
    return {line["stage"]: line for line in read_lines(run / LOG) if line["kind"] == "statement"}


def _is_of(stages: dict[str, dict[str, Any]], weights: str) -> bool:
    """Whether the run trained, and shipped weights of this digest."""
    return "train" in stages and "data" in stages and weights in stages.get("ship", {}).get("outputs", {}).values()


def _asked_in(seen: Sequence[str], digest: str) -> dict[str, Any] | None:
    """The collect stage of the folder whose answers have this digest."""
    for folder in map(Path, seen):
        try:
            if (folder / LOG).exists() and digest_of_answers(folder) == digest:
                return _stages(folder).get("collect")
        except TutelageError:  # a run folder of another kind
            continue
    return None
