"""Rollouts that are kept: all answers that a training will take, written by the student before it and scored once."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tutelage.errors import Interrupted
from tutelage.jsonl import read_lines, write_lines
from tutelage.pipeline.gate import lineages_of, teacher_name
from tutelage.pipeline.gate_training import teacher_in
from tutelage.pipeline.run import Facts, Run
from tutelage.pipeline.teaching_plan import Method, Reader, roller_of, table_of
from tutelage.records import UNATS_PER_NAT
from tutelage.terms.lineage import Tie
from tutelage.train.chunks import log_likelihoods
from tutelage.train.examples import Example
from tutelage.train.health import Limits, drift_in_words
from tutelage.train.kept import KeptRoller, KeptScores, Key
from tutelage.train.loop import plan_steps
from tutelage.train.offpolicy import passage_of
from tutelage.train.onpolicy import drawing, written
from tutelage.train.preflight import TRIED
from tutelage.train.rollout import Roller, Rollout
from tutelage.train.teaching import StepScores
from tutelage.training_config import TrainingConfig

ROLLOUTS = "rollouts"  # folder of the answers and their scores
ANSWERS = Path(ROLLOUTS) / "answers.jsonl"
BLOCK = 64  # answers that are written and scored before they are kept


class Kept(NamedTuple):
    """The answers and their scores, as training takes them."""

    roller: KeptRoller
    scores: KeptScores


class Asked(NamedTuple):
    """An answer that is to be written."""

    example: Example
    seed: int

    @property
    def prompt(self) -> tuple[int, ...]:
        return self.example.ids[: self.example.targets[0]]


def tell_of_teachers(config: TrainingConfig, say: Callable[[str], Any]) -> None:
    """Kept rollouts do for a student that was trained on its teacher's text: says so where its lineage does not."""
    if config.method.rollouts != "kept":
        return
    if config.scorer is not None:
        name = teacher_name(config.scorer)
    else:
        (alone,) = config.each_teacher().values()
        if alone.teacher is not None and alone.teacher.old_self:
            return
        name = teacher_in(alone).name
    known = {
        one.subject
        for lineage in lineages_of(config.student.path)
        for one in lineage.ancestors
        if one.role is Tie.TEACHER
    }
    if name not in known:
        others = f"names {', '.join(sorted(known))}" if known else "names no teacher"
        say(
            f"warning: rollouts are kept for a student that learnt from the text of its teacher, {name}; the student's lineage "
            f'{others}. After another teacher\'s text use rollouts = "fresh"'
        )


def write_kept(
    config: TrainingConfig, run: Run, pupil: Reader, examples: Sequence[Example], teacher: StepScores, scratch: Path
) -> Facts:
    """Writes and scores all answers, in blocks that are kept in `scratch` as they are made. Raises what writing and scoring
    raise, and `Interrupted`."""
    every = _asked(config, examples)
    rows, drift, looked = list[dict[str, Any]](), 0.0, False
    run.progress.begin("the student's own answers, scored", len(every), 0)
    with contextlib.closing(roller_of(config, pupil)) as roller, run.stop.heeded():
        roller.refresh(pupil.model.model)
        for number, at in enumerate(range(0, len(every), BLOCK)):
            file = scratch / f"answers-{number:06}.jsonl"
            is_new = not file.exists()
            if is_new:
                if run.stop:
                    raise Interrupted
                write_lines(file, _block(config, every[at : at + BLOCK], pupil, roller, teacher))
            block = list(read_lines(file))
            rows += block
            if not number or (is_new and not looked):  # each start may find another engine
                looked, found = looked or is_new, _drift(pupil, examples, block[:TRIED])
                if found > max(drift, Limits().drift_nats):
                    run.progress.say(f"warning: {drift_in_words(found)}")
                drift = max(drift, found)
            run.progress.advance(len(rows))
    run.progress.end()
    write_lines(run.folder / ANSWERS, rows)
    return _look(config, run, rows) | {"drift_unats": round(drift * UNATS_PER_NAT)}


def read_kept(run: Run, examples: Sequence[Example], method: Method) -> Kept:
    """What `write_kept` wrote for these examples."""
    prompts = {example.source: example.ids[: example.targets[0]] for example in examples}
    answers, scores = dict[Key, Rollout](), dict[tuple[tuple[int, ...], tuple[int, ...]], list[float]]()
    for row in read_lines(run.folder / ANSWERS):
        prompt, ids = prompts[row["id"]], tuple(row["ids"])
        logp = tuple(value / UNATS_PER_NAT for value in row["drawn_unats"])
        answers[prompt, row["seed"]] = Rollout(prompt, ids, logp, row["finished"])
        scores[prompt, ids] = [value / UNATS_PER_NAT for value in row["score_unats"]]
    return Kept(KeptRoller(answers), KeptScores(scores, method.loss))


def _asked(config: TrainingConfig, examples: Sequence[Example]) -> list[Asked]:
    """The answers of all steps, in their order."""
    table, lengths = table_of(config, len(examples)), [example.targets[0] for example in examples]
    steps = plan_steps(len(examples), table).steps
    taken = (drawing(lengths, table, config.run.seed, step) for step in range(steps))
    return [Asked(examples[row], seed) for step in taken for row, seed in zip(*step, strict=True)]


def _block(
    config: TrainingConfig, asked: Sequence[Asked], pupil: Reader, roller: Roller, teacher: StepScores
) -> list[dict[str, Any]]:
    table = config.method
    prompts, seeds = [one.prompt for one in asked], [one.seed for one in asked]
    rollouts = roller.write(prompts, table.max_new_tokens, table.temperature, seeds)
    examples = [written(rollout, one.example.source) for rollout, one in zip(rollouts, asked, strict=True)]
    drawn = [rollout.logp for rollout in rollouts]
    scores = teacher.scores(passage_of(examples, pupil.model.device, drawn, table.temperature))
    by_answer = scores.split([len(rollout.ids) for rollout in rollouts])
    return [
        {
            "id": one.example.source,
            "seed": one.seed,
            "ids": list(rollout.ids),
            "text": pupil.tokenizer.decode(rollout.ids, skip_special_tokens=True),
            "finished": rollout.finished,
            "drawn_unats": _unats(rollout.logp),
            "score_unats": _unats(score_N.tolist()),
        }
        for one, rollout, score_N in zip(asked, rollouts, by_answer, strict=True)
    ]


def _drift(pupil: Reader, examples: Sequence[Example], rows: Sequence[dict[str, Any]]) -> float:
    """How far, on average in nats, what the engine says it drew these answers with is from what the student says of them."""
    prompts = {example.source: example.ids[: example.targets[0]] for example in examples}
    texts = [((*prompts[row["id"]], *row["ids"]), len(prompts[row["id"]])) for row in rows]
    own = torch.cat(log_likelihoods(pupil.model, texts, pupil.tokens)).cpu()
    drawn = torch.tensor([value for row in rows for value in row["drawn_unats"]]) / UNATS_PER_NAT
    return float((own - drawn).abs().mean())


def _unats(nats: Sequence[float]) -> list[int]:
    return [round(value * UNATS_PER_NAT) for value in nats]


def _look(config: TrainingConfig, run: Run, rows: Sequence[dict[str, Any]]) -> Facts:
    """What the answers are like, told and as facts."""
    tokens, cut = sum(len(row["ids"]) for row in rows), sum(not row["finished"] for row in rows)
    own, theirs = (-sum(sum(row[name]) for row in rows) for name in ("drawn_unats", "score_unats"))
    run.progress.say(
        f"rollouts: {len(rows):,} answers of the student's own, {tokens / len(rows):.0f} tokens each on average, {cut:,} cut at "
        f"{config.method.max_new_tokens}; a token costs the student {own / tokens / UNATS_PER_NAT:.3f} nats, the teacher "
        f"{theirs / tokens / UNATS_PER_NAT:.3f}"
    )
    return {
        "answers": len(rows),
        "cut": cut,
        "tokens": tokens,
        "own_unats": own // tokens,
        "scored_unats": theirs // tokens,
    }
