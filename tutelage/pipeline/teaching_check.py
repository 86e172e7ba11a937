"""The look before the first step: are student, teacher, template and data such that the method can work?"""

from collections.abc import Callable, Sequence
from typing import Any

from tutelage.errors import ConfigError, DataError, TutelageError
from tutelage.models.causal import Causal
from tutelage.pipeline.teaching_plan import Method, Reader
from tutelage.train.examples import Example, end_of_turn_ids, render
from tutelage.train.preflight import (
    TRIED,
    Rendering,
    check_learnt,
    choose_rendering,
    nats_a_token,
    require_stop,
    same_ends,
)
from tutelage.train.rollout import end_ids
from tutelage.train.subset import Subset
from tutelage.train.teaching import require_same_tokens
from tutelage.training_config import TrainingConfig

Conversations = Sequence[tuple[str, Sequence[dict[str, Any]]]]
OURS, THEIRS = "the student's template", "the teacher's own template"


def check_pupil(
    config: TrainingConfig, pupil: Reader, examples: Sequence[Example], tell: Callable[[str], Any],
    asked: Sequence[Example] = (),
) -> dict[str, int]:  # fmt: skip
    """The student alone: what is learnt, whether it can stop, whether its logits are finite. Facts in micro-nats. `asked` are the
    examples whose questions it answers itself, where those are not the same."""
    check_learnt(examples)
    require_stop(sorted(end_of_turn_ids(pupil.tokenizer)), sorted(end_ids(pupil.model.model)))
    longest = max(example.targets[0] for example in asked or examples)
    if config.method.student_writes and longest + config.method.max_new_tokens > pupil.model.limit:
        raise ConfigError(
            f"the longest question has {longest} tokens; with method.max_new_tokens = {config.method.max_new_tokens} that "
            f"is more than the student's context of {pupil.model.limit}",
            fix=f"lower max_new_tokens to {max(1, pupil.model.limit - longest)} or less, or lower data.max_tokens",
        )
    nats = nats_a_token(pupil.model, examples, "student")
    tell(f"look: the answers cost the student {nats:.3f} nats a token before training")
    return {"student_unats": round(1e6 * nats)}


def check_teacher(
    config: TrainingConfig, method: Method, pupil: Reader, teacher: Reader, talks: Conversations,
    examples: Sequence[Example], validation: Sequence[Example], tell: Callable[[str], Any],
) -> dict[str, int]:  # fmt: skip
    """Teacher and student together: the same tokens, ends and width; and what the answers cost the teacher as the student's
    template writes them, beside its own. Facts in micro-nats."""
    require_same_tokens(pupil.spelled, teacher.spelled, method.loss)
    _require_width(teacher.model, pupil.tokens)
    _require_room(config, teacher.model.limit, examples, validation)
    found = [Rendering(OURS, nats_a_token(teacher.model, examples, "teacher"))]
    own_template = config.student.template is None  # whoever wrote another one meant it
    try:
        if teacher.tokenizer.chat_template:
            same_ends(sorted(end_of_turn_ids(pupil.tokenizer)), sorted(end_of_turn_ids(teacher.tokenizer)))
            own = render(_of(talks, examples), teacher.tokenizer, teacher.model.limit).examples
            found.append(Rendering(THEIRS, nats_a_token(teacher.model, own, "teacher")))
    except (ConfigError, DataError) as error:
        if own_template:
            raise ConfigError(f"under the teacher's own template: {error.message}", fix=error.fix) from error
        tell(f"warning: under the teacher's own template: {error.message}")
    tell("look: they cost the teacher " + ", ".join(f"{one.teacher_nats:.3f} under {one.name}" for one in found))
    try:
        choose_rendering(found, OURS)
    except TutelageError as error:
        if own_template:
            raise
        tell(f"warning: {error.message}")
    facts = {"teacher_unats": round(1e6 * found[0].teacher_nats)}
    if isinstance(teacher.model, Subset):
        mass = teacher.model.kept_mass(examples[:TRIED])
        share = f"{mass:.2%} of its probability to the student's {pupil.tokens:,} tokens"
        tell(f"look: the teacher gives {share}; the rest is left out")
        facts["kept_mass_ppm"] = round(1e6 * mass)
    return facts


def _require_room(
    config: TrainingConfig, limit: int, examples: Sequence[Example], validation: Sequence[Example]
) -> None:
    """Whatever the teacher is to read fits its context: the data's text, and the student's own."""
    longest = max(len(example.ids) for example in (*examples, *validation))
    if longest > limit:
        raise DataError(
            f"a conversation has {longest} tokens with all that the teacher reads before it; it reads {limit}",
            fix=f"set data.max_tokens so that no conversation has more than {limit}, or shorten the teacher's own prompt",
        )
    new, asked = config.method.max_new_tokens, max(example.targets[0] for example in examples)
    if config.method.student_share and asked + new > limit:
        raise ConfigError(
            f"the longest question has {asked} tokens; with method.max_new_tokens = {new} that is more than the {limit} "
            "that the teacher reads",
            fix=f"lower max_new_tokens to {max(1, limit - asked)} or less, or lower data.max_tokens",
        )


def _of(talks: Conversations, examples: Sequence[Example]) -> Conversations:
    """The conversations that a look takes."""
    wanted = {example.source for example in examples[:TRIED]}
    return [talk for talk in talks if talk[0] in wanted]


def _require_width(teacher: Causal, tokens: int) -> None:
    if len(teacher.head().weight_VD) < tokens:
        raise ConfigError(
            f"the teacher's head has {len(teacher.head().weight_VD)} columns for {tokens} tokens",
            fix="give the teacher's folder with the tokenizer it was trained with",
        )
