"""The tables of `tutelage train`'s run file: which conversations, whose signal, what student, which method. No torch."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tutelage.config import (
    AcceptedRiskTable,
    Count,
    RunTable,
    Share,
    ShipTable,
    Table,
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
    bad_rows: Literal["stop", "skip"] = "stop"
    accepted_risk: AcceptedRiskTable | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "ConversationsTable":
        if (self.path is None) == (self.collected is None):
            raise ValueError("give exactly one of path (a file) and collected (a folder of answers)")
        if self.path is not None and self.licence is None:
            raise ValueError('say under which licence you hold the data: licence = "own" for your own')
        if self.collected is not None and self.licence is not None:
            raise ValueError(f"licence = {self.licence!r} is for a file: collected answers are under their teacher's")
        return self


class WeightsTable(Table):
    """A teacher whose weights are here: a Hugging Face folder, or a GGUF file, which is de-quantised."""

    resource: str | None = None
    path: str | None = None
    licence: str | None = None  # of your own weights; a resource carries its own
    lineage: str | None = None  # lineage.json of a teacher that is itself a student; one in its folder is found
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of its weights; auto: bfloat16 where the CPU has it
    accepted_risk: AcceptedRiskTable | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "WeightsTable":
        if (self.resource is None) == (self.path is None):
            raise ValueError("give exactly one of resource and path (a folder or a GGUF file)")
        if self.path is not None and self.licence is None:
            raise ValueError('say under which licence you hold those weights: licence = "own" for your own')
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
    template: str | None = None  # chat template (Jinja); default: the base's own
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


SignalName = Literal["dense", "hidden", "threshold", "random", "top-k", "sampled", "text", "pairs"]


class MethodTable(Table):
    """Who writes the text that is learnt on, which divergence is made small, and what the teacher reveals."""

    loss: str = "forward-kl"
    prefix: Literal["data", "student"] | Annotated[float, Field(gt=0, le=1)] = "data"  # a number: the student's share
    signal: SignalName | None = None  # default: the usual one of the loss
    c: float = Field(default=0.02, gt=0, le=1)  # threshold: ids less likely than this are drawn
    k: Count = 32  # top-k: ids kept
    draws: Count = 50  # random: draws a position
    text_weight: float = Field(default=0.0, ge=0)  # of cross-entropy on the text, beside the divergence
    beta: float | None = None
    alpha: float | None = None
    least_tail: float | None = None
    baseline: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    max_new_tokens: Count = 256  # of an answer the student writes
    temperature: float = Field(default=1.0, ge=0)
    engine: Literal["local", "llama.cpp", "vllm", "sglang"] = "local"  # that writes them
    engine_url: str | None = None  # of a vLLM or SGLang server
    engine_model: str | None = None  # the student's name there
    engine_folder: str | None = None  # where that server reads its weights
    writer: Literal["own", "bfloat16", "int8"] = "own"  # weights that the local engine writes with

    @model_validator(mode="after")
    def _consistent(self) -> "MethodTable":
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
        return self

    @property
    def student_share(self) -> float:
        """Share of the steps that are on the student's own text: 0 is off-policy."""
        return {"data": 0.0, "student": 1.0}[self.prefix] if isinstance(self.prefix, str) else self.prefix

    @property
    def parameters(self) -> dict[str, float]:
        """Those of the loss that are given."""
        names = ("beta", "alpha", "least_tail", "baseline", "ratio_low", "ratio_high")
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
    student: LearnerTable
    method: MethodTable
    train: StepsTable = StepsTable()
    ship: ShipTable = ShipTable()

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingConfig":
        if self.student.trim_vocabulary and self.teacher is not None:
            raise ValueError(
                "student.trim_vocabulary: a teacher of the full vocabulary cannot teach fewer tokens one by one; leave it out, "
                "or train on text alone (no [teacher])"
            )
        if self.student.lora is not None and self.method.student_share and self.method.engine == "llama.cpp":
            raise ValueError('student.lora with method.engine = "llama.cpp": let the local engine write')
        return self

    def resolved(self) -> dict[str, Any]:
        """Plain values of every setting, defaults included. `train.epochs` does not count where `steps` is given."""
        found = self.model_dump(mode="json")
        if self.train.steps is not None:
            del found["train"]["epochs"]
        return found
