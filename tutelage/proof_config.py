"""The tables of `tutelage prove`'s run file: which items, what an answer is worth, which models, what is claimed. No torch."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tutelage.config import AcceptedRiskTable, BudgetTable, Count, RunTable, SamplingTable, Share, Table, TeacherTable

ROLES = (
    "teacher",
    "student",
    "before",
    "plain",
    "checkpoint",
)  # those that a proof gives a meaning; others stand beside
FEWEST_AGAIN = 500
CRITERION_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")  # as a judge writes it in its last line


class ItemsTable(Table):
    """The held-out items: questions, and gold where there is any."""

    path: str
    format: Literal["jsonl", "csv", "tsv", "parquet"] | None = None  # default: told by the file's name
    text: str | None = None  # column with the question; default: the usual names
    gold: str | None = None  # column with the gold answer; may be empty in some rows
    gold_file: str | None = None  # or decisions of `tutelage label`, for some of the items
    gold_by: Literal["people", "programme", "teacher", "model"] | None = None  # who wrote the gold column
    system: str = ""  # a system message for questions that bring none
    licence: str  # under which you hold the items: "own", or an SPDX id
    limit: Count | None = None
    seen: tuple[str, ...] = ()  # files, or run folders, whose questions were trained on: no item may be among them
    bad_rows: Literal["stop", "skip"] = "stop"
    accepted_risk: AcceptedRiskTable | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "ItemsTable":
        if self.gold is not None and self.gold_file is not None:
            raise ValueError("give one of gold (a column) and gold_file (decisions of `tutelage label`)")
        if self.gold is not None and self.gold_by is None:
            raise ValueError('say who wrote the gold: gold_by = "people", or "programme" where it was computed')
        if self.gold_by in ("teacher", "model"):
            raise ValueError(
                f"gold_by = {self.gold_by!r}: what a model wrote is no gold; leave gold out and claim against the teacher"
            )
        return self


class ScoringTable(Table):
    """What an answer is worth: the kind of task, and its own settings beside it."""

    kind: str = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, raw: Any) -> Any:
        """`[task]` holds kind and the kind's settings side by side; they are told apart here."""
        if not isinstance(raw, dict) or "options" in raw:
            return raw
        return {key: raw[key] for key in ("kind",) if key in raw} | {
            "options": {key: value for key, value in raw.items() if key != "kind"}
        }


def _greedy(raw: Any) -> Any:
    """Answers are the likeliest ones unless the run file says otherwise: a proof is of what a model says, not of a draw."""
    return {"temperature": 0.0, **raw} if isinstance(raw, dict) else raw


class ProofSystemTable(TeacherTable):
    """A model that is asked the items. Answers are compared as words: log-probabilities come where the run file asks for them."""

    signal: Literal["top-logprobs", "text"] = "text"
    tokenizer: str | None = None  # folder with tokenizer and chat template of a model behind a url: to score text
    scores: Literal["echo", "prompt_logprobs"] = "echo"  # how it is asked to; the second is vLLM's own
    served_as: Literal["f32", "f16", "q8_0"] | None = None  # a folder: as a GGUF file made of it, behind llama.cpp

    @model_validator(mode="after")
    def _of_a_folder(self) -> "ProofSystemTable":
        if self.served_as is not None and self.path is None:
            raise ValueError(f"served_as = {self.served_as!r} makes a file of a folder's weights: give path, a folder")
        return self


class TeacherTextTable(Table):
    """The teacher's own answers are scored by teacher and student."""

    per: Literal["token", "byte"] = "token"  # nats a token, for one tokenizer; or bits a byte
    top: int = Field(default=5, ge=1, le=20)  # likeliest candidates a place that are asked for


class JudgeTable(TeacherTable):
    """A model that compares, or rates, answers."""

    signal: Literal["top-logprobs", "text"] = "text"
    form: Literal["pairwise", "rubric"] = "pairwise"
    criteria: dict[str, str] = Field(default_factory=lambda: {"quality": "right, complete, and to the point"})
    shows_gold: bool = False  # the gold answer is shown to the judge as a reference
    scale: int = Field(default=5, ge=2, le=10)  # of a rubric: 1 to so many
    max_tokens: Count = 256  # of one verdict

    @field_validator("criteria")
    @classmethod
    def _can_be_marked(cls, criteria: dict[str, str]) -> dict[str, str]:
        if not criteria:
            raise ValueError("no criterion: give at least one, a name and what it means, or leave the table out")
        for name, meaning in criteria.items():
            if not CRITERION_NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r:.60} is no name of a criterion: lower-case letters, digits, - and _, 40 at most"
                )
            if not meaning.strip():
                raise ValueError(f"criterion {name!r} has no meaning: say in words what it asks for")
        return criteria


class ProofClaimTable(Table):
    """Declared before any answer is seen: student minus teacher, and how much worse the student may be."""

    # gold: scores against the gold. teacher: the student's agreement with the teacher, against the teacher's own with
    # itself when asked again. judge: the share of items where the student's answer is preferred, against one half.
    # teacher-text: the student's log-probability of the teacher's text, less the teacher's own.
    comparison: Literal["gold", "teacher", "judge", "teacher-text"] = "gold"
    judge: str | None = None  # which judge; default: the only one, or the majority of several
    margin: Share
    level: Share = 0.95
    expected_difference: float = Field(default=0.0, allow_inf_nan=False)
    expected_discordance: Share = (
        0.2  # share of items on which just one is right, or the deviation of differences squared
    )
    expected_deviation: float = Field(default=0.3, gt=0)  # of one text's difference, in the unit; for teacher-text
    # of differences within a session, for the power alone; default: as if items of a session were independent
    expected_correlation: float | None = Field(default=None, ge=0, le=1)


class ControlsTable(Table):
    """What a proof is held against; what is turned off is named in the verdict."""

    again: int = Field(default=FEWEST_AGAIN, ge=0)  # items that the teacher is asked a second time


def _asked(table: TeacherTable) -> tuple[str | None, ...]:
    return (table.resource, table.path, (table.url or "").rstrip("/"), table.model)


class ProofConfig(Table):
    """A whole proof: the run file of `tutelage prove`."""

    run: RunTable
    items: ItemsTable
    task: ScoringTable
    sampling: Annotated[SamplingTable, BeforeValidator(_greedy)] = SamplingTable(temperature=0.0)
    systems: dict[str, ProofSystemTable]
    judges: dict[str, JudgeTable] = Field(default_factory=dict)
    claims: tuple[ProofClaimTable, ...]
    teacher_text: TeacherTextTable | None = None
    controls: ControlsTable = ControlsTable()
    budget: BudgetTable = BudgetTable()

    @model_validator(mode="after")
    def _consistent(self) -> "ProofConfig":
        if not self.claims:
            raise ValueError("no [[claims]]: say before looking how much worse the student may be")
        for role in ("teacher", "student"):
            if role not in self.systems:
                raise ValueError(f"systems.{role} is missing: a proof compares a student with its teacher")
        for name in (*self.systems, *self.judges):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", name):
                raise ValueError(f"{name!r} is no name: letters, digits, - and _ only")
        if self.sampling.samples > 1:
            raise ValueError(f"sampling.samples = {self.sampling.samples}: a proof scores one answer to each item")
        for key in ("tools_file", "schema_file"):
            if getattr(self.sampling, key) is not None:
                raise ValueError(
                    f"sampling.{key} is for `tutelage collect`: an item brings its tools and schema itself"
                )
        if _asked(self.systems["teacher"]) == _asked(self.systems["student"]):
            raise ValueError("systems.teacher and systems.student are the same model: a proof compares two")
        served, trained = self.systems["student"], self.systems.get("checkpoint")
        if trained is not None and (_asked(served), served.served_as) == (_asked(trained), trained.served_as):
            raise ValueError(
                "systems.checkpoint is what systems.student serves: give the weights that were trained, in their own form"
            )
        for claim in self.claims:
            self._check(claim)
        only = next(iter(self.judges)) if len(self.judges) == 1 else None  # whom a claim means that names no judge
        compared = {
            (claim.comparison, claim.judge or (only if claim.comparison == "judge" else None)) for claim in self.claims
        }
        if len(compared) < len(self.claims):
            raise ValueError("two claims compare the same: a claim is made once, with one margin")
        levels = sorted({claim.level for claim in self.claims})
        if len(levels) > 1:
            raise ValueError(
                f"claims at levels {', '.join(f'{level:g}' for level in levels)}: they are held together, so give all one level"
            )
        return self

    def _check(self, claim: ProofClaimTable) -> None:
        if claim.comparison != "teacher-text" and not -1 < claim.expected_difference < 1:
            raise ValueError(f"expected_difference = {claim.expected_difference:g}: shares differ by less than 1")
        has_gold = self.items.gold is not None or self.items.gold_file is not None
        if claim.comparison == "gold" and not has_gold:
            raise ValueError('a claim against gold needs items.gold or items.gold_file; or comparison = "teacher"')
        if claim.comparison == "teacher" and self.controls.again == 0:
            raise ValueError(
                "a claim against the teacher needs controls.again: its agreement with itself is the measure"
            )
        if claim.comparison == "judge" and not self.judges:
            raise ValueError('comparison = "judge" needs a table [judges.NAME]')
        if claim.comparison == "teacher-text" and self.teacher_text is None:
            raise ValueError('comparison = "teacher-text" needs a table [teacher_text]; it may be empty')
        if claim.judge is not None and (claim.comparison != "judge" or claim.judge not in self.judges):
            raise ValueError(
                f"judge = {claim.judge!r} is no judge of this claim; judges: {', '.join(self.judges) or 'none'}"
            )

    def resolved(self) -> dict[str, Any]:
        """Plain values of every setting, defaults included."""
        return self.model_dump(mode="json")
