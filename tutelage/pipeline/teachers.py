"""Who teaches which conversations, and what each teacher reads besides: its own view of the run file, its prompt, its name.

A teacher that reads more than the student (instructions, examples) teaches it to answer as if it had read them too: context
distillation (Askell et al. 2021, arXiv 2112.00861, appendix; on-policy OPCD, arXiv 2602.12275; SDFT, arXiv 2601.19897). A teacher
that is the student as it was keeps what it could already.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.canon import digest_file, digest_of
from tutelage.collect.conversations import Author, read_talks
from tutelage.errors import ConfigError, DataError, TutelageError
from tutelage.pipeline.gate import teacher_name
from tutelage.pipeline.gate_training import base_in, teacher_in, teacher_inputs
from tutelage.pipeline.serving import remote
from tutelage.pipeline.talks import BEFORE, Sides
from tutelage.train.examples import Example, render
from tutelage.training_config import ConversationsTable, TrainingConfig, WeightsTable

NO_LIMIT = 1 << 62  # tokens: what the teacher has room for is looked at when it is there
Turns = tuple[dict[str, Any], ...]


class Context(NamedTuple):
    """What a teacher reads before a conversation and the student does not: a system message and earlier turns."""

    system: str = ""
    turns: Turns = ()

    @property
    def digest(self) -> str:
        """Of all of it; empty where there is nothing."""
        return digest_of({"system": self.system, "turns": list(self.turns)}) if self.system or self.turns else ""

    def before(self, messages: Sequence[Mapping[str, Any]]) -> Turns:
        """The conversation as the teacher reads it. A system message of its own follows the teacher's in one message: templates
        know one."""
        own, rest = (messages[:1], messages[1:]) if messages[0]["role"] == "system" else ((), messages)
        system = "\n\n".join(text for text in (self.system, *(str(one["content"]) for one in own)) if text)
        first = ({"role": "system", "content": system},) if system else ()
        return (*first, *self.turns, *(dict(message) for message in rest))


class Course(NamedTuple):
    """What one teacher is asked: conversations of both sides as it reads them, and the examples made of them. `config` is the run
    file as it would be with this teacher alone; `prompts` are the tokens that it reads before each answer, by the
    conversation, where they are others than the student's; `heard` are the messages of both sides as it reads them."""

    name: str
    config: TrainingConfig
    talks: list[tuple[str, Turns]]
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    prompts: Mapping[str, tuple[int, ...]] | None
    heard: Mapping[str, Turns]

    @property
    def examples(self) -> tuple[Example, ...]:
        return (*self.train, *self.validation)


def context_of(table: WeightsTable) -> Context:
    """Raises `ConfigError` for a file that cannot be read or a prompt that says nothing, and `DataError` for rows that are no
    conversations."""
    system = table.system or ""
    if table.system_file is not None:
        try:
            system = Path(table.system_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the teacher's system_file {table.system_file} cannot be read: {error}",
                fix="give a file of UTF-8 text",
            ) from None
    if (table.system is not None or table.system_file is not None) and not system.strip():
        raise ConfigError("the teacher's system message is empty", fix="write one, or delete the key")
    return Context(system.strip(), _examples(Path(table.examples_file)) if table.examples_file else ())


def _examples(path: Path) -> Turns:
    """All turns of a file of conversations, in its order."""
    try:
        found = read_talks(path, ConversationsTable(path=str(path), licence="own"), digest_file(path))
    except OSError as error:
        raise ConfigError(
            f"the teacher's examples_file {path} cannot be read: {error.strerror}", fix="give a file of conversations"
        ) from None
    turns = tuple(message for talk in found.talks for message in talk.messages)
    if any(message["role"] == "system" for message in turns):
        raise DataError(
            f"{path} has a system message among the examples", fix="move it into the teacher's system or system_file"
        )
    return turns


def teachers_of(config: TrainingConfig, folder: Path) -> dict[str, TrainingConfig]:
    """The run file as it would be with each teacher alone, by its name, "" for the only one; the student as it was is where the
    run keeps it."""
    return {name: _placed(alone, folder) for name, alone in config.each_teacher().items()}


def _placed(config: TrainingConfig, folder: Path) -> TrainingConfig:
    table = config.teacher
    if table is None or not table.old_self:
        return config
    licence = base_in(config).licence
    own = table.model_copy(update={"old_self": False, "path": str(folder / BEFORE), "licence": licence})
    return config.model_copy(update={"teacher": own})


def contexts(config: TrainingConfig) -> dict[str, str]:
    """Digests of what each teacher reads besides, by its name; teachers that read what the student does are left out."""
    found = {name: context_of(alone.teacher).digest for name, alone in config.each_teacher().items() if alone.teacher}
    return {name: digest for name, digest in found.items() if digest}


def inputs_of(config: TrainingConfig, folder: Path) -> dict[str, str]:
    """The weights of every teacher and what is read beside them, as inputs of a stage."""
    if config.scorer is not None:  # of the endpoint and the model asked for: its weights have no digest here
        endpoint = remote(config.scorer)
        return {"scorer": digest_of([endpoint.api, endpoint.route, endpoint.provider, endpoint.model])}
    return {
        f"{name}.{key}" if name else key: value
        for name, alone in teachers_of(config, folder).items()
        for key, value in teacher_inputs(alone).items()
    }


def authors_of(config: TrainingConfig, folder: Path) -> dict[str, Author]:
    """As the table of sources names them, by the teacher's name."""
    if config.scorer is not None:
        endpoint = remote(config.scorer)
        return {"": Author(endpoint.model, "", endpoint.provider, endpoint.route, endpoint.licence)}
    found, start = {}, base_in(config)
    for name, alone in teachers_of(config, folder).items():
        weights, table = teacher_in(alone), config.each_teacher()[name].teacher
        called = f"{start.name}, as it was before" if table is not None and table.old_self else weights.name
        found[name] = Author(called, weights.digest, "local", "embedded", weights.licence)
    return found


def named(config: TrainingConfig) -> str:
    """The teachers in words, for people who are given the student."""
    if config.scorer is not None:
        return f"the scores of {teacher_name(config.scorer)}"
    words = []
    for alone in config.each_teacher().values():
        assert alone.teacher is not None
        name = "its own self before training" if alone.teacher.old_self else teacher_in(alone).name
        words.append(f"{name} (with a prompt of its own)" if context_of(alone.teacher).digest else name)
    return " and ".join(dict.fromkeys(words))


def courses_of(
    config: TrainingConfig, folder: Path, tokenizer: Any, sides: Sides, train: Sequence[Example],
    validation: Sequence[Example],
) -> list[Course]:  # fmt: skip
    """One a teacher. Raises `ConfigError` for a teacher that nothing is routed to, or whose prompt changes the answer's tokens,
    and as `context_of` and `render` do."""
    messages = dict((*sides.train, *sides.validation))
    found = []
    for name, alone in teachers_of(config, folder).items():
        assert alone.teacher is not None
        context = context_of(alone.teacher)
        parts = [
            tuple(one for one in side if sides.teachers.get(one.source, name) == name) for side in (train, validation)
        ]
        if not parts[0]:
            raise ConfigError(
                f"none of the conversations to train on is taught by teachers.{name}",
                fix=f"route rows to it (data.route), or delete [teachers.{name}]",
            )
        heard = {one.source: context.before(messages[one.source]) for side in parts for one in side}
        talks = [(one.source, heard[one.source]) for one in parts[0]]
        if not context.digest:
            found.append(Course(name, alone, talks, parts[0], parts[1], None, heard))
            continue
        read = [_as_read(context, messages, side, tokenizer, name) for side in parts]
        prompts = {one.source: one.ids[: one.targets[0]] for side in read for one in side}
        found.append(Course(name, alone, talks, read[0], read[1], prompts, heard))
    return found


def _as_read(
    context: Context, messages: Mapping[str, Any], examples: Sequence[Example], tokenizer: Any, name: str
) -> tuple[Example, ...]:
    """The examples with the teacher's prompt instead of the student's: the same answers, token by token."""
    if not examples:
        return ()
    try:
        whole = [(one.source, context.before(messages[one.source])) for one in examples]
        found = render(whole, tokenizer, NO_LIMIT).examples
    except TutelageError as error:
        raise type(error)(f"with the prompt of {_called(name)}: {error.message}", fix=error.fix) from error
    for own, read in zip(examples, found, strict=True):
        if own.ids[own.targets[0] :] != read.ids[read.targets[0] :]:
            raise ConfigError(
                f"with the prompt of {_called(name)} the template writes the answer of {own.source} in other tokens",
                fix="use a template whose text of an answer does not depend on what stands before it",
            )
    return found


def _called(name: str) -> str:
    return f"teachers.{name}" if name else "the teacher"
