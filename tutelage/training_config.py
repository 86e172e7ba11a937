"""The tables of `tutelage train`'s run file: which conversations, whose signal, what student, which method. No torch."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tutelage.compare_config import Name
from tutelage.config import (
    AcceptedRiskTable,
    BudgetTable,
    Count,
    RunTable,
    Share,
    ShipTable,
    Table,
    TeacherTable,
    TrainTable,
    require_plain_url,
)


class ConversationsTable(Table):
    """The conversations to learn from: a file of them, or answers that `tutelage collect` got."""

    path: str | None = None
    collected: str | None = None  # the folder of a collection, or one of captured or imported answers
    format: Literal["jsonl", "csv", "tsv", "parquet"] | None = None  # default: told by the file's name
    question: str | None = None  # column with the question; default: the usual names
    answer: str | None = None  # column with the answer; default: the usual names
    system: str = ""  # a system message for conversations that bring none
    licence: str | None = None  # under which you hold the file: "own", or an SPDX id
    limit: Count | None = None  # so many conversations at most, the first ones
    validation: Count | Share = 0.05  # set aside to judge by: a share, or how many
    max_tokens: Count = 1024  # of one conversation; longer ones are left out, never cut
    route: str | None = None  # column that names each row's teacher, where there are several
    teacher: str | None = None  # of rows whose column is empty, or of all of them
    rationale: str | None = None  # column with the reasoning that leads to the answer, to be learnt as a second task
    rationale_marker: str | None = Field(default=None, min_length=1)  # or what stands between both in the answer
    bad_rows: Literal["stop", "skip"] = "stop"
    accepted_risk: AcceptedRiskTable | None = None

    @property
    def has_rationales(self) -> bool:
        return self.rationale is not None or self.rationale_marker is not None

    @model_validator(mode="after")
    def _consistent(self) -> "ConversationsTable":
        if self.rationale is not None and (self.rationale_marker is not None or self.path is None):
            raise ValueError(
                f"rationale = {self.rationale!r} is a column of a file; for reasoning in the answer give rationale_marker"
            )
        if (self.path is None) == (self.collected is None):
            raise ValueError("give exactly one of path (a file) and collected (a folder of answers)")
        if self.path is not None and self.licence is None:
            raise ValueError('say under which licence you hold the data: licence = "own" for your own')
        if self.collected is not None and self.licence is not None:
            raise ValueError(f"licence = {self.licence!r} is for a file: collected answers are under their teacher's")
        if self.collected is not None and self.route is not None:
            raise ValueError(f"route = {self.route!r} is a column of a file; for collected answers give teacher")
        return self


class WeightsTable(Table):
    """A teacher whose weights are here: a Hugging Face folder, or a GGUF file, which is de-quantised; or the student itself, as
    it was before this training. It may read more than the student does."""

    resource: str | None = None
    path: str | None = None
    old_self: bool = False  # the student before this training
    licence: str | None = None  # of your own weights; a resource carries its own
    lineage: str | None = None  # lineage.json of a teacher that is itself a student; one in its folder is found
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of its weights; auto: bfloat16 where the CPU has it
    accepted_risk: AcceptedRiskTable | None = None
    system: str | None = None  # a system message that this teacher alone reads
    system_file: str | None = None  # the same, as a file of text
    examples_file: str | None = None  # turns before the conversation, which this teacher alone reads

    @model_validator(mode="after")
    def _consistent(self) -> "WeightsTable":
        if (self.resource is not None) + (self.path is not None) + self.old_self != 1:
            raise ValueError("give exactly one of resource, path (a folder or a GGUF file) and old_self = true")
        if self.old_self and (self.licence or self.lineage or self.accepted_risk):
            raise ValueError("old_self: licence, lineage and accepted_risk are those of [student]")
        if self.system is not None and self.system_file is not None:
            raise ValueError("give the system message as system or as system_file, not both")
        if self.path is not None and self.licence is None:
            raise ValueError('say under which licence you hold those weights: licence = "own" for your own')
        return self


class ScorerTable(TeacherTable):
    """A teacher behind an API that says what it thinks of the text that we send: a [teacher] with a url."""

    scores: Literal["echo", "prompt_logprobs"] | None = None  # how it is asked; default: as a probe found, else echo

    @model_validator(mode="after")
    def _scores(self) -> "ScorerTable":
        if self.batch:
            raise ValueError("batch = true: a step waits for its scores, and a batch API takes hours; leave it out")
        if self.signal != "top-logprobs":
            raise ValueError(f"signal = {self.signal!r} is for label questions; here method.loss says what is asked")
        return self


class LoraTable(Table):
    """Low-rank adapters: only they are trained, and they are added to the weights at the end."""

    rank: Count = 16
    alpha: float = Field(default=32.0, gt=0)
    targets: tuple[str, ...] = ()  # names of linear layers; default: those of attention and of the feed-forward part


class LearnerTable(Table):
    """What the student starts as. Sizes that are left out stay those of its base."""

    base: str | None = None
    path: str | None = None
    licence: str | None = None
    init: Literal["whole", "pruned", "random"] | None = None  # default: pruned where a size is given, else whole
    layers: Count | None = None
    keep: Literal["first", "even", "importance"] = "first"
    hidden: Count | None = None
    neurons: Count | None = None
    heads: Count | None = None
    trim_vocabulary: bool = False
    lora: LoraTable | None = None
    template: str | None = Field(default=None, min_length=1)  # chat template (Jinja); default: the base's own
    accepted_risk: AcceptedRiskTable | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "LearnerTable":
        if (self.base is None) == (self.path is None):
            raise ValueError("give exactly one of base (a resource) and path (a folder or a GGUF file)")
        if self.path is not None and self.licence is None:
            raise ValueError('say under which licence you hold those weights: licence = "own" for your own')
        if self.start == "whole" and self.sizes:
            raise ValueError(f'init = "whole" with {self.sizes[0]}: use "pruned" or "random", or leave the size out')
        if self.start == "pruned" and not self.sizes:
            raise ValueError('init = "pruned" without layers, hidden, neurons or heads: nothing would be pruned')
        return self

    @property
    def sizes(self) -> tuple[str, ...]:
        """Names of the sizes that are given."""
        return tuple(name for name in ("layers", "hidden", "neurons", "heads") if getattr(self, name) is not None)

    @property
    def start(self) -> str:
        """`init`, worked out where it is not said."""
        return self.init or ("pruned" if self.sizes else "whole")


SignalName = Literal[
    "dense",
    "hidden",
    "threshold",
    "random",
    "top-k",
    "sampled",
    "text",
    "pairs",
    "chunks",
    "recorded",
    "ranks",
    "matched",
]


_DENSE, _SPARSE, _TOP_K = ("dense", "hidden"), ("threshold", "random"), ("top-k",)
# Losses of the catalogue (`losses.catalogue`) and the signals that each learns from, the usual one first: here without torch, so
# that what is misspelt or does not fit is told at once.
LOSSES: dict[str, tuple[str, ...]] = {
    "forward-kl": _DENSE, "reverse-kl": _DENSE, "jsd": _DENSE, "skew-kl": _DENSE, "skew-reverse-kl": _DENSE,
    "distillm-2": _DENSE, "adaptive-kl": _DENSE, "entropy-aware-kl": _DENSE, "taid": _DENSE, "total-variation": _DENSE,
    "top-k-forward-kl": _TOP_K, "top-k-reverse-kl": _TOP_K, "sparse-forward-kl": _SPARSE, "cross-entropy": ("text",),
    "sampled-reverse-kl": ("sampled",), "alm": ("chunks", "recorded"), "uld": ("ranks",), "gold": ("matched",),
    "dpo": ("pairs",),
}  # fmt: skip


class MethodTable(Table):
    """Who writes the text that is learnt on, which divergence is made small, and what the teacher reveals."""

    loss: str = "forward-kl"
    prefix: Literal["data", "student"] | Annotated[float, Field(gt=0, le=1)] = "data"  # a number: the student's share
    signal: SignalName | None = None  # default: the usual one of the loss
    c: float = Field(default=0.02, gt=0, le=1)  # threshold: ids less likely than this are drawn
    k: Count = 32  # top-k: ids kept
    draws: Count = 50  # random: draws a position
    focus: float | None = Field(
        default=None, gt=0, lt=1
    )  # share of each answer's tokens that is learnt, the least sure
    text_weight: float = Field(default=0.0, ge=0)  # of cross-entropy on the text, beside the divergence
    beta: float | None = None
    alpha: float | None = None
    head: float | None = None
    threshold_nats: float | None = None
    t: float | None = None
    least_tail: float | None = None
    baseline: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    tau: float | None = None
    max_new_tokens: Count = 256  # of an answer the student writes
    temperature: float = Field(default=1.0, ge=0)
    engine: Literal["local", "llama.cpp", "vllm", "sglang"] = "local"  # that writes them
    engine_url: str | None = None  # of a vLLM or SGLang server
    engine_model: str | None = None  # the student's name there
    engine_folder: str | None = None  # where that server reads its weights
    writer: Literal["own", "bfloat16", "int8"] = "own"  # weights that the local engine writes with
    rollouts: Literal["fresh", "kept"] = "fresh"  # kept: all written by the student before training, and scored once
    refresh: Literal["never", "epoch"] = "never"  # of pairs: when the student writes its side of them anew
    rationale_weight: float = Field(default=0.5, gt=0, lt=1)  # of the reasoning; the answer has the rest
    rationale_prefix: str = Field(default="[rationale]", min_length=1)  # before a question that asks for the reasoning

    @field_validator("prefix", mode="before")
    @classmethod
    def _whose(cls, value: object) -> object:
        is_share = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1
        if value in ("data", "student") or is_share:
            return value
        raise ValueError(f'{value!r} is not "data", "student", or a share of the steps above 0 and up to 1')

    @model_validator(mode="after")
    def _consistent(self) -> "MethodTable":
        if self.loss not in LOSSES:
            near = difflib.get_close_matches(self.loss, LOSSES, n=1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"there is no loss {self.loss!r}{meant}; choose one of {', '.join(LOSSES)}")
        fitting = LOSSES[self.loss]
        if self.signal is not None and self.signal not in fitting:
            others = ", ".join(loss for loss, signals in LOSSES.items() if self.signal in signals)
            raise ValueError(
                f"{self.loss} does not learn from signal = {self.signal!r}: use {' or '.join(map(repr, fitting))}, or leave it "
                f"out; from {self.signal!r} learn {others}"
            )
        if self.engine_url is not None:
            require_plain_url(self.engine_url)
        if (self.engine in ("vllm", "sglang")) != (self.engine_url is not None and self.engine_folder is not None):
            raise ValueError(f"engine = {self.engine!r}: engine_url and engine_folder are for vllm and sglang, both")
        if (self.engine == "vllm") != (self.engine_model is not None):
            raise ValueError(f"engine = {self.engine!r}: engine_model is the student's name at a vllm server")
        if self.engine == "sglang" and self.temperature != 1:
            raise ValueError(f"temperature = {self.temperature:g}: an sglang server writes at 1 only")
        if self.writer != "own" and self.engine != "local":
            raise ValueError(f"writer = {self.writer!r} is for the local engine, not {self.engine}")
        if self.loss == "distillm-2" and self.prefix != "data":
            raise ValueError(
                f"prefix = {self.prefix!r}: distillm-2 takes the data's and the student's text in every step"
            )
        if self.rollouts == "kept" and (self.loss != "sampled-reverse-kl" or self.prefix != "student"):
            raise ValueError(
                'rollouts = "kept" keeps scores of the tokens that the student drew: it is for loss = "sampled-reverse-kl" with '
                'prefix = "student"'
            )
        if self.refresh != "never" and self.loss != "dpo":
            raise ValueError(f'refresh = {self.refresh!r} is for pairs of answers (loss = "dpo"), not {self.loss}')
        return self

    @property
    def student_share(self) -> float:
        """Share of the text that is the student's own: of the steps, or in each of them. 0 is off-policy."""
        if self.loss == "distillm-2":
            return 0.5
        return {"data": 0.0, "student": 1.0}[self.prefix] if isinstance(self.prefix, str) else self.prefix

    @property
    def student_writes(self) -> bool:
        """Whether the student writes text that is learnt from, as it goes or before it does."""
        return bool(self.student_share) or self.loss == "dpo"

    @property
    def parameters(self) -> dict[str, float]:
        """Those of the loss that are given."""
        names = (
            "beta", "alpha", "head", "threshold_nats", "t", "least_tail", "baseline", "ratio_low", "ratio_high", "tau"
        )  # fmt: skip
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class StepsTable(TrainTable):
    """As for label questions, with what suits whole answers; `steps` may stand instead of `epochs`."""

    epochs: float = Field(default=1.0, gt=0)
    steps: Count | None = None
    batch_size: Count = 16
    learning_rate: float = Field(default=2e-4, gt=0)
    train_embeddings: bool = True
    segment_steps: Count = 1000
    answers: int = Field(default=8, ge=0)  # that the student writes at each validation, to see whether it stops
    epoch_over: Literal["answers", "prompts"] = "answers"  # prompts: each once, with another of its answers every epoch

    @model_validator(mode="after")
    def _consistent(self) -> "StepsTable":
        if self.steps is not None and "epochs" in self.model_fields_set:
            raise ValueError(f"steps = {self.steps} and epochs = {self.epochs:g}: give one of them")
        return self


class TrainingConfig(Table):
    """Training a student on conversations: the run file of `tutelage train`."""

    run: RunTable
    data: ConversationsTable
    teacher: WeightsTable | None = None
    scorer: ScorerTable | None = None  # a [teacher] with a url, whose weights are elsewhere
    teachers: dict[Name, WeightsTable] = Field(default_factory=dict)  # several: each row of the data has one of them
    student: LearnerTable
    method: MethodTable
    train: StepsTable = StepsTable()
    budget: BudgetTable = BudgetTable()  # of what a scorer costs
    ship: ShipTable = ShipTable()

    @model_validator(mode="before")
    @classmethod
    def _by_access(cls, raw: Any) -> Any:
        """A [teacher] with a url has other keys than one whose weights are here."""
        if not isinstance(raw, dict):
            return raw
        if "scorer" in raw:
            raise ValueError("there is no table [scorer]: a teacher behind an API is a [teacher] with a url")
        if isinstance(raw.get("teacher"), dict) and "url" in raw["teacher"]:
            return {**{name: table for name, table in raw.items() if name != "teacher"}, "scorer": raw["teacher"]}
        return raw

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingConfig":
        if problem := self._problem_of_teachers():
            raise ValueError(problem)
        if self.student.trim_vocabulary and self.scorer is not None:
            raise ValueError("student.trim_vocabulary: the endpoint reads ids of the full vocabulary; leave it out")
        reads_more = any(one.system or one.system_file or one.examples_file for one in self._weights())
        if self.student.trim_vocabulary and reads_more:
            raise ValueError(
                "student.trim_vocabulary: a prompt that the teacher alone reads would be spelled in the tokens that the student "
                "keeps, byte by byte where it lacks them; leave it out"
            )
        both = self.method.loss == "distillm-2"
        if (both or self.method.rollouts == "kept") and (reads_more or len(self.teachers) > 1):
            raise ValueError(
                f"{'distillm-2' if both else 'method.rollouts = kept'} takes one teacher that reads what the student reads: name "
                "one [teacher] without system, system_file and examples_file"
            )
        if self.data.has_rationales and self.method.loss != "cross-entropy":
            raise ValueError(
                f'data with rationales are learnt as text: loss = "cross-entropy" under [method], not {self.method.loss!r}'
            )
        if self.train.epoch_over == "prompts" and (self.method.student_writes or self.data.has_rationales):
            raise ValueError(
                'train.epoch_over = "prompts" is for answers of the data alone, without pairs and rationales'
            )
        fields = MethodTable.model_fields
        keys = ("rationale_prefix", "rationale_weight")
        given = [key for key in keys if getattr(self.method, key) != fields[key].default]
        if given and not self.data.has_rationales:
            raise ValueError(
                f"method.{given[0]} without data.rationale or data.rationale_marker: no reasoning is learnt"
            )
        if self.student.lora is not None and self.method.student_share and self.method.engine == "llama.cpp":
            raise ValueError('student.lora with method.engine = "llama.cpp": let the local engine write')
        return self

    def _weights(self) -> list[WeightsTable]:
        """Of all teachers whose weights are here."""
        return ([self.teacher] if self.teacher else []) + list(self.teachers.values())

    def _problem_of_teachers(self) -> str:
        """What is wrong with who teaches which rows; empty where nothing is."""
        if self.scorer is not None and self.teachers:
            return "[teacher] with a url and [teachers.NAME]: give one teacher, or several by name"
        if self.teacher is not None and self.teachers:
            return "[teacher] and [teachers.NAME]: give one teacher, or several by name"
        if not self.teachers:
            named = [f"{key} = {getattr(self.data, key)!r}" for key in ("route", "teacher") if getattr(self.data, key)]
            return f"data.{named[0]} chooses between teachers, and there are no [teachers.NAME]" if named else ""
        usual = self.data.teacher
        if usual is not None and usual not in self.teachers:
            return f"data.teacher = {usual!r} is none of the teachers {', '.join(self.teachers)}"
        if usual is None and self.data.route is None:
            return "several teachers: name the column that says which one teaches a row (data.route), or data.teacher"
        return ""

    def each_teacher(self) -> dict[str, "TrainingConfig"]:
        """The run file as it would be with that teacher alone, by its name: "" for the only one, empty for none."""
        if self.teacher is not None:
            return {"": self}
        data = self.data.model_copy(update={"route": None, "teacher": None})
        return {
            name: self.model_copy(update={"teacher": table, "teachers": {}, "data": data})
            for name, table in self.teachers.items()
        }

    def resolved(self) -> dict[str, Any]:
        """Plain values of every setting, defaults included. `train.epochs` does not count where `steps` is given."""
        found = self.model_dump(mode="json")
        found["teacher"] = found.pop("scorer") or found["teacher"]
        if self.train.steps is not None:
            del found["train"]["epochs"]
        return found
