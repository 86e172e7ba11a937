"""Answers and the reasoning that leads to them as two tasks of one student: source and judge out of the run file."""

from tutelage.losses.catalogue import make
from tutelage.pipeline.rendering import Rows
from tutelage.pipeline.teaching_plan import Lesson, Method, Reader, ends_of, table_of
from tutelage.train.judging import HeldOutJudge
from tutelage.train.rationales import TaskJudge, TaskSource
from tutelage.train.rollout_local import LocalRoller
from tutelage.train.teaching import Words
from tutelage.training_config import TrainingConfig


def two_tasks(config: TrainingConfig, method: Method, pupil: Reader, rows: Rows) -> Lesson:
    """What the loop is given."""
    table, weight = table_of(config, len(rows.train)), config.method.rationale_weight
    source = TaskSource(
        rows.train, rows.rationales, method.loss, weight, table, config.run.seed, device=pupil.model.device
    )
    words, reasoned = Words(make("cross-entropy")), [rows.rationales.get(example.source) for example in rows.validation]
    label = HeldOutJudge(
        rows.validation, words, roller=LocalRoller(pupil.model.model, ends_of(pupil)), answers=config.train.answers,
        max_new_tokens=config.method.max_new_tokens,
    )  # fmt: skip
    held = [example for example in reasoned if example is not None]
    judge = TaskJudge(label, HeldOutJudge(held, words) if held else None, weight, len(held) / max(len(reasoned), 1))
    return Lesson(source, judge, lambda: None)


def unused(config: TrainingConfig) -> set[str]:
    """Keys of `[method]` that say nothing where pairs are never renewed, no rollouts are kept and no reasoning is learnt: what
    was made before there were such keys is not made anew."""
    never = {"refresh"} if config.method.refresh == "never" else set()
    never |= {"rollouts"} if config.method.rollouts == "fresh" else set()
    never |= {name for name in ("focus", "head", "threshold_nats", "t", "tau") if getattr(config.method, name) is None}
    return never if config.data.has_rationales else never | {"rationale_weight", "rationale_prefix"}


def unused_of_train(config: TrainingConfig) -> set[str]:
    """The same of `[train]`."""
    return {"epoch_over"} if config.train.epoch_over == "answers" else set()
