"""A proof as evaluation logs of Inspect (`inspect_ai`), one a system: what was asked, said, and what it is worth.

Format: version 2 of `EvalLog`, as `inspect_ai.log` documents it; `tutelage.wire.inspect_logs` reads it back. Two of its habits
are met on purpose. Inspect takes a message without an `id` for another one it has seen, so every message has its own; and
it takes `<think>` in an answer that is one text for reasoning, so an answer is a list of parts, in which nothing is looked for.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tutelage import __version__
from tutelage.canon import digest_of
from tutelage.records import Exchange, Message, Question, Usage
from tutelage.wire.inspect_logs import UNPARSED

GOLD_PPM, TEACHER_PPM = "gold_ppm", "teacher_ppm"  # columns of prove/scores.jsonl
AGREEMENT = "agreement"
_PPM = 1e6
_REFUSED = "the system refused this item, or gave no usable answer"
_STOPS = {"stop": "stop", "length": "max_tokens", "tool_calls": "tool_calls", "content_filter": "content_filter"}
_SAMPLING = ("max_tokens", "temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "reasoning_effort")


class ProofRecord(NamedTuple):
    """A finished proof as its run folder holds it.

    `items`: every question with its gold ('' without one); `scores`: the rows of prove/scores.jsonl, in the same order;
    `answers`: by system, then by `prompt_id`, without those that were refused.
    """

    evidence: Mapping[str, Any]
    sampling: Mapping[str, Any]
    items: Sequence[tuple[Question, str]]
    scores: Sequence[Mapping[str, Any]]
    answers: Mapping[str, Mapping[str, Exchange]]


def log_of(proof: ProofRecord, role: str) -> dict[str, Any]:
    """The log of one system, ready for JSON; the same proof gives the same log. Raises `KeyError` for an unknown role."""
    (system,) = [row for row in proof.evidence["systems"] if row["role"] == role] or [None]
    if system is None:
        raise KeyError(role)
    answers, run = proof.answers.get(role, {}), proof.evidence["run"]
    model = _model(answers, system["label"])
    identity = digest_of({"run": run["name"], "created": run["created_at"], "role": role}).removeprefix("sha256:")
    samples = [
        _sample(
            f"item{at}",
            question,
            gold,
            _counted(row["scores"].get(role, {}), question.prompt_id in proof.answers.get("teacher", {})),
            answers.get(question.prompt_id),
            model,
            run["task"],
        )
        for at, ((question, gold), row) in enumerate(zip(proof.items, proof.scores, strict=True), 1)
    ]
    times = sorted(answer.asked_at for answer in answers.values())
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "eval_id": identity[:22],
            "run_id": digest_of([run["name"], run["created_at"]]).removeprefix("sha256:")[:22],
            "created": run["created_at"],
            "task": run["name"],
            "task_id": identity[22:44],
            "task_version": 0,
            "task_attribs": {},
            "task_args": {"kind": run["task"]},
            "tags": ["tutelage", role],
            "dataset": _dataset(proof.items),
            "model": model,
            "model_generate_config": {key: proof.sampling[key] for key in _SAMPLING if proof.sampling.get(key) is not None},
            "model_args": {},
            "config": {"epochs": 1},
            "packages": {"tutelage": __version__},
            "metadata": _claimed(proof.evidence, system),
        },
        "plan": {"name": "plan", "steps": [{"solver": "generate", "params": {}}], "config": {}},
        "results": {
            "total_samples": len(samples),
            "completed_samples": len(answers),
            "scores": _results(proof, system, samples),
        },
        "stats": {
            "started_at": times[0] if times else "",
            "completed_at": times[-1] if times else "",
            "model_usage": {model: _usage(_sum([answer.usage for answer in answers.values()]))},
        },
        "samples": samples,
    }  # fmt: skip


def file_name(log: Mapping[str, Any]) -> str:
    """The name under which Inspect finds a log in a folder: time, task, system, id; nothing but plain characters."""
    about = log["eval"]
    task, role = (
        re.sub(r"[^A-Za-z0-9.-]+", "-", part).strip("-.")[:60] or "x" for part in (about["task"], about["tags"][1])
    )
    return f"{re.sub(r'[^0-9TZ-]', '-', about['created'])}_{task}-{role}_{about['task_id']}.json"


def _dataset(items: Sequence[tuple[Question, str]]) -> dict[str, Any]:
    sources = sorted({question.source for question, _ in items})
    ids = [question.prompt_id for question, _ in items]
    return {"name": ", ".join(sources), "samples": len(ids), "sample_ids": ids, "shuffled": False}


def _claimed(evidence: Mapping[str, Any], system: Mapping[str, Any]) -> dict[str, Any]:
    """What Inspect has no field for: which part the model plays, and what was claimed, found and missing."""
    run = evidence["run"]
    return {
        "role": system["role"],
        "label": system["label"],
        "question": run.get("question", ""),
        "claims": evidence["claims"],
        "missing_controls": evidence["missing_controls"],
    }


def _model(answers: Mapping[str, Exchange], label: str) -> str:
    """`provider/model` as Inspect writes it; the label where nothing was answered."""
    for answer in answers.values():
        named = answer.model.model_asked
        return f"{answer.model.provider}/{named}" if answer.model.provider else named
    return label


def _results(
    proof: ProofRecord, system: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The figures of evidence.json as they stand there: nothing is computed a second time."""
    run, total, made = proof.evidence["run"], len(proof.items), []
    if system["score"] is not None:
        interval = {"ci_low": system["ci_low"], "ci_high": system["ci_high"], "method": system["interval_method"]}
        made.append(_result(run["task"], run["metric"], system["score"], interval, system["n"], total))
    if system["agreement"] is not None:
        interval = {"ci_low": system["agreement_low"], "ci_high": system["agreement_high"]}
        read = sum(AGREEMENT in sample["scores"] for sample in samples)
        made.append(_result(AGREEMENT, AGREEMENT, system["agreement"], interval, read, total))
    return made


def _result(name: str, metric: str, value: float, interval: dict[str, Any], scored: int, total: int) -> dict[str, Any]:
    return {
        "name": name,
        "scorer": name,
        "scored_samples": scored,
        "unscored_samples": total - scored,
        "params": {},
        "metrics": {metric: {"name": metric, "value": value, "params": {}, "metadata": interval}},
    }


def _sample(
    name: str, question: Question, gold: str, scores: Mapping[str, Any], answer: Exchange | None, model: str, task: str
) -> dict[str, Any]:
    asked = [_turn(message, f"{name}-{at}") for at, message in enumerate(question.messages)]
    is_text = len(asked) == 1 and question.messages[0].role == "user"
    sample: dict[str, Any] = {
        "id": question.prompt_id,
        "epoch": 1,
        "input": question.messages[0].content if is_text else asked,
        "target": gold,
        "messages": asked,
        "output": {"model": model, "choices": []},
        "scores": _scores(scores, task),
        "metadata": {key: value for key, value in _about(question).items() if value},
    }
    if answer is None:
        return {**sample, "error": {"message": _REFUSED, "traceback": "", "traceback_ansi": ""}}
    said = _said(answer, f"{name}-{len(asked)}", model)
    stop = _STOPS.get(answer.finish_reason, "unknown")
    seconds, usage = answer.latency_ms / 1000, _usage(answer.usage)
    choice = {"message": said, "stop_reason": stop}
    return {
        **sample,
        "messages": [*asked, said],
        "output": {"model": model, "choices": [choice], "completion": answer.answer, "usage": usage, "time": seconds},
        "model_usage": {model: usage},
        "working_time": seconds,
    }


def _about(question: Question) -> dict[str, str]:
    return {"source": question.source, "licence": question.licence, "session": question.group}


def _counted(row: Mapping[str, Any], was_taught: bool) -> Mapping[str, Any]:
    """What the teacher refused counts for nobody."""
    return row if was_taught else {name: value for name, value in row.items() if name != GOLD_PPM}


def _scores(row: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Score against the gold and against the teacher, from 0 to 1; what is not there is left out."""
    made = {}
    for name, column in ((task, GOLD_PPM), (AGREEMENT, TEACHER_PPM)):
        if row.get(column) is not None:
            made[name] = {"value": row[column] / _PPM, "answer": row.get("read", "")}
    return made


def _turn(message: Message, named: str) -> dict[str, Any]:
    if message.role == "assistant":
        return _assistant(named, message.content, "", message.tool_calls)
    role = message.role if message.role in ("system", "tool") else "user"  # a plain completion's text has no role there
    turn = {"id": named, "role": role, "content": message.content}
    return {**turn, "tool_call_id": message.tool_call_id} if role == "tool" else turn


def _said(answer: Exchange, named: str, model: str) -> dict[str, Any]:
    turn = _assistant(named, answer.answer, answer.reasoning, answer.tool_calls)
    return {**turn, "source": "generate", "model": model}


def _assistant(named: str, content: str, reasoning: str, calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    parts = [{"type": "reasoning", "reasoning": reasoning}] if reasoning else []
    turn: dict[str, Any] = {"id": named, "role": "assistant", "content": [*parts, {"type": "text", "text": content}]}
    return {**turn, "tool_calls": [_call(call) for call in calls]} if calls else turn


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Inspect's arguments are an object; a model that wrote anything else is quoted as a parse error."""
    wrote = call["function"]["arguments"]
    made = {"id": call["id"], "function": call["function"]["name"], "type": "function"}
    try:
        arguments = json.loads(wrote)
        if isinstance(arguments, dict):
            json.dumps(arguments, allow_nan=False)
            return {**made, "arguments": arguments}
    except (ValueError, RecursionError):
        pass
    return {**made, "arguments": {}, "parse_error": f"{UNPARSED}{wrote}"}


def _usage(usage: Usage) -> dict[str, int]:
    """Inspect counts tokens of the cache beside the input's, not among them."""
    fresh = max(0, usage.prompt_tokens - usage.cached_tokens)
    return {
        "input_tokens": fresh,
        "input_tokens_cache_read": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }


def _sum(usages: Sequence[Usage]) -> Usage:
    return Usage(
        sum(one.prompt_tokens for one in usages),
        sum(one.cached_tokens for one in usages),
        sum(one.completion_tokens for one in usages),
        sum(one.reasoning_tokens for one in usages),
    )
