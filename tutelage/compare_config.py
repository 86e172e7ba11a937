"""The tables of `tutelage compare-teachers`' run file: one task, one data file, several teachers. No torch."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tutelage.config import BudgetTable, Count, DataTable, RunTable, Share, Shot, Table, TaskTable, TeacherTable

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
MOST_CANDIDATES = 12
_ASKED = ("instruction", "question", "completion", "examples", "decision")  # what a candidate may have of its own
_IDENTITY = ("resource", "path", "url", "api", "model", "provider", "signal", "top_logprobs")


class ComparisonDataTable(DataTable):
    """The later run's data table, and how many of its training rows the comparison takes.

    With the same seed the split is the later run's own: what is compared on is never its held-out part.
    """

    items: Count  # training rows with a human label, one of each group of near-duplicates, that every candidate answers
    calibration: int = Field(
        default=0, ge=0
    )  # further training rows to fix label offsets on; their labels are not read

    @model_validator(mode="after")
    def _fits(self) -> "ComparisonDataTable":
        if self.items + self.calibration > self.train - self.validation:
            raise ValueError(
                f"items ({self.items}) and calibration ({self.calibration}) are taken from the training rows that are "
                f"not for validation: {self.train - self.validation}"
            )
        return self


class CandidateTable(TeacherTable):
    """A teacher, and what of the task it is asked in its own way; what is not said here is as [task] says."""

    instruction: str | None = None
    question: str | None = None
    completion: str | None = None  # "" lets it chat although [task] has a completion
    examples: tuple[Shot, ...] | None = None
    decision: Literal["argmax", "balanced"] | None = None


class RankingTable(Table):
    """Declared before anybody is asked."""

    margin: Share = 0.03  # so much worse than the best is as good for this purpose
    level: Share = 0.95
    power: Share = 0.9  # with which more items are to decide what is open


class CompareConfig(Table):
    """Several teachers asked the same questions: the run file of `tutelage compare-teachers`."""

    run: RunTable
    task: TaskTable
    data: ComparisonDataTable
    teachers: dict[Name, CandidateTable]
    ranking: RankingTable = RankingTable()
    budget: BudgetTable = BudgetTable()

    @model_validator(mode="after")
    def _consistent(self) -> "CompareConfig":
        if not 2 <= len(self.teachers) <= MOST_CANDIDATES:
            raise ValueError(
                f"a comparison needs 2 to {MOST_CANDIDATES} tables [teachers.NAME], not {len(self.teachers)}"
            )
        if self.data.gold_labels is not None and set(self.data.gold_labels) != set(self.task.labels):
            raise ValueError(f"data.gold_labels must give one rule for each of {list(self.task.labels)}")
        known: dict[str, str] = {}
        for name, teacher in self.teachers.items():
            task = self.task_of(name)
            self._require_signal(name, teacher, task)
            identity = repr([getattr(teacher, key) for key in _IDENTITY] + [task.model_dump(mode="json")])
            if identity in known:
                raise ValueError(
                    f"teachers.{known[identity]} and teachers.{name} are the same candidate: same model, same questions, "
                    "same decision"
                )
            known[identity] = name
        return self

    def _require_signal(self, name: str, teacher: CandidateTable, task: TaskTable) -> None:
        first_words = [label.split()[0] for label in task.labels]
        if teacher.signal == "top-logprobs" and len(set(first_words)) != len(first_words):
            raise ValueError(
                f"labels {list(task.labels)} share a first word: rename them so that the first words differ"
            )
        if task.decision == "argmax":
            return
        if teacher.signal == "text":
            raise ValueError(
                f'teachers.{name}: decision = "balanced" needs label probabilities: signal = "top-logprobs"'
            )
        if not self.data.calibration:
            raise ValueError(f'teachers.{name}: decision = "balanced" needs data.calibration, items to fix offsets on')

    def task_of(self, name: str) -> TaskTable:
        """The task as one candidate is asked it. Raises `ValueError` for a pattern or an example that is none."""
        own = {key: value for key in _ASKED if (value := getattr(self.teachers[name], key)) is not None}
        if own.get("completion") == "":
            own["completion"] = None
        return TaskTable.model_validate({**self.task.model_dump(), **own})

    def resolved(self) -> dict[str, Any]:
        """Plain values of every setting, defaults included."""
        return self.model_dump(mode="json")
