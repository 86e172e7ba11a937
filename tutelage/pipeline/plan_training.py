"""What a training would do, and whether its method fits what the teacher reveals; found out without training."""

import json
from pathlib import Path
from typing import Any

from tutelage.collect.conversations import read_talks
from tutelage.config import TeacherTable
from tutelage.models.probe import NO, Probe
from tutelage.pipeline.choosing import Access, Tokens, choose, in_words, nearest, problem_of, require_supported
from tutelage.pipeline.gate import teacher_name
from tutelage.pipeline.gate_training import may_train
from tutelage.pipeline.supervision import Probing, known_probe, supervision_of
from tutelage.resources import resource
from tutelage.training_config import TrainingConfig


def plan_training(config: TrainingConfig, today: str, probing: Probing = Probing.NEVER) -> dict[str, Any]:
    """Terms, access, the method that fits it and the one that was chosen. Raises what `tutelage train` would for bad input."""
    gate = may_train(config, today).gate
    words, probe = "weights here", None
    if config.scorer is not None:
        words = supervision_of(_as_asked(config.scorer), today, probing)["words"]
        probe = known_probe(config.scorer)
    access, k = access_of(config, probe)
    tokens, loss = tokens_of(config), config.method.loss
    # An endpoint's tokenizer is held against the student's before the first step: until then it is taken to be the same.
    taken = Tokens.SAME if config.scorer is not None else tokens
    choice, problem = choose(access, taken, scored_k=k), problem_of(loss, access, tokens)
    if not problem:
        _require_method(config)
    way = nearest(loss, access, tokens, k)
    return {
        "terms": gate.together.to_json(),
        "permitted": gate.permits,
        "teacher": _teacher(config),
        "supervision": {"words": words if _has_teacher(config) else "its text, in the data", "enough": not problem},
        "access": str(access),
        "tokenizer": str(tokens),
        "conversations": _conversations(config),
        "conditions": list(dict.fromkeys(condition.words for condition in gate.conditions)),
        "method": in_words(choice, access, tokens, _chosen(config)),
        "problem": problem,
        "nearest": f"{way.keys} ({way.words})" if problem else "",
        "within_budget": True,  # what scores cost is told, and the limit held, when training begins: the student's tokens say
    }


def access_of(config: TrainingConfig, probe: Probe | None) -> tuple[Access, int]:
    """What the run file's teacher reveals, and how many candidates come with scores of our text. An endpoint that nobody probed
    is taken at the run file's word."""
    if config.scorer is not None:
        if probe is None:
            return Access.SCORES, config.scorer.top_logprobs
        if probe.top_k_supplied:
            return Access.SCORES, min(probe.top_k_supplied, config.scorer.top_logprobs)
        if {probe.item("scores_echo").answer, probe.item("scores_prompt_logprobs").answer} != {NO}:
            return Access.SCORES, config.scorer.top_logprobs
        return (Access.TOP_K if probe.top_k_own else Access.TEXT), 0
    if _has_teacher(config):
        return Access.FULL, 0
    return (Access.TOP_K if config.method.signal == "recorded" else Access.TEXT), 0


def tokens_of(config: TrainingConfig) -> Tokens:
    """The student's tokenizer against the teacher's, as far as files tell without loading anything."""
    if config.scorer is not None or not _has_teacher(config):
        return Tokens.UNKNOWN
    found = {_against(config, table.resource, table.path, table.old_self) for table in _tables(config)}
    return next((one for one in (Tokens.OTHER, Tokens.UNKNOWN) if one in found), Tokens.SAME)


def require_tokens(config: TrainingConfig) -> None:
    """Raises `ConfigError` for a loss on tokens with a resource as teacher that is known to have others. Of folders the first
    token that differs is named once they are read."""
    if any(table.resource for table in _tables(config)):
        require_supported(config.method.loss, Access.FULL, tokens_of(config))


def describe_training(found: dict[str, Any]) -> str:
    """The plan in plain lines."""
    refused = f"refused     {found['problem']}; nearest to it: {found['nearest']}"
    return "\n".join(
        [
            f"teacher     {found['teacher']}",
            f"supervision {found['supervision']['words']}",
            f"terms       {found['terms']['status']} for {found['terms']['purpose']}"
            + ("" if found["permitted"] else "  (training would stop here; see `tutelage terms check`)")
            + (f", if: {' '.join(found['conditions'])}" if found["conditions"] and found["permitted"] else ""),
            *([] if found["conversations"] is None else [f"data        {found['conversations']:,} conversations"]),
            f"method      {found['method']}",
            *([refused] if found["problem"] else []),
        ]
    )


def _require_method(config: TrainingConfig) -> None:
    from tutelage.pipeline.teaching_plan import method_of  # brings torch

    method_of(config)


def _conversations(config: TrainingConfig) -> int | None:
    """How many a file has; None for collected answers, which may be many."""
    if config.data.path is None:
        return None
    return len(read_talks(Path(config.data.path), config.data, "", list(config.teachers)).talks)


def _tables(config: TrainingConfig) -> list[Any]:
    return [alone.teacher for alone in config.each_teacher().values() if alone.teacher is not None]


def _has_teacher(config: TrainingConfig) -> bool:
    return config.scorer is not None or bool(_tables(config))


def _teacher(config: TrainingConfig) -> str:
    if config.scorer is not None:
        return teacher_name(config.scorer)
    names = [
        "the student as it was" if table.old_self else table.resource or Path(table.path).name
        for table in _tables(config)
    ]
    return " and ".join(dict.fromkeys(names)) or "none: the text alone"


def _against(config: TrainingConfig, name: str | None, path: str | None, old_self: bool) -> Tokens:
    student = config.student
    if old_self or (name is not None and name == student.base) or (path is not None and path == student.path):
        return Tokens.SAME
    if name is not None and student.base is not None:
        return Tokens.SAME if resource(name).tokenizer == resource(student.base).tokenizer else Tokens.OTHER
    ours, theirs = _vocabulary(student.path), _vocabulary(path)
    if (
        ours is None or theirs is None or ours.keys() < theirs.keys()
    ):  # fewer tokens, all of them the teacher's, can be taught
        return Tokens.UNKNOWN
    return Tokens.SAME if ours == theirs else Tokens.OTHER


def _vocabulary(folder: str | None) -> dict[str, int] | None:
    """Tokens and their ids as a folder's tokenizer.json has them; None where there is none that can be read."""
    if folder is None:
        return None
    try:
        value = json.loads((Path(folder) / "tokenizer.json").read_bytes())
        return value["model"]["vocab"] | {one["content"]: one["id"] for one in value.get("added_tokens", [])}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _chosen(config: TrainingConfig) -> str:
    table = config.method
    prefix = f'"{table.prefix}"' if isinstance(table.prefix, str) else f"{table.prefix:g}"
    signal = f', signal = "{table.signal}"' if table.signal else ""
    kept = ', rollouts = "kept"' if table.rollouts == "kept" else ""
    return f'loss = "{table.loss}", prefix = {prefix}{signal}{kept}'


def _as_asked(table: TeacherTable) -> TeacherTable:
    """Nothing is asked about its own output: a teacher that scores need not reveal it."""
    return table.model_copy(update={"signal": "text"})
