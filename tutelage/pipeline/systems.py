"""The models of a label proof, each asked about the held-out prompts through its endpoint, in the claim's own namespace."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.canon import decimals, digest_of
from tutelage.jsonl import write_whole
from tutelage.meter import Meter
from tutelage.models.questions import label_params
from tutelage.pipeline.controls import PLAIN, PLAIN_STUDENT
from tutelage.pipeline.gate import Gate, teacher_name
from tutelage.pipeline.learning import BEFORE, read_selection
from tutelage.pipeline.run import Done
from tutelage.pipeline.serving import STUDENT_CONCURRENCY, serve_student, serve_teacher
from tutelage.pipeline.session import Session
from tutelage.prompts import Prompts
from tutelage.prove.controls import bag_of_words, majority
from tutelage.prove.observe import Answers, Questions, fix_offsets, observe
from tutelage.prove.results import Recalibration, System, recalibration, system
from tutelage.records import UNATS_PER_NAT, Claim, Prompt, Role
from tutelage.tasks import read_answer, student_messages, teacher_messages


class Kind(NamedTuple):
    """A student of some kind: where its folder lies in the run, and how it is called."""

    folder: str
    role: str
    label: str
    asking: str


SHIPPED = Kind("student", "student", "the shipped student", "asking the student")
PRUNED = Kind(BEFORE, "before", "the pruned model before training", "asking the pruned model")
PLAINLY = Kind(
    PLAIN_STUDENT, PLAIN, "trained on the teacher's words alone, as many steps", "asking the plainly trained student"
)


class Asked(NamedTuple):
    """A system that answered through its endpoint, which exchange answers which prompt, and its decision rule."""

    system: System
    answers: Answers
    rows: tuple[dict[str, str], ...]
    offsets_L: NDArray[np.float64]


class Again(NamedTuple):
    """The teacher's second answers: decisions on the held-out items `at`, and which exchange answers which prompt."""

    decided_N: NDArray[np.int64]
    at: NDArray[np.int64]
    rows: tuple[dict[str, str], ...]
    how: str


def some_of(count: int, wanted: int, seed: int) -> NDArray[np.int64]:
    """Positions of `wanted` of `count` items, or of all, drawn by the run's seed."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:wanted])


def ask_teacher(arc: Session, gate: Gate, claim: Claim, prompts: Prompts, meters: Path) -> tuple[Asked, Again | None]:
    """Once about every held-out prompt, and, as the run file says, about some of them again. A second time is draw 1, with
    another seed where the server is ours; at temperature 0 it shows what the server's own arithmetic and order do."""
    config = arc.config
    params = label_params(config.teacher, config.task)
    way = digest_of(decimals([config.task.model_dump(mode="json"), config.teacher.model_dump(mode="json")]))
    way = way.removeprefix("sha256:")[:16]
    again_at = some_of(len(prompts.held_out), config.controls.again, config.run.seed)
    ours = config.teacher.url is None
    again_params = {**params, "seed": config.run.seed + 1} if ours else params
    said: list[Answers] = []
    meter = Meter(meters / f"teacher-{way}.json")
    with serve_teacher(config.teacher, arc.folder) as served:
        for draw, items, sent, what in (
            (0, prompts.held_out, params, "asking the teacher, held out"),
            (1, [prompts.held_out[at] for at in again_at], again_params, "asking the teacher again"),
        ):
            if not items:
                continue
            how = Questions(
                teacher_messages, sent, config.teacher.signal, config.teacher.concurrency, served.cpu_s, draw
            )
            asking = arc.asking(served, gate, Role.EVALUATION)
            tally = meter if draw == 0 else Meter(meters / f"teacher-again-{way}.json")
            said.append(observe(asking, config.task, items, how, claim.digest, what, tally))
    keep_tokens(meters, "teacher", said[0])
    offsets_L = _teachers_offsets(arc)
    label = f"{teacher_name(config.teacher)}, {len(config.task.examples)} examples in its prompt"
    one = system("teacher", label, said[0], offsets_L, meter.cpu_s_each())
    again = None
    if len(said) == 2:
        second = system("teacher", label, said[1], offsets_L, None)
        how_drawn = f"draw 1, greedy{', another seed' if ours else ''}"
        again = Again(second.decided_N, again_at, said[1].rows, how_drawn)
    return Asked(one, said[0], said[0].rows, offsets_L), again


def ask_student(
    arc: Session, gate: Gate, claim: Claim, prompts: Prompts, which: Kind, made: Done, meters: Path
) -> Asked:
    """Validation prompts fix the decision rule and the temperature; held-out prompts are then decided by it. `made`: the
    stage that made the folder."""
    config = arc.config
    weights = next(
        entry.outputs[f"{which.folder}/model.safetensors"]
        for entry in reversed(list(arc.run.log.statements()))
        if f"{which.folder}/model.safetensors" in entry.outputs
    )
    params = {"max_tokens": 1, "temperature": "0", "logprobs": True, "top_logprobs": 20}
    name = f"{config.run.name}-{which.role}"
    with serve_student(
        arc.folder / which.folder, name, made.outputs_digest, weights, arc.folder / "logs" / f"{which.role}.log"
    ) as served:
        how = Questions(student_messages, params, "top-logprobs", STUDENT_CONCURRENCY, served.cpu_s)
        meter = Meter(meters / f"{which.role}-{made.outputs_digest.removeprefix('sha256:')[:16]}.json")
        said = {}
        for kind, items in (("validation", prompts.validation), ("held out", prompts.held_out)):
            asking = arc.asking(served, gate, Role.EVALUATION)
            said[kind] = observe(asking, config.task, items, how, claim.digest, f"{which.asking}, {kind}", meter)
    if which.role == "student":
        keep_tokens(meters, "student", said["held out"])
    offsets_L = fix_offsets(config.task, said["validation"].logp_NL)
    answers = said["held out"]
    # The pruned model says next to nothing; counting that as wrong would flatter the gap, so chance is left to it.
    one = system(
        which.role, which.label, answers, offsets_L, meter.cpu_s_each(), unread_is_wrong=which.role != "before",
        recalibration=_recalibrated(arc, prompts.validation, said["validation"].logp_NL + offsets_L),
    )  # fmt: skip
    return Asked(one, answers, (*said["validation"].rows, *answers.rows), offsets_L)


def cheap_controls(arc: Session, prompts: Prompts) -> list[System]:
    """The majority class and the bag of words, from the same answers that the student learnt from."""
    config = arc.config
    texts = {prompt.prompt_id: prompt.text for prompt in (*prompts.train, *prompts.validation)}
    texts_of, targets = {}, {}
    for kind in ("train", "validation"):
        taught = _taught(arc, kind)
        texts_of[kind] = [texts[prompt] for prompt in taught]
        targets[kind] = np.array(list(taught.values()))
    held = [prompt.text for prompt in prompts.held_out]
    shares_L = np.array(config.task.declared_shares) if config.task.decision == "balanced" else None
    words = bag_of_words(
        texts_of["train"],
        _softmax(targets["train"]),
        texts_of["validation"],
        _softmax(targets["validation"]),
        held,
        shares_L,
    )
    return [majority(targets["train"].argmax(-1), len(config.task.labels), len(held)), words]


def _taught(arc: Session, kind: str) -> dict[str, NDArray[np.float64]]:
    """The teacher's label log-probabilities with its offsets, by prompt, of the selected answers."""
    config, store, offsets_L = arc.config, arc.run.store, _teachers_offsets(arc)
    return {
        row["prompt"]: np.array(read_answer(config.task, store.get(row["address"]), config.teacher.signal).logp_L)
        + offsets_L
        for row in read_selection(arc.folder)[kind]
    }


def _recalibrated(arc: Session, validation: Sequence[Prompt], logp_NL: NDArray[np.float64]) -> Recalibration:
    taught = _taught(arc, "validation")
    at = [place for place, prompt in enumerate(validation) if prompt.prompt_id in taught]
    return recalibration(logp_NL[at], np.array([taught[validation[place].prompt_id].argmax() for place in at]))


def _teachers_offsets(arc: Session) -> NDArray[np.float64]:
    decision = json.loads((arc.folder / "curate" / "decision.json").read_bytes())
    return np.array(decision["offsets_unats"]) / UNATS_PER_NAT


def _softmax(logits_NL: NDArray[np.float64]) -> NDArray[np.float64]:
    exponent = np.exp(logits_NL - logits_NL.max(-1, keepdims=True))
    return exponent / exponent.sum(-1, keepdims=True)


def keep_tokens(meters: Path, name: str, answers: Answers) -> None:
    """For the price of a question, of which a resumed proof asks nobody again."""
    write_whole(meters / f"tokens-{name}.json", json.dumps(answers.tokens_per_question).encode())


def tokens_kept(meters: Path, name: str) -> float:
    return json.loads((meters / f"tokens-{name}.json").read_bytes())
