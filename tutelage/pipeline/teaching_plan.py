"""From the method that a run file names to what the engine takes: loss, signal, teacher, cache, source, judge."""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tutelage.canon import digest_bytes, digest_of
from tutelage.config import TrainTable
from tutelage.errors import ConfigError
from tutelage.losses.base import Loss
from tutelage.losses.catalogue import ENTRIES, make
from tutelage.models.causal import Causal
from tutelage.models.kernels import economical
from tutelage.models.tokens import TokenBytes
from tutelage.pipeline.choosing import Access, Tokens, nearest, need_of, require_supported
from tutelage.pipeline.gate_training import teacher_in, teacher_inputs
from tutelage.records import Role
from tutelage.signals import Scored, TopK
from tutelage.store.signal_kinds import Draws, HiddenStates, Kind, Threshold, TopKTail
from tutelage.store.signals import Identity, SignalCache, identity_in
from tutelage.train.contrast import ContrastSource, ContrastTeacher
from tutelage.train.examples import Example, end_of_turn_ids
from tutelage.train.health import Finding, Limits, Start
from tutelage.train.judging import HeldOutJudge
from tutelage.train.loop import Judge, Source, plan_steps
from tutelage.train.lora import TARGETS, add_lora
from tutelage.train.numerics import uses_bf16
from tutelage.train.offpolicy import DataSource
from tutelage.train.onpolicy import RolloutSource
from tutelage.train.per_prompt import PromptSource, by_prompt
from tutelage.train.preflight import ACROSS, CAPTURED, choose_signal, require_finite
from tutelage.train.rollout import Roller, end_ids
from tutelage.train.rollout_local import LocalRoller
from tutelage.train.student import load_base, load_student
from tutelage.train.subset import Subset, kept_of
from tutelage.train.teaching import (
    CachedTeacher,
    LiveTeacher,
    MovingTeacher,
    ScoringTeacher,
    Teaching,
    Together,
    Words,
    require_drawn_at_1,
)
from tutelage.training_config import MethodTable, TrainingConfig

RATIOS = ("ratio_low", "ratio_high")  # of an importance ratio: parameters of losses
WORDS_ALONE = ("text", "pairs", "recorded")  # signals that ask no teacher
# Of answers that were written before training: the student is meant to move away from what it wrote.
KEPT = Limits(drift_nats=math.inf, masked_share=0.5)
SCORED_TOP_K = "scored-top-k"  # candidates that an endpoint names as training goes, also on the student's own text


class Method(NamedTuple):
    """A loss, and the name of the signal that it is trained on."""

    loss: Loss
    signal: str


class Reader(NamedTuple):
    """A model that reads conversations, student or teacher, with its tokenizer; `tokens` is how many that one has."""

    model: Causal
    tokenizer: Any
    tokens: int

    @property
    def spelled(self) -> list[bytes]:
        """The bytes of each token."""
        spelled = TokenBytes(self.tokenizer)
        return [spelled[at] for at in range(self.tokens)]

    @property
    def digest(self) -> str:
        """Of its tokenizer."""
        return digest_bytes(self.tokenizer.backend_tokenizer.to_str().encode())


class Lesson(NamedTuple):
    """What the loop is given. `close` ends the engine that writes the student's answers, where there is one."""

    source: Source
    judge: Judge
    close: Callable[[], None]


def method_of(config: TrainingConfig) -> Method:
    """Raises `ConfigError` and `SignalError` for a method that makes no sense: before anything is loaded."""
    table = config.method
    loss = make(table.loss, **table.parameters)
    if config.scorer is not None:
        return Method(loss, scored_signal(config, loss))
    signal = choose_signal(loss, table.signal, table.student_share)
    if (signal in WORDS_ALONE) != (not config.each_teacher()):
        if signal in WORDS_ALONE:
            other = 'leave out signal = "recorded"' if signal == "recorded" else "choose another loss"
            raise ConfigError(
                f"{loss.name}{' of recorded answers' * (signal == 'recorded')} asks no teacher, and one is named",
                fix=f"{other}, or delete [teacher]",
            )
        raise ConfigError(
            f"{loss.name} needs a teacher's weights", fix='name them under [teacher], or use "cross-entropy"'
        )
    if signal == "recorded" and config.data.collected is None:
        raise ConfigError(
            'method.signal = "recorded" takes log-probabilities of collected answers, and the data is a file',
            fix='name a folder of answers (data.collected), collected with teacher.signal = "top-logprobs"',
        )
    if table.loss == "taid" and signal in CAPTURED:
        raise ConfigError(
            f"signal = {signal!r}: taid's target moves with the student as training goes, and captured signals stand still",
            fix='leave signal out (the teacher is asked as training goes), or choose loss = "forward-kl"',
        )
    if signal in ACROSS and len(config.each_teacher()) > 1:
        raise ConfigError(
            f"{loss.name} with the teachers {', '.join(config.each_teacher())}: chunks are those of one teacher's tokenizer",
            fix="name one [teacher], or choose a loss on tokens",
        )
    require_drawn_at_1(loss, table.temperature)
    _require_whole(config, loss)
    if table.text_weight and (signal == "text" or table.student_share):
        why = "is that already" if signal == "text" else "on the student's own text teaches nothing"
        raise ConfigError(
            f"method.text_weight = {table.text_weight:g}: cross-entropy {why}", fix="leave text_weight out"
        )
    return Method(loss, signal)


def _require_whole(config: TrainingConfig, loss: Loss) -> None:
    """Raises `ConfigError` for what a loss on whole answers, or on both texts, cannot be combined with."""
    table = config.method
    if table.focus is None:
        return
    if loss.joint is not None or table.loss == "distillm-2":
        raise ConfigError(
            f"method.focus = {table.focus:g}: {loss.name} is of whole answers",
            fix="leave focus out, or choose another loss",
        )
    if config.data.has_rationales:
        raise ConfigError(
            f"method.focus = {table.focus:g}: answer and reasoning are learnt whole, each with its weight",
            fix="leave focus out, or leave out data.rationale and data.rationale_marker",
        )


def scored_signal(config: TrainingConfig, loss: Loss) -> str:
    """What a loss is trained on by an endpoint that scores our text. Raises `ConfigError` for a loss that scores cannot support,
    with the nearest one that they can, and `SignalError` as `choose_signal` does."""
    table = config.method
    assert config.scorer is not None
    require_supported(table.loss, Access.SCORES, Tokens.UNKNOWN, config.scorer.top_logprobs)
    if loss.takes not in (Scored, TopK) and need_of(table.loss).access is not Access.TEXT:
        way = nearest(table.loss, Access.SCORES, Tokens.UNKNOWN, config.scorer.top_logprobs)
        raise ConfigError(f"{loss.name} is not trained on scores", fix=f"nearest to it: {way.keys} ({way.words})")
    if need_of(table.loss).access is Access.TEXT:
        raise ConfigError(
            f"{loss.name} asks no teacher, and one is named", fix="delete [teacher], or choose another loss"
        )
    reveals = "sampled" if loss.takes is Scored else "top-k"
    if table.signal not in (None, reveals):
        raise ConfigError(
            f"method.signal = {table.signal!r}: {loss.name} is trained on what the endpoint says of each token",
            fix="leave signal out",
        )
    require_drawn_at_1(loss, table.temperature)
    if table.text_weight and table.student_share:
        raise ConfigError(
            f"method.text_weight = {table.text_weight:g}: cross-entropy on the student's own text teaches nothing",
            fix="leave text_weight out",
        )
    return choose_signal(loss, None, table.student_share) if reveals == "sampled" else SCORED_TOP_K


def token_count(tokenizer: Any) -> int:
    """Tokens of a tokenizer, by its largest id: what a head has beyond it is padding."""
    return 1 + max(tokenizer.get_vocab().values())


def load_pupil(config: TrainingConfig, folder: Path) -> Reader:
    """The student as it is before training; adapters are drawn by the run's seed."""
    model, tokenizer = load_student(folder)
    require_finite(model, "student")
    model = with_adapters(config, model)
    economical(model)
    return Reader(Causal(model), tokenizer, token_count(tokenizer))


def with_adapters(config: TrainingConfig, model: Any) -> Any:
    """The model, with adapters where the run file asks for them."""
    table = config.student.lora
    if table is None:
        return model
    torch.manual_seed(config.run.seed)
    return add_lora(model, table.rank, table.alpha, table.targets or TARGETS)


def load_teacher(config: TrainingConfig, method: Method, pupil: Reader) -> Reader:
    """The teacher's weights, in the precision that the run file says; they never train. To a student with some of its tokens it
    speaks of those alone. Raises `SignalError` when the weights are not finite, and what reading them raises."""
    assert config.teacher is not None
    model, tokenizer = load_base(teacher_in(config).fetch())
    require_finite(model, "teacher")
    model = model.to(getattr(torch, teacher_precision(config)))
    economical(model)
    teacher = Causal(model)
    teacher.model.eval().requires_grad_(False)
    found = Reader(teacher, tokenizer, token_count(tokenizer))
    return _within(found, pupil) if config.student.trim_vocabulary and method.signal not in ACROSS else found


def _within(teacher: Reader, pupil: Reader) -> Reader:
    """The teacher read with the student's tokens, under its own template."""
    tokenizer = copy.deepcopy(pupil.tokenizer)
    tokenizer.chat_template = teacher.tokenizer.chat_template
    model = Subset(teacher.model, kept_of(pupil.tokenizer, teacher.tokenizer), teacher.tokens)
    return Reader(model, tokenizer, pupil.tokens)


def teacher_precision(config: TrainingConfig) -> str:
    """Of the teacher's weights on this machine: "float32" or "bfloat16"."""
    assert config.teacher is not None
    return "bfloat16" if uses_bf16(config.teacher.precision) else "float32"


def kind_of(table: MethodTable, signal: str, teacher: Reader | None) -> Kind:
    """What a cache keeps of this signal. Hidden states need the teacher's head."""
    if signal == "hidden":
        assert teacher is not None
        return HiddenStates.of(teacher.model.head(teacher.tokens))
    kinds: dict[str, Kind] = {
        "threshold": Threshold(table.c), "random": Draws(table.draws), "top-k": TopKTail(table.k)
    }  # fmt: skip
    return kinds[signal]


def identity_of(
    config: TrainingConfig, kind: Kind, teacher_tokenizer: str, pupil: Reader, examples: Sequence[Example]
) -> Identity:
    """What a cache of these examples must have been captured for."""
    return Identity(
        kind=kind,
        teacher=digest_of({**teacher_inputs(config), "precision": teacher_precision(config)}),
        tokenizer=teacher_tokenizer,
        student_tokenizer=pupil.digest,
        template=digest_bytes(pupil.tokenizer.chat_template.encode()),
        dataset=digest_of([example.key for example in examples]),
        sampling=f"as given; draws by seed {config.run.seed}",
        logprobs="raw",
        vocabulary=pupil.tokens,
    )


def cached(
    config: TrainingConfig, method: Method, folder: Path, pupil: Reader, examples: Sequence[Example]
) -> SignalCache:
    """The signals that were captured for these examples. Raises `SignalError` when they are of others."""
    teacher = load_teacher(config, method, pupil) if method.signal == "hidden" else None
    kind = kind_of(config.method, method.signal, teacher)
    said = identity_in(folder)["identity"]["tokenizer"]
    return SignalCache(folder, identity_of(config, kind, said, pupil, examples))


def teaching_of(config: TrainingConfig, method: Method, teacher: Reader | None, cache: SignalCache | None) -> Teaching:
    """The method's parts of a batch."""
    if method.signal == "text":
        return Words(method.loss)
    if cache is not None:
        main: Teaching = CachedTeacher(cache, method.loss)
    else:
        assert teacher is not None
        moving = partial(MovingTeacher, start=0.4 if config.method.t is None else config.method.t)
        kinds: dict[str, Any] = {"distillm-2": ContrastTeacher, "taid": moving}
        kind = ScoringTeacher if method.signal == "sampled" else kinds.get(config.method.loss, LiveTeacher)
        main = kind(teacher.model, method.loss, teacher.tokens)
    weight = config.method.text_weight
    return Together([main, Words(make("cross-entropy"), weight)]) if weight else main


def judged_by(method: Method, teacher: Reader | None, teaching: Teaching) -> Teaching:
    """The same divergence on text that stands there: scores are of the student's own text, so the whole of it is taken."""
    if method.signal != "sampled":
        return teaching
    assert teacher is not None
    return LiveTeacher(teacher.model, make("reverse-kl"), teacher.tokens)


def objective_in_words(config: TrainingConfig, method: Method) -> str:
    """What the held-out figure is of: every term with its weight. It is of text that stands there: scores of the student's own
    are judged by the divergence that they estimate, losses of both texts by that
    of the data's, a moving target by where it ends."""
    table, name = config.method, method.loss.name
    if method.signal == "sampled":
        name = "reverse-kl" if config.scorer is None else "top-k-reverse-kl"
    elif table.loss == "taid":  # whose target has arrived at the teacher
        name = "forward-kl"
    elif table.loss == "distillm-2":  # the half of it that is of the data's text
        alpha = table.parameters.get("alpha", ENTRIES[table.loss].parameters["alpha"].default)
        name = make("skew-kl", alpha=alpha).name
    if config.data.has_rationales:
        return f"{name} of answer and reasoning, the latter × {table.rationale_weight:g} × the share that has one"
    if method.signal == "pairs":
        name += " (a pair)"
    if "tau" in ENTRIES[table.loss].parameters:
        name = f"{table.parameters.get('tau', ENTRIES[table.loss].parameters['tau'].default):g} × {name}"
    return f"{name} + {table.text_weight:g} × cross-entropy of the text" if table.text_weight else name


def lesson_of(
    config: TrainingConfig, pupil: Reader, train: Sequence[Example], validation: Sequence[Example], teaching: Teaching,
    judging: Teaching, tell: Callable[[str], Any], start: Start, folder: Path, kept: Roller | None = None,
) -> Lesson:  # fmt: skip
    """Source and judge. Each kind of trouble with the student's answers is told once; `start` is what was usual when training
    began. Answers that are learnt from for a whole epoch are kept in `folder`; `kept` has them where all were written before."""
    count, kind = len(train), DataSource
    if config.train.epoch_over == "prompts":
        count, kind = len(by_prompt(train)), PromptSource
    table, method = table_of(config, count), config.method
    reader = LocalRoller(pupil.model.model, ends_of(pupil))
    judge = HeldOutJudge(
        validation, judging, roller=reader, answers=config.train.answers, max_new_tokens=method.max_new_tokens
    )
    if not method.student_share:
        source = kind(train, teaching, table, config.run.seed, pupil.model.device, method.focus)
        return Lesson(source, judge, lambda: None)
    told: set[str] = set()

    def warn(finding: Finding) -> None:
        if finding.name not in told:
            told.add(finding.name)
            tell(f"warning: {finding.words} (limit {finding.limit:.3g}; the journal has every step)")

    roller = kept or roller_of(config, pupil)
    seed, drawn = config.run.seed, {"max_new_tokens": method.max_new_tokens, "temperature": method.temperature}
    if isinstance(teaching, ContrastTeacher):
        source = ContrastSource(
            train, pupil.model, roller, teaching, table, seed, folder, warn=warn, start=start, **drawn
        )
        return Lesson(source, judge, roller.close)
    source = RolloutSource(
        train, pupil.model, roller, teaching, table, seed, student_share=method.student_share, warn=warn, start=start,
        focus=method.focus, ratios=ratios_of(method), limits=KEPT if kept else None, **drawn,
    )  # fmt: skip
    return Lesson(source, judge, roller.close)


def ratios_of(table: MethodTable) -> tuple[float, float] | None:
    """Bounds of the importance ratio beyond which a drawn token is left out; None where the loss has none."""
    known = ENTRIES[table.loss].parameters
    low, high = (table.parameters.get(name, known[name].default) if name in known else None for name in RATIOS)
    return None if low is None or high is None else (low, high)


def table_of(config: TrainingConfig, examples: int) -> TrainTable:
    """The loop's table: steps as the epochs they are."""
    if config.train.steps is None:
        return config.train
    per_epoch = plan_steps(examples, config.train).per_epoch
    return config.train.model_copy(update={"epochs": config.train.steps / per_epoch})


def ends_of(pupil: Reader) -> frozenset[int]:
    """All tokens that end the student's answers: the template's and those of its generation_config."""
    return end_of_turn_ids(pupil.tokenizer) | end_ids(pupil.model.model)


def roller_of(config: TrainingConfig, pupil: Reader) -> Roller:
    """The engine that writes the student's answers."""
    table, model, ends = config.method, pupil.model.model, ends_of(pupil)
    if table.engine == "local":
        return LocalRoller(model, ends, precision=table.writer)
    if table.engine == "llama.cpp":
        from tutelage.train.rollout_llamacpp import LlamaCppRoller

        room = min(pupil.model.limit, config.data.max_tokens + table.max_new_tokens)
        return LlamaCppRoller(model, slots=min(config.train.batch_size, 16), tokens_per_slot=room, ends=ends)
    from tutelage.train.rollout_server import SglangRoller, VllmRoller

    folder = Path(table.engine_folder or "")
    if table.engine == "vllm":
        return VllmRoller(table.engine_url or "", table.engine_model or "", folder, model, ends)
    return SglangRoller(table.engine_url or "", folder, model, ends)


def roles_of(config: TrainingConfig, teaching: Teaching) -> tuple[Role, ...]:
    """What a loss token counts as: a divergence beside the text counts for whoever wrote that, too."""
    return (teaching.role, Role.TEXT_TARGET) if config.method.text_weight else (teaching.role,)
