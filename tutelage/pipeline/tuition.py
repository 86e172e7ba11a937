"""What each teacher says: captured one teacher after another, or asked as training goes; and all of it as one teaching."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.pipeline.crossing import check_across, teaching_across, teaching_recorded
from tutelage.pipeline.run import Facts, Run
from tutelage.pipeline.talks import SIGNALS
from tutelage.pipeline.teachers import Course
from tutelage.pipeline.teaching_check import check_teacher
from tutelage.pipeline.teaching_plan import (
    Method,
    Reader,
    cached,
    identity_of,
    judged_by,
    kind_of,
    load_teacher,
    teaching_of,
)
from tutelage.store.signals import SignalWriter, identity_in
from tutelage.train.capture import capture, size_of
from tutelage.train.contexts import InContext
from tutelage.train.examples import Example
from tutelage.train.preflight import ACROSS
from tutelage.train.routing import Routed
from tutelage.train.teaching import Teaching
from tutelage.training_config import TrainingConfig


class Taught(NamedTuple):
    """What is trained on, what is judged by, and what was found out about the teachers."""

    teaching: Teaching
    judging: Teaching
    facts: dict[str, Any]


def taught_by(
    courses: Sequence[Course], config: TrainingConfig, method: Method, run: Run, pupil: Reader, examples: Sequence[Example],
    *, has_signals: bool,
) -> Taught:  # fmt: skip
    """All teachers as one: from what they said (`has_signals`), or from their weights, each of which is loaded once; `examples`
    are those of both sides."""
    if method.signal == "recorded":
        said = teaching_recorded(config, method, run.folder, pupil, examples, run.progress.say)
        return Taught(said, said, {})
    if not courses:
        words = teaching_of(config, method, None, None)
        return Taught(words, judged_by(method, None, words), {})
    loaded: dict[tuple[Any, ...], Reader] = {}
    facts: dict[str, Any] = {}
    teachings, judgings = dict[str, Teaching](), dict[str, Teaching]()
    for course in courses:
        teacher, cache = None, None
        if has_signals:
            cache = cached(course.config, method, run.folder / SIGNALS / course.name, pupil, course.examples)
        else:
            teacher = _loaded(course, method, pupil, loaded)
            facts = told(facts, course, look(course, method, pupil, teacher, examples, run.progress.say))
        if method.signal in ACROSS:  # its prompt is its own in any case
            assert teacher is not None
            teachings[course.name] = judgings[course.name] = teaching_across(course, method, pupil, teacher)
            continue
        bare = teaching_of(course.config, method, teacher, cache)
        judging = judged_by(method, teacher, bare)
        teachings[course.name] = _in_context(bare, course)
        judgings[course.name] = teachings[course.name] if judging is bare else _in_context(judging, course)
    whose = {example.source: course.name for course in courses for example in course.examples}
    one = courses[0].name
    if len(courses) == 1:
        return Taught(teachings[one], judgings[one], facts)
    return Taught(Routed(teachings, whose), Routed(judgings, whose), facts)


def look(
    course: Course,
    method: Method,
    pupil: Reader,
    teacher: Reader,
    examples: Sequence[Example],
    tell: Callable[[str], Any],
) -> dict[str, Any]:
    """Teacher and student together, before the first step; each line names the teacher where there are several. `examples` are
    those of both sides as the student reads them."""

    def say(line: str) -> None:
        tell(f"{_of(course)}{line}")

    if method.signal in ACROSS:
        return check_across(course, pupil, teacher, examples, say)
    return check_teacher(
        course.config, method, pupil, teacher, course.talks, course.train, course.validation, say
    )  # fmt: skip


def told(facts: dict[str, Any], course: Course, found: dict[str, Any]) -> dict[str, Any]:
    """The facts with those of one more teacher: under its name where it has one."""
    if not course.name:
        return facts | found
    return facts | {key: {**facts.get(key, {}), course.name: value} for key, value in found.items()}


def _loaded(course: Course, method: Method, pupil: Reader, loaded: dict[tuple[Any, ...], Reader]) -> Reader:
    table = course.config.teacher
    assert table is not None
    key = (table.resource, table.path, table.precision)
    if key not in loaded:
        loaded[key] = load_teacher(course.config, method, pupil)
    return loaded[key]


def _in_context(teaching: Teaching, course: Course) -> Teaching:
    return teaching if course.prompts is None else InContext(teaching, course.prompts)


def clear_others(folder: Path, names: Iterable[str]) -> None:
    """Deletes what stands under `folder` of another try with other teachers: the only one's signals lie in the folder itself,
    those of several each in one of its name."""
    kept = set(names)
    for path in folder.iterdir() if folder.exists() else ():
        if path.is_dir() and path.name not in kept:
            shutil.rmtree(path)
        elif path.is_file() and "" not in kept:
            path.unlink()


def capture_course(course: Course, method: Method, run: Run, out: Path, pupil: Reader, teacher: Reader) -> Facts:
    """Everything that one teacher says, under `out`; what is there already is kept. Returns counts and bytes."""
    config = course.config
    kind = kind_of(config.method, method.signal, teacher)
    identity = identity_of(config, kind, teacher.digest, pupil, course.examples)
    size = size_of(course.examples, teacher.model, pupil.tokens, kind)
    run.progress.say(f"signals: {_of(course)}{kind.name}, about {size_in_words(size)} on the disk")
    if (out / "cache.json").exists() and identity_in(out)["identity"] != identity.described():
        shutil.rmtree(out)  # of another try, with another teacher, template or kind
    with SignalWriter(out, identity) as writer, run.stop.heeded():
        capture(course.examples, teacher.model, pupil.tokens, writer, run.progress, config.run.seed, run.stop)
    each = f"{writer.bytes / writer.positions:.1f} bytes a position"
    run.progress.say(f"signals: {_of(course)}{size_in_words(writer.bytes)}, {each}")
    return {"positions": writer.positions, "bytes": writer.bytes, "expected_bytes": size}


def summed(facts: Iterable[Facts]) -> dict[str, Any]:
    """Counts of several captures, added up."""
    found: dict[str, Any] = {}
    for one in facts:
        for name, value in one.items():
            found[name] = found.get(name, 0) + value
    return found


def size_in_words(size_bytes: int) -> str:
    """48,312 → "48.3 kB": in a unit that shows it."""
    if size_bytes < 1_000:
        return f"{size_bytes} bytes"
    unit, name = (1e6, "MB") if size_bytes >= 1_000_000 else (1e3, "kB")
    return f"{size_bytes / unit:,.1f} {name}"


def _of(course: Course) -> str:
    return f"teachers.{course.name}: " if course.name else ""
