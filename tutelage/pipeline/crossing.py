"""A teacher whose tokenizer is another one: what it is asked, and the look before the first step."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError, DataError, SignalError
from tutelage.losses.catalogue import ENTRIES, make
from tutelage.pipeline.talks import said_in
from tutelage.pipeline.teachers import Course
from tutelage.pipeline.teaching_plan import Method, Reader, ends_of
from tutelage.train.chunks import (
    ChunkTeacher,
    MatchTeacher,
    RankTeacher,
    RecordedChunks,
    bits_per_byte,
    log_likelihoods,
)
from tutelage.train.crossing import LONG, Crossed, Crossing
from tutelage.train.examples import Example
from tutelage.train.preflight import TRIED
from tutelage.train.teaching import Teaching, Together, Words
from tutelage.train.vocabulary import token_ids_by_bytes
from tutelage.training_config import TrainingConfig

LEAST_SHARE = 0.5  # of the answers' tokens that must be in chunks


def crossing_of(course: Course, pupil: Reader, teacher: Reader) -> Crossing:
    """From the student's examples to what this teacher reads."""
    return Crossing(pupil.tokenizer, teacher.tokenizer, course.heard, ends_of(pupil), teacher.model.limit)


def teaching_recorded(
    config: TrainingConfig, method: Method, folder: Path, pupil: Reader, examples: Sequence[Example],
    tell: Callable[[str], Any],
) -> Teaching:  # fmt: skip
    """The same of collected answers: the log-probabilities that came with them. Raises `SignalError` for answers without, and
    when most of what is learnt of `examples` is not what was collected."""
    said = said_in(folder)
    without = [name for name, tokens in said.items() if not tokens]
    if without:
        raise SignalError(
            f"{len(without):,} of {len(said):,} collected answers came without log-probabilities, the first {without[0]}",
            fix='collect them with teacher.signal = "top-logprobs", or learn the text alone (cross-entropy)',
        )
    tell(
        f"look: {len(said):,} answers with the log-probabilities of {sum(map(len, said.values())):,} of the teacher's tokens"
    )
    main = RecordedChunks(said, method.loss, pupil.tokenizer, ends_of(pupil), _tau(config))
    require_common(main, examples, tell)
    weight = config.method.text_weight
    return Together([main, Words(make("cross-entropy"), weight)]) if weight else main


def require_common(recorded: RecordedChunks, examples: Sequence[Example], tell: Callable[[str], Any]) -> None:
    """Tells of answers that share no piece with what was collected, and raises `SignalError` where most tokens are in none."""
    found = [recorded.spelled(example) for example in examples]
    tokens = sum(len(one.ours) for one in found)
    inside = sum(chunk.left_stop - chunk.left_start for one in found for chunk in one.chunks)
    apart = [at for at, one in enumerate(found) if not one.chunks]
    if apart:
        source, one = examples[apart[0]].source, found[apart[0]]
        words = f"the first {source}: what is learnt is spelled {list(one.ours[:3])}, what was collected {list(one.theirs[:3])}"
        tell(f"warning: {len(apart):,} of {len(found):,} answers have no piece in common with their tokens, {words}")
    if inside < LEAST_SHARE * tokens:
        raise SignalError(
            f"only {inside:,} of {tokens:,} tokens of the answers can be compared with those that were collected",
            fix="use a template that writes answers as they are (student.template), or learn the text alone (cross-entropy)",
        )


def _tau(config: TrainingConfig) -> float:
    return config.method.parameters.get("tau", ENTRIES["alm"].parameters["tau"].default)


def teaching_across(course: Course, method: Method, pupil: Reader, teacher: Reader) -> Teaching:
    """The method's parts of a batch. The loss on chunks counts τ times, which puts its gradient on the scale of cross-entropy
    (`losses.alm`)."""
    table, crossing = course.config.method, crossing_of(course, pupil, teacher)
    if method.signal == "ranks":
        main: Teaching = RankTeacher(teacher.model, method.loss, crossing, teacher.tokens)
    elif method.signal == "matched":
        ours, theirs = (token_ids_by_bytes(one.tokenizer) for one in (pupil, teacher))
        main = MatchTeacher(teacher.model, method.loss, crossing, ours, theirs, teacher.tokens)
    else:
        main = ChunkTeacher(teacher.model, method.loss, crossing, teacher.tokens, weight=_tau(course.config))
    return Together([main, Words(make("cross-entropy"), table.text_weight)]) if table.text_weight else main


def check_across(
    course: Course, pupil: Reader, teacher: Reader, examples: Sequence[Example], tell: Callable[[str], Any]
) -> dict[str, int]:
    """How much of the answers both tokenizers spell, and what it costs student and teacher, each after what it reads; `examples`
    are the student's own. Facts in millionths of bits a byte, and of the answers' tokens. Raises `DataError` for a conversation
    that the teacher has no room for, and `ConfigError` when most of the answers are in no chunk."""
    crossing = crossing_of(course, pupil, teacher)
    crossed = [crossing(example) for example in course.examples]
    _require_room(course, crossing, crossed)
    tokens = sum(len(example.targets) for example in course.examples)
    chunks = [one for each in crossed for one in each.chunks]
    inside = sum(one.left_stop - one.left_start for one in chunks)
    read = sum(one.right_stop - one.right_start for one in chunks)
    if inside < LEAST_SHARE * tokens:
        at = next((at for at, one in enumerate(crossed) if one.missing), 0)
        raise ConfigError(
            f"only {inside:,} of {tokens:,} tokens of the answers can be compared with the teacher's: the first is "
            f"{_text(crossing, course.examples[at])!r} ({crossed[at].missing or 'one piece'})",
            fix="choose a teacher whose tokenizer keeps the text's bytes, or train on its text (cross-entropy)",
        )
    tell(
        f"look: {len(chunks):,} pieces of the answers are whole tokens to both, of {inside / len(chunks):.2f} tokens to the "
        f"student and {read / len(chunks):.2f} to the teacher"
    )
    _tell_missing(course, crossing, crossed, tell)
    mine = {example.source: example for example in examples}
    first, own = crossed[:TRIED], [mine[example.source] for example in course.examples[:TRIED]]
    ours = log_likelihoods(pupil.model, [(one.ids, one.targets[0]) for one in own])
    theirs = log_likelihoods(teacher.model, [(one.ids, one.first) for one in first], teacher.tokens)
    bits = {
        "student": bits_per_byte(first, ours, student=True), "teacher": bits_per_byte(first, theirs, student=False)
    }  # fmt: skip
    how = "under its own template" if teacher.tokenizer.chat_template else "as plain text, without a template"
    tell(f"look: they cost the student {bits['student']:.3f} bits a byte, the teacher {bits['teacher']:.3f} {how}")
    facts = {f"{name}_ubits_per_byte": round(1e6 * value) for name, value in bits.items()}
    return facts | {"compared_ppm": round(1e6 * inside / tokens)}


def _require_room(course: Course, crossing: Crossing, crossed: Sequence[Crossed]) -> None:
    for example, one in zip(course.examples, crossed, strict=True):
        if one.missing == LONG:
            raise DataError(
                f"{example.source} with its answer is {LONG} ({crossing.limit} tokens)",
                fix="lower data.max_tokens, or leave long conversations out",
            )


def _tell_missing(
    course: Course, crossing: Crossing, crossed: Sequence[Crossed], tell: Callable[[str], Any]
) -> None:  # fmt: skip
    reasons = [one.missing for one in crossed if one.missing]
    for reason in dict.fromkeys(reasons):
        at = next(at for at, one in enumerate(crossed) if one.missing == reason)
        tell(
            f"warning: {reasons.count(reason):,} of {len(crossed):,} answers, the first "
            f"{_text(crossing, course.examples[at])!r}: {reason}; from there on the teacher says nothing of them"
        )


def _text(crossing: Crossing, example: Example) -> str:
    return b"".join(crossing.answer(example).pieces).decode(errors="replace")[:60]
