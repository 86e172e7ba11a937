"""The teacher's own answers, scored by every system of a proof that scores text which is sent."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tutelage.config import TeacherTable
from tutelage.errors import ConfigError
from tutelage.models.exchange import Terms
from tutelage.models.http import HttpModel
from tutelage.models.prompt_ids import PromptIds
from tutelage.models.questions import ask_all
from tutelage.models.scores import Ids, ScoresDialect, request_of
from tutelage.models.teachers import api_of
from tutelage.pipeline.asking_systems import Asker, Row
from tutelage.pipeline.gate import teacher_name
from tutelage.pipeline.naming import named
from tutelage.pipeline.serving import serve_teacher
from tutelage.pipeline.session import asking
from tutelage.proof_config import ProofConfig, ProofSystemTable, TeacherTextTable
from tutelage.prove.teacher_text import Pair, Reading, Texts, compare, own_reading, reading, require_one_tokenizer
from tutelage.records import Exchange, Question, Role

REFUSED, CALLS, REASONS, EMPTY, NO_TOKENS, OTHER_TOKENS, UNSCORED = (
    "the teacher refused", "calls of a tool", "with reasoning before the answer", "empty", "that become no tokens",
    "whose tokens are not the text", "not scored by teacher and student (too long, or refused)",
)  # fmt: skip


class OnText(NamedTuple):
    """What came of it: the texts as they are compared, and which exchange scores which item's text."""

    texts: Texts
    rows: tuple[Row, ...]


def tells_its_own(table: TeacherTable) -> bool:
    """Whether a system's answers come with their own log-probabilities."""
    return table.signal == "top-logprobs"


def readers(config: ProofConfig) -> dict[str, PromptIds]:
    """Tokenizer and template of every system that is to score text, by name; the teacher needs none where its answers come with
    their log-probabilities. Raises `ConfigError` when teacher or student cannot score, when nats a token are asked for with two
    vocabularies, or when a field of the request may change the prompt; `ResourceError` as `PromptIds`."""
    if config.teacher_text is None:
        return {}
    _require_known_prompt(config)
    found = {}
    for name, table in config.systems.items():
        if name == "teacher" and tells_its_own(table):
            continue
        why = _cannot_score(name, table)
        if not why:
            with named(f"systems.{name}"):
                found[name] = PromptIds(Path(table.path or table.tokenizer or ""))
        elif name in ("teacher", "student"):
            raise ConfigError(f"systems.{name} cannot score the teacher's text: {why[0]}", fix=why[1])
    if (
        config.teacher_text.per == "token"
        and "teacher" in found
        and found["teacher"].spelled != found["student"].spelled
    ):
        raise ConfigError(
            "teacher and student have two vocabularies: nats a token cannot be compared",
            fix='set teacher_text.per = "byte"; the margin is then in bits a byte',
        )
    return found


def _require_known_prompt(config: ProofConfig) -> None:
    """A chat template may read these fields, and the ids that are scored are made without them."""
    for key in ("extra", "reasoning_effort"):
        if value := getattr(config.sampling, key):
            raise ConfigError(
                f"sampling.{key} = {value!r:.80} may change the prompt that a model reads, and [teacher_text] scores without it",
                fix=f"leave out sampling.{key}, or [teacher_text] and its claim",
            )


def _cannot_score(name: str, table: ProofSystemTable) -> tuple[str, str] | None:
    """Why, and what to do; None when it can, as far as anybody can tell before asking."""
    own = f'systems.{name}.signal = "top-logprobs" takes them from its answers, or ' if name == "teacher" else ""
    if table.resource is not None or table.served_as is not None or (table.path and Path(table.path).is_file()):
        return "llama.cpp scores no text that is sent", f"{own}give a Hugging Face folder (path)"
    if table.path is not None:
        return None
    if (table.api or api_of(table.url or "")) != "openai":
        return "only the OpenAI completions API scores text", f"{own}serve it by vLLM or `tutelage serve`"
    if table.tokenizer is None:
        return (
            "token ids are sent, and its tokenizer is not known",
            f"{own}give systems.{name}.tokenizer, a folder with tokenizer and chat template",
        )
    return None


def ask_texts(
    asker: Asker,
    config: ProofConfig,
    found: Mapping[str, PromptIds],
    questions: Sequence[Question],
    taught: Sequence[Exchange | None],
) -> OnText:
    """Every system of `found` scores what the teacher answered (`taught`). Resumes. Raises what `ask` raises, `SignalError` when
    an endpoint scores no text, and as `require_one_tokenizer`."""
    settings = config.teacher_text
    assert settings is not None
    reasons = [_reason(exchange) for exchange in taught]
    at = [item for item, reason in enumerate(reasons) if not reason]
    readings: dict[str, list[Reading | None]] = {}
    rows: list[Row] = []
    if tells_its_own(config.systems["teacher"]):
        readings["teacher"] = [_own(exchange, config) for exchange in taught]
        reasons = [
            why or (OTHER_TOKENS if one is None else "") for why, one in zip(reasons, readings["teacher"], strict=True)
        ]
        at = [item for item, reason in enumerate(reasons) if not reason]
    for name, prompt_ids in found.items():
        table = config.systems[name]
        texts = [_ids(prompt_ids, questions[item], taught[item], config) for item in at]
        said = [(item, ids) for item, ids in zip(at, texts, strict=True) if ids is not None]
        if name in ("teacher", "student"):
            for item in set(at) - {item for item, _ in said}:
                reasons[item] = NO_TOKENS
        with named(f"systems.{name}"):
            scored = _score(asker, name, table, prompt_ids, settings, [ids for _, ids in said])
        read: list[Reading | None] = [None] * len(questions)
        for (item, (_, has_end)), (exchange, row) in zip(said, scored, strict=True):
            if exchange is not None:
                read[item] = reading(exchange.logprobs, has_end=has_end)
                rows.append({"prompt": questions[item].prompt_id, "system": f"{name} scores", **row})
        readings[name] = read
    return OnText(_texts(config, questions, taught, readings, reasons), tuple(rows))


def _reason(exchange: Exchange | None) -> str:
    """Why an answer is no text to be scored; empty when it is one."""
    if exchange is None:
        return REFUSED
    if exchange.tool_calls:
        return CALLS
    if exchange.reasoning:
        return REASONS
    return "" if exchange.answer else EMPTY


def _ended(exchange: Exchange, config: ProofConfig) -> bool:
    """By the model itself: a stop text of the request looks the same, so with one nobody can tell."""
    return exchange.finish_reason == "stop" and not config.sampling.stop


def _own(exchange: Exchange | None, config: ProofConfig) -> Reading | None:
    if exchange is None or _reason(exchange):
        return None
    return own_reading(exchange.logprobs, exchange.answer, ended=_ended(exchange, config))


def _ids(
    prompt_ids: PromptIds, question: Question, exchange: Exchange | None, config: ProofConfig
) -> tuple[Ids, bool] | None:
    """Prompt, and answer with its end; whether the end is there. None for an answer that becomes no tokens."""
    assert exchange is not None
    answer = prompt_ids.answer(exchange.answer)
    if not answer:
        return None
    end = (prompt_ids.end,) if prompt_ids.end is not None and _ended(exchange, config) else ()
    given = prompt_ids.given(question.messages, question.tools)
    return Ids(given, (*answer, *end)), bool(end)


def _score(
    asker: Asker,
    name: str,
    table: ProofSystemTable,
    prompt_ids: PromptIds,
    settings: TeacherTextTable,
    texts: Sequence[tuple[Ids, bool]],
) -> list[tuple[Exchange | None, Row]]:
    """An exchange a text, None where it was refused."""
    run = asker.run
    with serve_teacher(table, run.folder) as served:
        requests = [request_of(served.endpoint, ids, table.scores, settings.top, asker.purpose) for ids, _ in texts]
        how = asking(run, served, table, Terms(asker.standing, Role.EVALUATION), asker.budget, asker.seed, "1")
        if not all(run.store.has(one.digest) for one in requests):
            how.model = HttpModel(served.up(), ScoresDialect(prompt_ids.spelling), table.concurrency)
        ask_all(how, requests, table.concurrency, f"scoring the teacher's text: {name}, {teacher_name(table)}")
    found: list[tuple[Exchange | None, Row]] = []
    for request in requests:
        there = run.store.has(request.digest)
        row = {"address": request.digest, "exchange": run.store.digest_at(request.digest)} if there else {}
        found.append((run.store.get(request.digest) if there else None, row))
    return found


def _texts(
    config: ProofConfig,
    questions: Sequence[Question],
    taught: Sequence[Exchange | None],
    readings: Mapping[str, Sequence[Reading | None]],
    reasons: Sequence[str],
) -> Texts:
    assert config.teacher_text is not None
    left_out, pairs = Counter[str](), dict[str, list[Pair | None]]()
    for name, read in readings.items():
        if name != "teacher":
            pairs[name] = [
                _pair(config, *three) for three in zip(readings["teacher"], read, taught, strict=True)
            ]  # fmt: skip
    for item, reason in enumerate(reasons):
        if reason or pairs["student"][item] is None:
            left_out[reason or UNSCORED] += 1
    sessions = [question.group for question in questions]
    found = Texts(
        per=config.teacher_text.per,
        what=what_it_is(config, has_schema=any(question.schema for question in questions)),
        pairs={name: tuple(values) for name, values in pairs.items()},
        session_N=np.array(sessions) if all(sessions) else None,
        left_out=dict(left_out),
    )
    require_one_tokenizer(found)
    return found


def _pair(
    config: ProofConfig, teacher: Reading | None, other: Reading | None, exchange: Exchange | None
) -> Pair | None:
    if teacher is None or other is None or exchange is None:
        return None
    assert config.teacher_text is not None
    return compare(teacher, other, len(exchange.answer.encode("utf-8", "surrogatepass")), config.teacher_text.per)


def what_it_is(config: ProofConfig, *, has_schema: bool = False) -> str:
    """What the teacher's log-probability less the student's is, by how the text was drawn. `has_schema`: of any item."""
    sampling = config.sampling
    bent = _bent(config, has_schema)
    if sampling.temperature == 1.0 and not bent:
        return (
            "an estimate of KL(teacher‖student): the text was drawn at temperature 1, over which the difference of a whole "
            "answer's log-probabilities is unbiased"
        )
    if sampling.temperature == 0.0:
        return (
            "not a KL divergence: the text is the teacher's likeliest (temperature 0), and the difference says by how much less "
            "the student expects it"
        )
    drawn = (
        "the endpoint's own temperature" if sampling.temperature is None else f"temperature {sampling.temperature:g}"
    )
    how = ", ".join((drawn, *bent))
    return f"not a KL divergence: the text was drawn at {how}, not surely from the teacher's whole distribution at temperature 1"


def _bent(config: ProofConfig, has_schema: bool) -> list[str]:
    """What beside the temperature may draw answers from another distribution than the model's own."""
    sampling = config.sampling
    found = {
        "the endpoint's own top_p": sampling.top_p is None,
        f"top_p {sampling.top_p or 1.0:g}": sampling.top_p not in (None, 1.0),
        f"presence penalty {sampling.presence_penalty or 0.0:g}": bool(sampling.presence_penalty),
        f"frequency penalty {sampling.frequency_penalty or 0.0:g}": bool(sampling.frequency_penalty),
        "stop texts": bool(sampling.stop),
        "fields of the endpoint's own": bool(sampling.extra),
        "a schema": has_schema,
    }
    return [words for words, there in found.items() if there]
