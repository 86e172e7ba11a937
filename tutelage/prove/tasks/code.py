"""Code, by its unit tests. Running what a model wrote is off unless the run file says `allow_execution = true`."""

import ast
import re
import warnings
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from tutelage.config import Table
from tutelage.errors import ConfigError
from tutelage.prove.tasks.base import Answer, Score, shown, unreadable
from tutelage.prove.tasks.json_values import NoValue, read_json
from tutelage.prove.tasks.sandbox import Limits, isolation_problem, run_test

MAX_CODE = 100_000  # characters
MAX_TESTS = 200
# Code within a line is passed over; a block that is not closed ends where Python begins.
_FENCE = re.compile(
    r"```[^`\n]+```|```[ \t]*([^\n`]*)\n(.*?)(?:```(?!(?:py|python3?)\b)|(?=```(?:py|python3?)\b)|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_PYTHON = {"", "py", "python", "python3"}
_FIX = (
    'give gold as Python that raises when the answer is wrong, a JSON list of such texts, or {"setup": …, "tests": […]}'
)


class CodeOptions(Table):
    """Limits of one test, and what its result counts: 1 only when all tests pass, or the share that does.

    `isolation` "none" runs the code with the rights of whoever runs this: for machines that hold nothing of worth.
    """

    allow_execution: bool = False
    isolation: Literal["namespaces", "none"] = "namespaces"
    time_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    memory_mib: Annotated[int, Field(ge=64, le=65536)] = 512
    count: Literal["all", "share"] = "all"


class Tests(NamedTuple):
    """What the gold says: code to run before each test, and the tests."""

    setup: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Share of tests passed, or whether all are. Python and its standard library; every test in a process of its own.

    Not pure in time: a test near its limit may pass on one day and not on another.
    """

    options: CodeOptions
    name: str = "code"
    answers_are_references: bool = False  # a reference holds tests, and another model's answer holds none

    def __post_init__(self) -> None:
        if not self.options.allow_execution:
            raise ConfigError(
                "task code runs what models wrote, and allow_execution is not true",
                fix="set allow_execution = true in the task's table, on a machine where that is all right",
            )
        if self.options.isolation == "namespaces" and (problem := isolation_problem()):
            raise ConfigError(
                f"task code cannot be shut in: {problem}",
                fix='run on Linux with user namespaces, or set isolation = "none" in a container that holds nothing of worth',
            )

    @property
    def is_binary(self) -> bool:
        return self.options.count == "all"

    @property
    def metric(self) -> str:
        return "pass@1" if self.is_binary else "share of tests passed"

    def require_reference(self, reference: str) -> None:
        found = tests_of(reference)
        if isinstance(found, str):
            raise unreadable("code", reference, found, _FIX)

    def score(self, answer: Answer, reference: str) -> Score:
        code, found = code_of(answer.text), tests_of(reference)
        if not code:
            return Score(0.0, False, "no code")
        if isinstance(found, str):
            return Score(0.0, True, f"the reference {found}")
        if problem := syntax_problem(code):
            return Score(0.0, False, problem)
        limits = Limits(self.options.time_s, self.options.memory_mib << 20, self.options.isolation == "namespaces")
        outcomes = [run_test(code, found.setup, test, limits) for test in found.tests]
        share = outcomes.count("passed") / len(outcomes)
        value = float(share == 1) if self.is_binary else share
        failed = [f"test {at}: {outcome}" for at, outcome in enumerate(outcomes, 1) if outcome != "passed"]
        read = "; ".join([f"{outcomes.count('passed')} of {len(outcomes)} tests", *failed])
        return Score(value, True, shown(read), {"tests passed": share})


def code_of(text: str) -> str:
    """The code in an answer: the first fenced Python that defines something, else the first fence, else all of the text.
    Fences of other languages are no code. Empty when there is none, or too much."""
    blocks = [(found[1], found[2]) for found in _FENCE.finditer(text) if found[2] is not None]
    fences = [block for info, block in blocks if (info.split() or [""])[0].lower() in _PYTHON]
    defining = [fence for fence in fences if re.search(r"^\s*(?:async\s+def|def|class)\s", fence, re.MULTILINE)]
    code = (defining or fences or [text if "```" not in text else ""])[0]
    return code if code.strip() and len(code) <= MAX_CODE else ""


def tests_of(reference: str) -> Tests | str:
    """What a gold holds, or what is wrong with it."""
    try:
        value = read_json(reference)
    except NoValue:
        value = [reference]
    setup, tests = (value.get("setup", ""), value.get("tests")) if isinstance(value, dict) else ("", value)
    if not isinstance(setup, str) or not isinstance(tests, list) or not all(isinstance(one, str) for one in tests):
        return "holds no tests"
    if not tests or len(tests) > MAX_TESTS:
        return f"holds {len(tests)} tests, not 1 to {MAX_TESTS}"
    for part in (setup, *tests):
        if problem := syntax_problem(part):
            return problem
    if not all(_does_something(test) for test in tests):
        return "holds an empty test"
    return Tests(setup, tuple(tests))


def syntax_problem(code: str) -> str:
    """Why a text is no Python; "" when it is. Parsed, never run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a model's text is nobody's concern
            ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        return f"is no Python: {type(error).__name__}: {shown(str(error))}"
    return ""


def _does_something(test: str) -> bool:
    return any(not isinstance(node, ast.Pass) for node in ast.parse(test).body)
