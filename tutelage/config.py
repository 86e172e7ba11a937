"""The tables of run files: one model, validated and frozen, for every key. `run_file` reads them. No torch."""

import re
from datetime import date
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(gt=0)]


class Table(BaseModel):
    """A table of the run file: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class RunTable(Table):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    seed: int = Field(ge=0, lt=2**31)
    purpose: Literal["internal", "distributed", "classifier-only", "competing-product", "research", "same-platform"]
    question: str = "Can a small student do this job about as well as its teacher?"


class Shot(Table):
    text: str
    label: str


class TaskTable(Table):
    kind: Literal["labels"] = "labels"
    labels: tuple[str, ...] = Field(min_length=2, max_length=20)
    instruction: str = ""  # the teacher's system message; never part of the student's prompt
    question: str = "{text}"  # the user message, for teacher and student alike
    examples: tuple[Shot, ...] = ()
    # For a teacher that continues text (the completions API) instead of chatting: how one example looks, with {text} and
    # {label}. The prompt is every example in this form, then the question up to its label.
    completion: str | None = None
    decision: Literal["argmax", "balanced"] = "argmax"
    shares: tuple[Share, ...] | None = None  # declared label shares for decision = "balanced"; default: equal

    @model_validator(mode="after")
    def _consistent(self) -> "TaskTable":
        folded = [label.casefold() for label in self.labels]
        for at, label in enumerate(self.labels):
            if not label or label != label.strip():
                raise ValueError(f"label {label!r} is empty or has white space around it")
            if folded[at] in folded[:at]:
                raise ValueError(f"labels repeat: {list(self.labels)}")
            longer = next((other for other in self.labels if other != label and other.startswith(label)), None)
            if longer is not None:
                raise ValueError(
                    f"label {label!r} begins label {longer!r}: an answer could not be told apart; rename one"
                )
        if "{text}" not in self.question:
            raise ValueError(f"question {self.question!r} does not contain {{text}}")
        if self.completion is not None and not _is_pattern(self.completion):
            raise ValueError(
                f"completion {self.completion!r} must contain {{text}} once and {{label}} once, in this order"
            )
        for shot in self.examples:
            if shot.label not in self.labels:
                raise ValueError(f"example {shot.text[:40]!r} has label {shot.label!r}, not one of {list(self.labels)}")
        if self.shares is not None and (len(self.shares) != len(self.labels) or abs(sum(self.shares) - 1) > 1e-6):
            raise ValueError(f"shares {self.shares} must be {len(self.labels)} numbers that sum to 1")
        return self

    @property
    def declared_shares(self) -> tuple[float, ...]:
        shares = self.shares or tuple(1.0 for _ in self.labels)
        return tuple(share / sum(shares) for share in shares)


def _is_pattern(completion: str) -> bool:
    before, *after = completion.split("{label}")
    return len(after) == 1 and before.count("{text}") == 1 and "{text}" not in after[0]


class AcceptedRiskTable(Table):
    who: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    scope: str = Field(min_length=1)


class DataTable(Table):
    resource: str | None = None
    path: str | None = None
    format: Literal["csv", "tsv", "jsonl"] = "csv"
    columns: tuple[str, ...] | None = None  # names for a file without a header line
    text: str = "text"
    gold: str  # column with the human label; read for held-out rows only, and may be empty in the others
    gold_labels: dict[str, str] | None = None  # label -> "> 0", "< 0", "= value"; default: the label word itself
    licence: str | None = None  # of your own file; a resource carries its own
    train: Count
    held_out: Count
    validation: Count
    bad_rows: Literal["stop", "skip"] = "stop"
    accepted_risk: AcceptedRiskTable | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "DataTable":
        if (self.resource is None) == (self.path is None):
            raise ValueError("give exactly one of resource and path")
        if self.path is not None and self.licence is None:
            raise ValueError('say under which licence you hold the data: licence = "own" for your own')
        for label, rule in (self.gold_labels or {}).items():
            parse_rule(label, rule)
        if self.validation >= self.train:
            raise ValueError(f"validation ({self.validation}) is a slice of train ({self.train}) and must be smaller")
        return self


class Rule(NamedTuple):
    """A comparison of the gold column with a number, or (sign "=") with a text."""

    sign: str
    value: str


def parse_rule(label: str, rule: str) -> Rule:
    """Raises `ValueError` for anything but ">", ">=", "<", "<=" and a number, or "=" and a value."""
    match = re.fullmatch(r"\s*(>=|<=|>|<|=)\s*(.+?)\s*", rule)
    if match is None:
        raise ValueError(f'gold_labels: {label} = {rule!r} is no rule; write for instance "> 0" or "= yes"')
    sign, value = match.groups()
    if sign != "=":
        try:
            float(value)
        except ValueError:
            raise ValueError(f"gold_labels: {label} = {rule!r} compares with no number") from None
    return Rule(sign, value)


def _day(value: Any) -> Any:
    """TOML has dates of its own; records have text."""
    return value.isoformat() if type(value) is date else value


class PriceTable(Table):
    input_usd_per_mtok: float = Field(ge=0)
    output_usd_per_mtok: float = Field(ge=0)
    dated: Annotated[str, BeforeValidator(_day)] = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    cached_input_usd_per_mtok: float | None = Field(default=None, ge=0)  # default: as input
    cache_write_usd_per_mtok: float | None = Field(default=None, ge=0)  # default: as input
    batch_discount: float | None = Field(default=None, ge=0, le=1)  # share off in the batch API; default: none


OWN_NAMES = (
    "embedded",
    "loopback",
    "local",
    "tutelage",
    "imported",
)  # of providers: nobody reached by a URL may take one
_NAME = re.compile(r"(?!AIza|AKIA|ASIA|hf_|gsk_|gh[opsur]_|github_pat_|sk_|xai_|npm_)[A-Za-z_][A-Za-z0-9_]{0,63}")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?|[0-9a-f:.]*:[0-9a-f:.]*")
_IN_QUERY = {"api-version", "deployment", "region"}


def require_plain_url(url: str) -> None:
    """Raises `ValueError` for a URL that is no http(s) address in one spelling, or that carries a secret. The URL is not
    repeated: it may hold one."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("url is no web address") from None
    if parts.scheme not in ("http", "https") or any(character <= " " for character in url):
        raise ValueError("url must begin with http:// or https:// and hold no spaces")
    if not _HOST.fullmatch(host):
        raise ValueError("url must name its host in ASCII, without a dot at its end: its terms are looked up by it")
    if "@" in parts.netloc:
        raise ValueError("url carries a user or password; name an environment variable in api_key_env instead")
    if strangers := set(parse_qs(parts.query, keep_blank_values=True)) - _IN_QUERY:
        raise ValueError(f"url carries {sorted(strangers)[0]!r}; a key goes into the variable that api_key_env names")
    if parts.fragment:
        raise ValueError("url ends in a fragment (#…), which is never sent")


class TeacherTable(Table):
    resource: str | None = None  # embedded weights, served here on loopback
    path: str | None = None  # or a Hugging Face folder (safetensors) or GGUF file of your own, served here on loopback
    url: str | None = None  # or an endpoint, up to and including /v1
    api: str | None = None  # what it speaks: "openai", "anthropic", "gemini" or a plug-in; default: told by the host
    model: str = "default"
    provider: str | None = None  # id in the terms registry, for an endpoint that is not ours
    licence: str | None = None  # of the model's weights where they are public (SPDX or registry id)
    api_key_env: str | None = None  # name of the environment variable; the key itself is never written
    signal: Literal["top-logprobs", "text"] = "top-logprobs"
    top_logprobs: int = Field(default=20, ge=1, le=128)  # OpenAI gives up to 20, engines of one's own more
    concurrency: Count = 4  # calls in flight at most; fewer when the endpoint asks us to slow down
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    context_tokens: Count | None = None  # the model's limit, where the endpoint does not tell it
    batch: bool = False  # through the provider's batch API: half the price, an answer within a day
    timeout_s: float = Field(default=120, gt=0)
    attempts: Count = 6
    price: PriceTable | None = None
    prices: str | None = None  # a prices.toml of your own; default: ./prices.toml, then the user's configuration folder
    accepted_risk: AcceptedRiskTable | None = None
    lineage: str | None = None  # lineage.json of a teacher that is itself a student

    @model_validator(mode="after")
    def _consistent(self) -> "TeacherTable":
        if sum(source is not None for source in (self.resource, self.path, self.url)) != 1:
            raise ValueError(
                "give exactly one of resource (embedded), path (a folder or GGUF file) and url (an endpoint)"
            )
        if self.path is not None and self.licence is None:
            raise ValueError('say under which licence you hold those weights: licence = "own" for your own')
        if self.batch and self.url is None:
            raise ValueError("batch = true is for a provider's batch API; weights served here have none")
        if self.url is not None:
            require_plain_url(self.url)
            if self.url.rstrip("/").endswith("/chat/completions"):
                raise ValueError("url goes up to /v1: leave out /chat/completions")
            if self.provider in OWN_NAMES:
                raise ValueError(f"provider {self.provider!r} is for what is served here; url is somebody else's")
        if self.api_key_env is not None and not _NAME.fullmatch(self.api_key_env):
            raise ValueError("api_key_env is the NAME of an environment variable, and this looks like a key itself")
        return self


class BudgetTable(Table):
    """A limit always exists: a run that forgets to ask stops here."""

    max_cost_usd: float = Field(default=3.0, ge=0)
    max_tokens: Count = 20_000_000


class StudentTable(Table):
    base: str | None = None  # resource whose weights the student starts from
    path: str | None = None  # or a Hugging Face folder of your own (safetensors)
    licence: str | None = None  # of that folder's weights; a resource carries its own
    layers: Count
    template: str | None = None  # chat template (Jinja); default: text and end of turn, nothing else
    accepted_risk: AcceptedRiskTable | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "StudentTable":
        if (self.base is None) == (self.path is None):
            raise ValueError("give exactly one of base (a resource) and path (a folder)")
        if self.path is not None and self.licence is None:
            raise ValueError('say under which licence you hold those weights: licence = "own" for your own')
        return self


class TrainTable(Table):
    epochs: float = Field(gt=0)
    batch_size: Count = 32
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    average_last: float = Field(default=0.5, ge=0, lt=1)  # share of the run whose weights are averaged
    train_embeddings: bool = False
    pass_tokens: Count | None = (
        None  # tokens of one forward pass at most; default: all of a step, fewer if memory runs out
    )
    checkpoint_every_s: float = Field(default=60, gt=0)
    segment_steps: Count = 250  # the whole state is kept so often, so that any stretch between can be trained again
    validate_per_epoch: Count = 2
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


class ClaimTable(Table):
    """Declared before any held-out answer is seen."""

    metric: Literal["accuracy"] = "accuracy"
    margin: Share
    level: Share = 0.95
    expected_difference: float = Field(default=-0.01, gt=-1, lt=1)
    expected_discordance: Share = 0.17


class ControlsTable(Table):
    """What the proof is held against beside what it always is; what is turned off is named in the verdict."""

    plain: bool = False  # the same student trained on the teacher's words alone: takes the time of the training again
    again: int = Field(default=500, ge=0)  # held-out items that the teacher is asked a second time; 0: none
    checkpoint: int = Field(default=200, ge=0)  # held-out items answered by the training checkpoint itself; 0: none


class ShipTable(Table):
    """What the conditions of the sources' terms are held against: what nobody says here is not known."""

    commercial: bool | None = None
    monthly_users: int | None = Field(default=None, ge=0)
    licence_files: tuple[str, ...] = ()  # copies of licences that must go along, each named after its entry: mit.txt
    inherited_risks: dict[str, AcceptedRiskTable] = {}  # by subject: a risk an ancestor carries, accepted again


class RunConfig(Table):
    """A whole run. `sizes` holds named overrides, for instance `sizes.quick."data.train" = 300`."""

    run: RunTable
    task: TaskTable
    data: DataTable
    teacher: TeacherTable
    budget: BudgetTable = BudgetTable()
    student: StudentTable
    train: TrainTable
    claim: ClaimTable
    controls: ControlsTable = ControlsTable()
    ship: ShipTable = ShipTable()
    sizes: dict[str, dict[str, Any]] = {}

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        if self.data.gold_labels is not None and set(self.data.gold_labels) != set(self.task.labels):
            raise ValueError(f"data.gold_labels must give one rule for each of {list(self.task.labels)}")
        first_words = [label.split()[0] for label in self.task.labels]
        if self.teacher.signal == "top-logprobs" and len(set(first_words)) != len(first_words):
            raise ValueError(
                f"labels {list(self.task.labels)} share a first word: rename them so that the first words differ"
            )
        if self.task.decision == "balanced" and self.teacher.signal == "text":
            raise ValueError('task.decision = "balanced" needs label probabilities: teacher.signal = "top-logprobs"')
        return self

    def resolved(self) -> dict[str, Any]:
        """Plain values of every setting, defaults included, `sizes` left out."""
        return self.model_dump(mode="json", exclude={"sizes"})


class PromptsTable(Table):
    """The file of open questions: one a row, as text or as messages."""

    path: str
    format: Literal["jsonl", "csv", "tsv", "parquet"] | None = None  # default: told by the file's name
    text: str | None = None  # column with the question; default: the first of the usual names that is there
    system: str = ""  # a system message for questions that bring none
    licence: str  # under which you hold the questions: "own", or an SPDX id
    limit: Count | None = None  # so many questions at most, the first ones
    bad_rows: Literal["stop", "skip"] = "stop"
    accepted_risk: AcceptedRiskTable | None = None


class SamplingTable(Table):
    """How answers are drawn. What is not set is not sent: the endpoint's own default holds."""

    max_tokens: Count = 1024
    samples: Count = 1  # answers to each question, each a call of its own
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**31)  # of the first sample; the next ones count on
    stop: tuple[str, ...] = Field(default=(), max_length=16)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    reasoning_effort: str | None = None
    tool_choice: str | None = None
    tools_file: str | None = None  # JSON: a list of OpenAI function tools, for questions that bring none of their own
    schema_file: str | None = None  # JSON Schema that each answer must satisfy, likewise
    extra: dict[str, Any] = {}  # fields of the body that only this endpoint knows, sent as they are


class CollectConfig(Table):
    """Asking a teacher about open questions: the run file of `tutelage collect`."""

    run: RunTable
    prompts: PromptsTable
    teacher: TeacherTable
    sampling: SamplingTable = SamplingTable()
    budget: BudgetTable = BudgetTable()

    @model_validator(mode="before")
    @classmethod
    def _words_alone(cls, raw: Any) -> Any:
        """Open questions are answered in words: log-probabilities come where the run file asks for them."""
        teacher = raw.get("teacher") if isinstance(raw, dict) else None
        return {**raw, "teacher": {"signal": "text", **teacher}} if isinstance(teacher, dict) else raw

    @model_validator(mode="after")
    def _consistent(self) -> "CollectConfig":
        if self.sampling.samples > 1 and self.sampling.temperature == 0:
            raise ValueError(
                f"sampling.samples = {self.sampling.samples} at temperature 0 buys the same answer several times"
            )
        return self

    def resolved(self) -> dict[str, Any]:
        """Plain values of every setting, defaults included."""
        return self.model_dump(mode="json")
