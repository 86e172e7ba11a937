"""The judges of a proof: every pair of answers in both orders, or every answer by itself twice, and what they called."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tutelage.canon import digest_of
from tutelage.config import SamplingTable, TeacherTable
from tutelage.pipeline.asking_systems import Asker, Said, Turn, ask_open
from tutelage.pipeline.gate import teacher_name
from tutelage.pipeline.naming import named
from tutelage.proof_config import JudgeTable
from tutelage.prove.answers import Scored
from tutelage.prove.judges.calls import (
    Call,
    Item,
    Items,
    JudgeCalls,
    call_of_scores,
    gold_of,
    read_pair,
)
from tutelage.prove.judges.calls import Said as Heard
from tutelage.prove.judges.family import Kin, families_of, self_preference
from tutelage.prove.judges.prompts import (
    Criterion,
    JudgePrompt,
    PairPrompts,
    is_same_answer,
    pair_prompts,
    question_text,
    rubric_prompt,
)
from tutelage.prove.judges.reading import read_scores
from tutelage.prove.shown import SYSTEMS, with_calls
from tutelage.prove.tasks.base import Answer
from tutelage.records import Exchange, Question, Role

UNANSWERED = "(no answer)"


class Pair(NamedTuple):
    """What a judge sees of an item: the question, both answers with the tools they call, the gold where there is one."""

    at: int  # the item's place in the proof
    question: Question
    student: str
    teacher: str
    gold: str


def pairs_of(
    questions: Sequence[Question], student: Sequence[Answer | None], teacher: Sequence[Answer | None], gold: Sequence[str | None]
) -> list[Pair]:  # fmt: skip
    """What the student refused is shown as a question without an answer; what the teacher refused says nothing of the student,
    and is left out."""
    return [
        Pair(at, question, _words(mine), _words(theirs), right or "")
        for at, (question, mine, theirs, right) in enumerate(zip(questions, student, teacher, gold, strict=True))
        if theirs is not None
    ]


def _words(answer: Answer | None) -> str:
    said = "" if answer is None else with_calls(answer.text, answer.tool_calls)
    return said if said.strip() else UNANSWERED


def items_of(
    pairs: Sequence[Pair], gold: tuple[Scored, Scored] | None, preferred: Mapping[str, float] | None = None
) -> Items:
    """What the figures of a judge need of the items. `gold`: the student's and the teacher's scores where there is gold;
    `preferred`: how far people prefer the student's answer, by item, 0 to 1: it goes before the scores."""

    def call(pair: Pair) -> Call | None:
        liked = (preferred or {}).get(pair.question.prompt_id)
        if liked is not None:
            return gold_of(liked, 1.0 - liked)
        return gold_of(gold[0].scores[pair.at].value, gold[1].scores[pair.at].value) if gold and pair.gold else None

    return Items.of(
        [
            Item(
                pair.question.prompt_id,
                len(pair.student),
                len(pair.teacher),
                is_same_answer(pair.student, pair.teacher),
                pair.question.group,
                call(pair),
            )
            for pair in pairs
        ]
    )


def ask_judge(asker: Asker, name: str, table: JudgeTable, pairs: Sequence[Pair]) -> tuple[JudgeCalls, Said]:
    """One judge on all pairs; two equal answers are a tie that it is not asked for. Raises what `ask_open` raises."""
    criteria = [Criterion(one, meaning) for one, meaning in table.criteria.items()]
    ask = _pairwise if table.form == "pairwise" else _rubric
    calls, said = ask(asker, name, table, pairs, criteria)
    return JudgeCalls.of(name, calls, is_swapped=table.form == "pairwise"), said


def _pairwise(
    asker: Asker, name: str, table: JudgeTable, pairs: Sequence[Pair], criteria: Sequence[Criterion]
) -> tuple[list[tuple[Call, Call]], Said]:
    built: dict[int, PairPrompts] = {
        at: pair_prompts(
            question_text(pair.question.messages, pair.question.tools), pair.student, pair.teacher,
            reference=_reference(table, pair), criteria=criteria, salt=asker.purpose,
        )
        for at, pair in enumerate(pairs)
        if not is_same_answer(pair.student, pair.teacher)
    }  # fmt: skip
    prompts = [prompt for both in built.values() for prompt in both]
    said = _asked(asker, name, table, prompts, [pairs[at].question.prompt_id for at in built for _ in range(2)])
    heard = [_heard(exchange) for exchange in said.exchanges]
    read = {at: read_pair(both, heard[2 * n], heard[2 * n + 1]) for n, (at, both) in enumerate(built.items())}
    return [read.get(at, (Call.TIE, Call.TIE)) for at in range(len(pairs))], said


def _rubric(
    asker: Asker, name: str, table: JudgeTable, pairs: Sequence[Pair], criteria: Sequence[Criterion]
) -> tuple[list[tuple[Call, Call]], Said]:
    differing = [at for at, pair in enumerate(pairs) if not is_same_answer(pair.student, pair.teacher)]
    prompts = [
        rubric_prompt(
            question_text(pairs[at].question.messages, pairs[at].question.tools), answer, criteria, table.scale,
            reference=_reference(table, pairs[at]), salt=asker.purpose,
        )
        for at in differing
        for answer in (pairs[at].student, pairs[at].teacher)
    ]  # fmt: skip
    items = [pairs[at].question.prompt_id for at in differing for _ in range(2)]
    said = _asked(
        asker, name, table, [*prompts, *prompts], [*items, *items], [*[0] * len(prompts), *[1] * len(prompts)]
    )
    marks = [
        None if exchange is None else read_scores(exchange.answer, prompt.nonce, criteria, table.scale, exchange.finish_reason)
        for exchange, prompt in zip(said.exchanges, [*prompts, *prompts], strict=True)
    ]  # fmt: skip
    calls = {}
    for n, at in enumerate(differing):
        rounds = []
        for first in (2 * n, len(prompts) + 2 * n):
            student, teacher = marks[first], marks[first + 1]
            unread = student is None or teacher is None
            rounds.append(Call.UNREADABLE if unread else call_of_scores(student, teacher))
        calls[at] = (rounds[0], rounds[1])
    return [calls.get(at, (Call.TIE, Call.TIE)) for at in range(len(pairs))], said


def _asked(
    asker: Asker, name: str, table: JudgeTable, prompts: Sequence[JudgePrompt], items: Sequence[str],
    draws: Sequence[int] | None = None,
) -> Said:  # fmt: skip
    """`items` says what each prompt is about."""
    questions = [
        Question(digest_of([turn.to_json() for turn in one.messages]), one.messages, f"judge {name}", "", "own")
        for one in prompts
    ]
    sampling = SamplingTable(max_tokens=table.max_tokens, temperature=0.0)
    turn = Turn(f"judge {name}", questions, draws, items)
    with named(f"judges.{name}"):
        return ask_open(asker, table, [turn], sampling, Role.JUDGE)[0]


def _heard(exchange: Exchange | None) -> Heard | None:
    return None if exchange is None else Heard(exchange.answer, exchange.finish_reason)


def _reference(table: JudgeTable, pair: Pair) -> str:
    return pair.gold if table.shows_gold else ""


def judge_label(name: str, table: JudgeTable) -> str:
    """A judge by the name that the run file gives and the model it is."""
    return f"{name}: {teacher_name(table)}"


def kin_of(judge: JudgeTable, systems: Mapping[str, TeacherTable]) -> Kin:
    """Of what family a judge is, and in words whether it may favour teacher or student as its own."""
    own = _model_name(judge)
    others = {role: _model_name(systems[role]) for role in SYSTEMS}
    itself = {role for role in SYSTEMS if _is_one_model(judge, systems[role])}
    return Kin(families_of(own), self_preference(own, others, itself))


def _model_name(table: TeacherTable) -> str:
    """What tells a family: the name of the model, of the resource, or of the folder. What the run file calls the table does not,
    nor does the host: one host serves models of many families."""
    return table.resource or (Path(table.path).resolve().name if table.path else table.model)


def _is_one_model(one: TeacherTable, other: TeacherTable) -> bool:
    """Folders may share a name, and a model is the same behind another host."""
    if one.path or other.path:
        return bool(one.path and other.path and Path(one.path).resolve() == Path(other.path).resolve())
    return _model_name(one).strip().lower() == _model_name(other).strip().lower()
