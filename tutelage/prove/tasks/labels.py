"""Which of a few labels an answer says."""

from dataclasses import dataclass

from pydantic import Field

from tutelage.config import Table, TaskTable
from tutelage.prove.tasks.base import Answer, Score, unreadable
from tutelage.run_file import validate
from tutelage.tasks import literal_label


class LabelOptions(Table):
    """The labels, as in a label task's table."""

    labels: tuple[str, ...] = Field(min_length=2, max_length=20)


@dataclass(frozen=True, slots=True)
class Labels:
    """1 when answer and reference say the same label, read as everywhere (`tasks.literal_label`)."""

    table: TaskTable
    name: str = "labels"
    is_binary: bool = True
    metric: str = "accuracy"

    def require_reference(self, reference: str) -> None:
        if literal_label(self.table, reference) < 0:
            known = ", ".join(self.table.labels)
            raise unreadable("labels", reference, "is none of the labels", f"gold is one of {known}")

    def score(self, answer: Answer, reference: str) -> Score:
        said, right = literal_label(self.table, answer.text), literal_label(self.table, reference)
        is_read = said >= 0
        return Score(float(is_read and said == right), is_read, self.table.labels[said] if is_read else "")


def make(options: LabelOptions) -> Labels:
    """The task. Raises `ConfigError` for labels that cannot be told apart."""
    return Labels(validate(TaskTable, {"labels": options.labels}, "task labels"))
