"""What asking a proof's questions takes, before one is asked: calls, tokens and money, roughly."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from tutelage.config import TeacherTable
from tutelage.models.prices import PriceList
from tutelage.pipeline.gate import teacher_name
from tutelage.pipeline.naming import named
from tutelage.pipeline.serving import remote
from tutelage.pipeline.supervision import prices_of
from tutelage.proof_config import ProofConfig
from tutelage.records import Question, Usage

BYTES_A_TOKEN = 4  # of prose, roughly
JUDGE_TOKENS = 250  # of what a judge is told beside question and answers


class Expected(NamedTuple):
    """Of one model. Tokens are of all its calls, answers half as long as they may be (`most_answer_tokens`: as long as they may);
    money in nano-USD, and where the price is from."""

    name: str
    model: str
    calls: int
    prompt_tokens: int
    answer_tokens: int
    most_answer_tokens: int
    nusd: int
    price_source: str


def expected_calls(
    config: ProofConfig, questions: Sequence[Question], again: int, scoring: Collection[str]
) -> list[Expected]:
    """Every system and judge; the teacher answers `again` of the questions twice, and the systems of `scoring` read its answers
    besides. Raises `ConfigError` where nobody knows what a model costs."""
    count = len(questions)
    asked = sum(len(turn.content.encode()) for question in questions for turn in question.messages)
    asked += sum(len(question.tools.encode()) + len(question.schema.encode()) for question in questions)
    asked_tokens, said_tokens = asked // BYTES_A_TOKEN, config.sampling.max_tokens // 2 * count
    found = []
    for name, table in config.systems.items():
        calls = count + (again if name == "teacher" else 0)
        reads = name in scoring
        prompts = asked_tokens * calls // count + (asked_tokens + said_tokens if reads else 0)
        answers = calls * config.sampling.max_tokens + (count if reads else 0)
        with named(f"systems.{name}"):
            found.append(_expected(name, table, calls + (count if reads else 0), prompts, answers))
    for name, judge in config.judges.items():  # both answers in both orders, or each answer by itself twice
        times, seen = (2, 2) if judge.form == "pairwise" else (4, 1)
        prompts = times * (asked_tokens + seen * said_tokens + JUDGE_TOKENS * count)
        with named(f"judges.{name}"):
            found.append(_expected(f"judge {name}", judge, times * count, prompts, times * count * judge.max_tokens))
    return found


def _expected(name: str, table: TeacherTable, calls: int, prompt_tokens: int, most_answer_tokens: int) -> Expected:
    prices: PriceList = prices_of(table, None if table.url is None else remote(table))
    answers = most_answer_tokens // 2
    each = prices.of(Usage(round(prompt_tokens / calls), 0, round(answers / calls))).cost_nusd
    return Expected(
        name, teacher_name(table), calls, prompt_tokens, answers, most_answer_tokens, each * calls, prices.source
    )
