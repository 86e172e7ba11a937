"""Controls of a proof that need the trainer: the same student trained on words alone, and the training checkpoint's own answers.

torch is imported when they run.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.canon import digest_file
from tutelage.config import RunConfig
from tutelage.errors import SignalError
from tutelage.meter import own_work
from tutelage.pipeline.learning import (
    BEFORE,
    Lesson,
    read_selection,
    take_steps,
    train_settings,
    write_metrics,
)
from tutelage.pipeline.run import Done, Facts, Run
from tutelage.prompts import read_prompts
from tutelage.records import Role
from tutelage.tasks import label_logprobs, literal_label, student_messages

PLAIN = "plain"
PLAIN_STUDENT = "plain/student"
CARD = """# A control of a proof

The same student trained plainly: cross-entropy on the words of the same answers, as many steps. It is here to be compared
with, not to be used.
"""
_TOP = 20  # candidates that a label is read from, as many as the served student shows
_ROWS = 64


def plain(run: Run, config: RunConfig, curated: Done, made: Done) -> Done:
    """The same student, the same prompts, the same number of steps, but of each answer its literal label alone: plain
    fine-tuning by cross-entropy. An answer that says no label cannot be learnt from so; the rest is gone over more often."""

    def work(scratch: Path) -> Facts:
        with own_work(scratch / "meter.json") as spent:
            facts = _train_plainly(run, config, scratch, run.folder / PLAIN)
        return facts | spent()

    inputs = {"curate": curated.outputs_digest, "student": made.outputs_digest}
    return run.stage(PLAIN, 1, train_settings(config), inputs, (PLAIN,), work)


def checkpoint_logp(folder: Path, config: RunConfig, texts: Sequence[str]) -> NDArray[np.float64]:
    """Label log-probabilities (texts, labels) in nats of the trained weights before export: through the trainer's own forward
    pass, on the prompts as they were trained, read from the candidates as a served answer is."""
    import torch

    from tutelage.models.causal import Causal
    from tutelage.models.kernels import economical
    from tutelage.models.tokens import TokenBytes
    from tutelage.train.loop import precision
    from tutelage.train.student import load_student

    model, tokenizer = load_student(folder / BEFORE, folder / "train" / "weights.safetensors")
    economical(model)
    student, spelled = Causal(model.eval()), TokenBytes(tokenizer)
    prompts = [
        tokenizer.apply_chat_template(
            [message.to_json() for message in student_messages(config.task, text)],
            add_generation_prompt=True,
            return_dict=False,
        )
        for text in texts
    ]
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    found = np.empty((len(prompts), len(config.task.labels)))
    with torch.no_grad(), precision(config.train.precision):
        for start in range(0, len(order), _ROWS):
            rows = order[start : start + _ROWS]
            lengths = [len(prompts[at]) for at in rows]
            hidden_TD = student.hidden(torch.tensor([token for at in rows for token in prompts[at]]), lengths)
            logits_BV = student.head().logits(hidden_TD[torch.tensor(lengths).cumsum(0) - 1])
            top_BK, ids_BK = logits_BV.float().log_softmax(-1).topk(min(_TOP, logits_BV.shape[-1]), dim=-1)
            for at, logp_K, ids_K in zip(rows, top_BK.tolist(), ids_BK.tolist(), strict=True):
                found[at] = label_logprobs(config.task.labels, _position(spelled, ids_K, logp_K))
    return found


def _position(spelled: Any, ids_K: Sequence[int], logp_K: Sequence[float]) -> Any:
    from tutelage.records import UNATS_PER_NAT, Position, TokenLogprob

    top = tuple(
        TokenLogprob(spelled.b64(token), token, min(0, round(logp * UNATS_PER_NAT)))
        for token, logp in zip(ids_K, logp_K, strict=True)
    )
    return Position(top[0], top)


def _train_plainly(run: Run, config: RunConfig, scratch: Path, out: Path) -> Facts:
    from tutelage.ship.student import ship
    from tutelage.train.student import quiet_transformers

    (student, source, judge), taken = take_steps(run, config, scratch, lambda: _lesson(run, config))
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_metrics(out / "metrics.jsonl", taken.steps)
    nothing_more = scratch / "extras"
    nothing_more.mkdir(exist_ok=True)
    with quiet_transformers():
        ship(student.model, run.folder / BEFORE, CARD, nothing_more, out / "student")
    loss_tokens = sum(source.loss_tokens(step["rows"]) for step in taken.steps)
    return {
        "steps": len(taken.steps),
        "chosen_step": taken.best["step"],
        "examples": len(source.data.examples),
        "validation_examples": len(judge.data.examples),
        "loss_tokens": {str(Role.TEXT_TARGET): loss_tokens},
        "train_ms": taken.train_ms,
        "weights": digest_file(out / "student" / "model.safetensors"),
        "numerics": taken.numerics,
    }


def _lesson(run: Run, config: RunConfig) -> Lesson:
    """As `learning.lesson`, from the words alone: no probabilities, and no offsets that were fixed by them."""
    import torch

    from tutelage.models.causal import Causal
    from tutelage.models.kernels import economical
    from tutelage.train.labels import LabelJudge, LabelSource, build
    from tutelage.train.loop import Plan, plan_steps
    from tutelage.train.student import load_student

    model, tokenizer = load_student(run.folder / BEFORE)
    prompts = read_prompts(run.folder / "data" / "prompts.jsonl")
    texts = {prompt.prompt_id: prompt.text for prompt in (*prompts.train, *prompts.validation)}
    selection = read_selection(run.folder)
    nothing = [0.0 for _ in config.task.labels]
    said = {kind: _saying_a_label(run, config, selection[kind], kind) for kind in ("train", "validation")}
    data, validation = (
        build(config.task, rows, texts, run.store, tokenizer, "text", nothing) for rows in said.values()
    )
    steps = plan_steps(len(selection["train"]), config.train).steps

    class SameSteps(LabelSource):
        @property
        def plan(self) -> Plan:
            return Plan(super().plan.per_epoch, steps)

    economical(model)
    student = Causal(model)
    torch.manual_seed(config.run.seed)
    return Lesson(student, SameSteps(data, config.train, config.run.seed), LabelJudge(validation))


def _saying_a_label(run: Run, config: RunConfig, rows: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    said = [row for row in rows if literal_label(config.task, run.store.get(row["address"]).answer) >= 0]
    if not said:
        raise SignalError(
            f"none of the {len(rows)} {kind} answers says a label in words: plain fine-tuning has nothing to learn from",
            fix="set controls.plain = false: the proof then names it as missing",
        )
    if len(said) < len(rows):
        run.progress.say(f"plain: {len(rows) - len(said)} of {len(rows)} {kind} answers say no label and are left out")
    return said
