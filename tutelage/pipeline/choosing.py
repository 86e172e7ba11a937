"""The method by access: what an endpoint or a teacher's weights reveal decides which distillation can be done, and which is best.

Pure. Reasons and figures are those of the papers named; every method named can be run from a run file.
"""

from enum import StrEnum
from typing import NamedTuple

from tutelage.errors import ConfigError


class Access(StrEnum):
    """What a teacher reveals, each more than the one before."""

    TEXT = "its text"
    TOP_K = "its text and the likeliest tokens of its own output"
    SCORES = "scores of text that we send"
    FULL = "its whole distribution (weights here)"


class Tokens(StrEnum):
    """The student's tokenizer against the teacher's."""

    SAME = "the student's tokenizer"
    OTHER = "another tokenizer"
    UNKNOWN = "a tokenizer that nobody has compared"


class Task(StrEnum):
    """What is learnt."""

    OPEN = "conversations"
    LABELS = "labels"


class Way(NamedTuple):
    """A method as a run file says it."""

    keys: str
    words: str


class Need(NamedTuple):
    """What a loss needs of the teacher: at least this access, and whether one tokenizer."""

    access: Access
    same_tokens: bool


class Choice(NamedTuple):
    """`off_policy` learns from text that is there, `on_policy` from the student's own (None: nothing for it). `why` in one
    sentence; `more` says what the next kind of access would buy, empty where there is none."""

    off_policy: Way
    on_policy: Way | None
    why: str
    more: str


LEAST_K = 4  # candidates below which a truncated distribution teaches too little (arXiv 2604.13016)
_ORDER = tuple(Access)
_TEXT_ONLY = {"cross-entropy", "dpo"}
_SCORES = {"sampled-reverse-kl", "top-k-forward-kl", "top-k-reverse-kl"}
_ANY_TOKENS = {"alm", "uld", "gold"}
_OWN_OUTPUT = {"alm"}  # also from log-probabilities that came with collected answers (signal = "recorded")

SEVERAL = Way(
    'loss = "cross-entropy"', "on several answers a question (`tutelage collect`, sampling.samples = 4 to 16)"
)
PREFER = Way('loss = "dpo"', "prefer the teacher's answers to one snapshot of the student's own")
SOFT_LABELS = Way('`tutelage run`, teacher.signal = "top-logprobs"', "the label's distribution at the first token")
WORD_LABELS = Way('`tutelage run`, teacher.signal = "text"', "the label's word")
TOP_K = Way(
    'loss = "top-k-forward-kl", prefix = "data"', "the candidates it names on the data's text, and one tail bucket"
)
TOP_K_OWN = Way(
    'loss = "top-k-reverse-kl", prefix = "student"',
    "the candidates it names on the student's text, and one tail bucket",
)
SAMPLED = Way('loss = "sampled-reverse-kl", prefix = "student"', "its score of each token that the student draws")
CACHED = Way('loss = "forward-kl"', 'live, or captured once: loss = "sparse-forward-kl"')
FULL_OWN = Way('loss = "reverse-kl", prefix = "student"', 'or a share of the steps: prefix = 0.5 with loss = "jsd"')
CHUNKS = Way('loss = "alm", text_weight = 1', "likelihoods of pieces that both tokenizers spell, and the text")
RECORDED = Way('loss = "alm", signal = "recorded"', 'on answers collected with teacher.signal = "top-logprobs"')
CHUNKS_OWN = Way('loss = "alm", prefix = "student"', "the same pieces in what the student writes")

MORE_SCORES = (
    "scores of our text (echo or prompt_logprobs) would let the student learn from its own text: the same score for about a "
    "ninth of the compute of more text (Thinking Machines 2025)"
)
MORE_TOP_K = "ten or more candidates a position would make each update less noisy than one score a token"
MORE_FULL = "the weights would give the whole distribution: unbiased, and no call to pay"
MORE_TOKENS = "a student with the teacher's tokenizer could learn every token's whole distribution"


def choose(access: Access, tokens: Tokens, task: Task = Task.OPEN, scored_k: int = 0) -> Choice:
    """The best method that can be run with this access; `scored_k` is how many candidates come with scores of our text. A
    tokenizer that nobody has compared counts as another one."""
    if task is Task.LABELS:
        if access is Access.TEXT:
            return Choice(WORD_LABELS, None, "a label's word is all that is revealed", _of_labels(access))
        why = "one token tells the label, and its distribution how sure the teacher is: fewer questions for the same student"
        return Choice(SOFT_LABELS, None, why, _of_labels(access))
    same = tokens is Tokens.SAME
    if access is Access.FULL and same:
        why = "every token's whole distribution is there: unbiased, and calibrated as the teacher is (arXiv 2502.08606)"
        return Choice(CACHED, FULL_OWN, why, "")
    if access is Access.FULL:
        why = "pieces of equal bytes can be compared whatever the tokens (ALM, arXiv 2503.20083)"
        return Choice(CHUNKS, CHUNKS_OWN, why, MORE_TOKENS)
    if access is Access.SCORES and same and scored_k >= LEAST_K:
        why = "few candidates carry nearly all probability (arXiv 2604.13016), and their tail is kept"
        return Choice(TOP_K, TOP_K_OWN, why, MORE_FULL)
    if access is Access.SCORES and same:
        why = "one score a token is an unbiased estimate of the reverse divergence (arXiv 2605.07865)"
        return Choice(SEVERAL, SAMPLED, why, MORE_TOP_K)
    if access is Access.SCORES:
        why = "scores are of its tokens, and the student's are others: its words are what both can read"
        return Choice(SEVERAL, PREFER, why, MORE_TOKENS)
    if access is Access.TOP_K:
        why = "log-probabilities that come with its answers say how sure it is of each piece, whatever its tokens (ALM)"
        return Choice(RECORDED, PREFER, why, MORE_SCORES)
    why = "the words are all that it reveals: several answers show how sure it is, and preferring them to the student's own " \
        "corrects what the student would say (arXiv 2604.03873)"  # fmt: skip
    return Choice(SEVERAL, PREFER, why, MORE_SCORES)


def _of_labels(access: Access) -> str:
    return (
        "log-probabilities of its own output would tell how sure it is of each label" if access is Access.TEXT else ""
    )


def need_of(loss: str) -> Need:
    """What a loss of the catalogue needs: the whole distribution over the student's tokens, if nothing less will do."""
    if loss in _TEXT_ONLY:
        return Need(Access.TEXT, False)
    if loss in _SCORES:
        return Need(Access.SCORES, True)
    return Need(Access.TOP_K if loss in _OWN_OUTPUT else Access.FULL, loss not in _ANY_TOKENS)


def problem_of(loss: str, access: Access, tokens: Tokens) -> str:
    """Why the access cannot support the loss; empty where it can. A tokenizer that nobody has compared passes: it is compared
    before the first step."""
    need = need_of(loss)
    if _ORDER.index(access) < _ORDER.index(need.access):
        return f"{loss} needs {need.access}, and the teacher reveals {access}"
    if need.same_tokens and tokens is Tokens.OTHER:
        return f"{loss} compares tokens, and the teacher has another tokenizer"
    return ""


def nearest(loss: str, access: Access, tokens: Tokens, scored_k: int = 0) -> Way:
    """The method that is most like the loss among those that the access supports."""
    if tokens is not Tokens.OTHER and access is Access.SCORES:
        if scored_k < LEAST_K:
            return SAMPLED
        return TOP_K if "forward" in loss or loss in ("skew-kl", "sparse-forward-kl") else TOP_K_OWN
    chosen = choose(access, tokens, scored_k=scored_k)
    return chosen.off_policy


def require_supported(loss: str, access: Access, tokens: Tokens, scored_k: int = 0) -> None:
    """Raises `ConfigError` for a loss that the access cannot support, with the nearest that it can."""
    if problem := problem_of(loss, access, tokens):
        way = nearest(loss, access, tokens, scored_k)
        raise ConfigError(problem, fix=f"nearest to it: {way.keys} ({way.words})")


def in_words(choice: Choice, access: Access, tokens: Tokens, chosen: str) -> str:
    """For a plan: the access, the best method and why, what more access would buy, and what was chosen instead."""
    on = f"; on the student's own text: {choice.on_policy.keys}" if choice.on_policy else ""
    more = f"; with more: {choice.more}" if choice.more else ""
    return (
        f"your access: {access}, {tokens}; method: {choice.off_policy.keys} ({choice.off_policy.words}){on}, "
        f"because {choice.why}{more}; you chose: {chosen}"
    )


def table_rows() -> tuple[tuple[str, ...], ...]:
    """Rows of the table in docs/training.md: access, tokenizer, off-policy, on-policy, why."""
    every = [
        (Access.TEXT, Tokens.OTHER, 0), (Access.TOP_K, Tokens.OTHER, 0), (Access.SCORES, Tokens.SAME, 1),
        (Access.SCORES, Tokens.SAME, 20), (Access.SCORES, Tokens.OTHER, 20), (Access.FULL, Tokens.SAME, 0),
        (Access.FULL, Tokens.OTHER, 0),
    ]  # fmt: skip
    rows = []
    for access, tokens, k in every:
        found = choose(access, tokens, Task.OPEN, k)
        what = f"{access}, {k} candidates" if k else str(access)
        on = f"`{found.on_policy.keys}`: {found.on_policy.words}" if found.on_policy else "–"
        like = "any" if access in (Access.TEXT, Access.TOP_K) else str(tokens).removeprefix("the student's ")
        rows.append((what, like, f"`{found.off_policy.keys}`: {found.off_policy.words}", on, found.why))
    return tuple(rows)
