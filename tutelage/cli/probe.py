"""`tutelage probe`: what an endpoint really gives, before money is spent on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from tutelage.config import TeacherTable
    from tutelage.models.probe import Probe

_GROUPS = (
    ("supervision", ("text", "reasoning", "top_logprobs", "sampled_listed", "scores_echo", "scores_prompt_logprobs",
                     "full_logits")),
    ("tokens", ("token_bytes", "token_ids", "tokenizer", "hidden_prompt")),
    ("constancy", ("deterministic", "seed", "one_model")),
    ("endings", ("finish_length", "finish_stop", "stop_string")),
    ("takes", ("chat", "completions", "system", "n", "tools", "schema", "temperature", "top_p", "max_tokens",
               "max_completion_tokens")),
)  # fmt: skip
_LABELS = {
    "top_logprobs": "log-probabilities",
    "sampled_listed": "drawn token listed",
    "scores_echo": "scores ours (echo)",
    "scores_prompt_logprobs": "scores ours (vLLM)",
    "hidden_prompt": "hidden prompt",
    "one_model": "one model",
    "finish_length": "cut answer",
    "finish_stop": "ended answer",
    "n": "several answers",
    "schema": "JSON schema",
}


def probe(
    run_file: Path | None = None,
    *,
    url: str | None = None,
    model: str | None = None,
    api: str | None = None,
    api_key_env: str | None = None,
    max_cost: float = 0.05,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    json: bool = False,
) -> int:
    """Find out with about twenty small questions what an endpoint really gives: log-probabilities and of what kind, its
    tokenizer, hidden prompts, what it takes and what it ignores. The result is kept for `tutelage plan`.

    Parameters
    ----------
    run_file
        A run file; its [teacher] is probed. Or give --url and --model.
    url
        Address of an endpoint, such as https://host/v1.
    model
        The model to ask there.
    api
        What it speaks: openai, anthropic, gemini (default: told by the host).
    api_key_env
        Name of the environment variable that holds the key; the key itself is never written.
    max_cost
        Never spend more than so many dollars.
    set_
        Set one key of the teacher, for instance --set teacher.timeout_s=30; may be repeated.
    json
        Print one JSON object.
    """
    from math import isfinite

    from tutelage.cli.output import print_json
    from tutelage.cli.overrides import parse_overrides
    from tutelage.errors import ConfigError
    from tutelage.models.probe import offered_signals
    from tutelage.pipeline.supervision import probe_teacher
    from tutelage.records import NUSD_PER_USD

    if not isfinite(max_cost) or max_cost < 0:
        raise ConfigError(f"--max-cost {max_cost} is no limit", fix="give dollars, such as 0.05")
    said = {"url": url, "model": model, "api": api, "api_key_env": api_key_env}
    flags = {f"teacher.{key}": value for key, value in said.items() if value is not None}
    found = probe_teacher(_teacher(run_file, {**flags, **parse_overrides(set_)}), round(max_cost * NUSD_PER_USD))
    if json:
        print_json({**found.to_json(), "digest": found.digest, "offers": offered_signals(found)})
    else:
        print(describe(found))
    return 0 if offered_signals(found) else 1


def _teacher(run_file: Path | None, said: dict[str, Any]) -> "TeacherTable":
    from tutelage.errors import ConfigError
    from tutelage.run_file import load_teacher

    if run_file is None and "teacher.url" not in said:
        raise ConfigError("whom to probe?", fix="give a run file, or --url URL --model NAME")
    return load_teacher(run_file, said)


def describe(found: "Probe") -> str:
    """An aligned table: what it gives and what not, in its own words, and what that means for training."""
    from tutelage.models.probe import NOT_ASKED
    from tutelage.records import NUSD_PER_USD

    reported = ", ".join(found.models_reported) or "none"
    prints = ", ".join(found.fingerprints)
    context = f"; {found.context_tokens:,} tokens of context" if found.context_tokens >= 0 else ""
    lines = [
        f"{found.model_asked} at {found.route} ({found.api}); it reports {reported}"
        + (f", fingerprint {prints}" if prints else "")
        + (f"; server: {found.engine}" if found.engine else "")
        + context
    ]
    for group, names in _GROUPS:
        lines.append(group)
        for item in map(found.item, names):
            words = (
                f"{item.words}; {found.logprobs_are}" if item.name == "top_logprobs" and found.top_k_own else item.words
            )
            if item.answer != NOT_ASKED or item.words:
                lines.append(
                    f"  {_LABELS.get(item.name, item.name.replace('_', ' ')):22} {item.answer:9} {words}".rstrip()
                )
    cost = f"${found.nusd / NUSD_PER_USD:.6f}" if found.nusd else "no money"
    lines.append(f"cost: {found.calls} calls, {found.tokens:,} tokens, {cost} ({found.price_source})")
    return "\n".join([*lines, *_meaning(found)])


def _meaning(found: "Probe") -> list[str]:
    from tutelage.models.probe import RAW, UNKNOWN, best_k, offered_signals

    offered = [f"{name} (k = {best_k(found)})" if name == "top-logprobs" else name for name in offered_signals(found)]
    lines = [f"offers: {', '.join(offered) or 'nothing that can be trained on'}"]
    if found.logprobs_are not in (RAW, UNKNOWN):
        lines.append(f"note: log-probabilities are those {found.logprobs_are}: ask at temperature 1 and top-p 1")
    if found.item("hidden_prompt").answer == "yes":
        lines.append("note: its answers follow a prompt that you do not see, and every question pays for it")
    return lines
