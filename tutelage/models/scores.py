"""What an endpoint thinks of a text that we send: the log-probability of each of its tokens, and of the likeliest others there.

Token ids cross the boundary, never text: text that is tokenised again may come back as other tokens. Two forms are spoken, both
of the completions API with a list of ids for a prompt: `echo` with `logprobs` (OpenAI API reference, `completions/create`), whose
answer spells each token, and vLLM's `prompt_logprobs`, whose answer names each id. Either way every token that comes back is held
against ours.
"""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tutelage.errors import SignalError
from tutelage.models.base import Endpoint
from tutelage.models.openai import OpenAIDialect, switches
from tutelage.models.probing.bodies import dig
from tutelage.records import GIVEN, SCORED, UNATS_PER_NAT, Message, Position, Request, TokenLogprob, Usage
from tutelage.wire.answers import PLACEHOLDER_NATS, ChatAnswer, readable, unats_of, usage_of
from tutelage.wire.values import ANSWER_FIX, bad, load, shown

Form = Literal["echo", "prompt_logprobs"]
_MOST_MASS = 1.005  # candidates of one place that hold more than all probability, beyond rounding, are no probabilities


class Ids(NamedTuple):
    """Token ids: what is read first, at least one, and what is scored after it."""

    given: tuple[int, ...]
    scored: tuple[int, ...]

    @property
    def whole(self) -> tuple[int, ...]:
        return (*self.given, *self.scored)


def request_of(endpoint: Endpoint, ids: Ids, form: Form, k: int, purpose: str) -> Request:
    """A text to be scored, at temperature 1 and with nothing cut away; `k` likeliest candidates a place."""
    messages = tuple(Message(role, " ".join(map(str, part))) for role, part in zip((GIVEN, SCORED), ids, strict=True))
    if form == "echo":
        asked = {"max_tokens": 0, "echo": True, "logprobs": True, "top_logprobs": k}
    else:
        asked = {"max_tokens": 1, "prompt_logprobs": k}
    params = {"temperature": "1", **asked, **switches(endpoint)}
    return Request(messages, params, endpoint.model, endpoint.route, purpose, 0)


def ids_of(request: Request) -> Ids:
    """Those of a request that `request_of` made."""
    given, scored = (tuple(map(int, message.content.split())) for message in request.messages)
    return Ids(given, scored)


class Spelling:
    """The student's tokens: the bytes of each id, and which id a text of one token is."""

    def __init__(self, spelled: Sequence[bytes]) -> None:
        self.spelled = tuple(spelled)
        known: dict[bytes, int] = {}
        for token, data in enumerate(self.spelled):
            known[data] = -1 if data in known else token  # two of one spelling cannot be told apart
        self._ids: Mapping[bytes, int] = known

    def is_spelled(self, token: int, text: str) -> bool:
        """Whether an endpoint's text can be that token: as text, as bytes (OpenAI's `bytes:`), with U+FFFD for what is no whole
        character, or as vLLM's `token_id:`."""
        data = self.spelled[token]
        return text == f"token_id:{token}" or _bytes_of(text) == data or text == data.decode("utf-8", "replace")

    def id_of(self, text: str) -> int:
        """−1 for a text that is no token of ours, or more than one."""
        number = text.removeprefix("token_id:")
        if number != text:
            return int(number) if number.isdecimal() and int(number) < len(self.spelled) else -1
        return self._ids.get(_bytes_of(text), -1)


def _bytes_of(text: str) -> bytes:
    """OpenAI spells what is no whole character as `bytes:\\xNN…`."""
    if text.startswith("bytes:\\x"):
        try:
            return bytes.fromhex(text.removeprefix("bytes:").replace("\\x", ""))
        except ValueError:
            pass
    return text.encode("utf-8", "surrogatepass")


class ScoresDialect(OpenAIDialect):
    """Requests of `request_of`. An answer has a position for each token of `scored`; `spelling` is what they are held against."""

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling

    def url(self, endpoint: Endpoint, request: Request) -> str:
        return super().url(endpoint, request).removesuffix("/chat/completions") + "/completions"

    def body(self, endpoint: Endpoint, request: Request) -> dict[str, Any]:
        body = super().body(endpoint, request)
        del body["messages"]
        if body.pop("logprobs", False):
            body["logprobs"] = body.pop("top_logprobs")
        limit = body.pop("max_completion_tokens", body.get("max_tokens"))
        return body | {"prompt": list(ids_of(request).whole), "max_tokens": limit}

    def parse(self, body: bytes, request: Request) -> ChatAnswer:
        """Raises `WireError` for an answer outside the protocol, and `SignalError` for one without scores, of other tokens than
        ours, or of probabilities that are none."""
        value = load(body, ANSWER_FIX)
        if value.get("error") is not None:
            raise bad(f"an error inside a successful response: {shown(value['error'])}", "error")
        ids, choice = ids_of(request), dig(value, "choices", 0)
        read = _of_echo if "echo" in request.params else _of_prompt
        rows = read(value, ids, self._spelling)
        for at, row in enumerate(rows):
            require_probabilities(row, at)
        usage, said = readable(usage_of, value.get("usage")), dig(choice, "finish_reason")
        texts = [found if isinstance(found := value.get(key), str) else "" for key in ("model", "system_fingerprint")]
        finish = said if said in ("stop", "length") else "length"
        return ChatAnswer("", "", (), finish, rows, usage or Usage(0, 0, 0), usage is not None, *texts)


def _of_echo(value: Any, ids: Ids, spelling: Spelling) -> tuple[Position, ...]:
    found = dig(value, "choices", 0, "logprobs")
    tokens, own, tops = (dig(found, key) for key in ("tokens", "token_logprobs", "top_logprobs"))
    whole = ids.whole
    if not isinstance(tokens, list) or not isinstance(own, list) or len(tokens) != len(own) or not own:
        raise _without("echo", "its answer has no logprobs.tokens with their token_logprobs")
    tops = tops if isinstance(tops, list) and len(tops) == len(tokens) else [None] * len(tokens)
    if len(tokens) < len(whole):
        raise _other(f"{len(tokens)} tokens came back for {len(whole)}")
    for at, (token, text) in enumerate(zip(whole, tokens, strict=False)):
        if not isinstance(text, str) or not spelling.is_spelled(token, text):
            raise _other(f"token {at} is {spelling.spelled[token]!r} (id {token}) for us, and {str(text)[:60]!r} there")
    rows = []
    for at in range(len(ids.given), len(whole)):
        top = tops[at] if isinstance(tops[at], dict) else {}
        chosen = _token(whole[at], own[at], spelling)
        named = ((spelling.id_of(text), text, logprob) for text, logprob in top.items() if text != tokens[at])
        others = (_token(token, logprob, spelling, text) for token, text, logprob in named if token != whole[at])
        rows.append(Position(chosen, _ranked(others)))
    return tuple(rows)


def _of_prompt(value: Any, ids: Ids, spelling: Spelling) -> tuple[Position, ...]:
    rows = dig(value, "choices", 0, "prompt_logprobs") or dig(value, "prompt_logprobs")
    whole = ids.whole
    if not isinstance(rows, list) or not rows:
        raise _without("prompt_logprobs", "its answer has no prompt_logprobs")
    if len(rows) != len(whole):
        raise _other(f"{len(rows)} tokens came back for {len(whole)}")
    found = []
    for at, (token, row) in enumerate(zip(whole[1:], rows[1:], strict=True), 1):
        own = dig(row, str(token))
        if own is None:
            raise _other(f"token {at} is id {token} for us, and not among the ids {sorted(row or {})[:8]} there")
        text = dig(own, "decoded_token")
        if isinstance(text, str) and text and not spelling.is_spelled(token, text):
            raise _other(f"id {token} is {spelling.spelled[token]!r} for us, and {text[:60]!r} there")
        if at < len(ids.given):
            continue
        chosen = _token(token, dig(own, "logprob"), spelling)
        others = (
            _token(number, dig(entry, "logprob"), spelling)
            for number, entry in ((_number(key, spelling), entry) for key, entry in row.items())
            if number != token
        )
        found.append(Position(chosen, _ranked(others)))
    return tuple(found)


def _number(key: str, spelling: Spelling) -> int:
    return int(key) if key.isdecimal() and int(key) < len(spelling.spelled) else -1


def _ranked(candidates: Iterable[TokenLogprob]) -> tuple[TokenLogprob, ...]:
    """The likelier first; placeholders are left out."""
    known = [one for one in candidates if one.logprob_unats > PLACEHOLDER_NATS * UNATS_PER_NAT]
    return tuple(sorted(known, key=lambda one: -one.logprob_unats))


def _token(token: int, logprob: Any, spelling: Spelling, text: str = "") -> TokenLogprob:
    data = text.encode("utf-8", "surrogatepass") if token < 0 else spelling.spelled[token]
    return TokenLogprob(base64.b64encode(data).decode("ascii"), token, unats_of(logprob))


def require_probabilities(position: Position, at: int) -> None:
    """Raises `SignalError` for a place whose token has no log-probability, or whose candidates hold more than all
    probability."""
    if position.chosen.logprob_unats <= PLACEHOLDER_NATS * UNATS_PER_NAT:
        raise SignalError(
            f"the endpoint gives no log-probability for scored token {at} (id {position.chosen.token_id})",
            fix="score with an endpoint that reports every token's, or learn from text (cross-entropy)",
        )
    mass = math.fsum(math.exp(one.logprob_unats / UNATS_PER_NAT) for one in (position.chosen, *position.top))
    if mass > _MOST_MASS:
        raise SignalError(
            f"the endpoint's candidates at scored token {at} hold {mass:.3f} of all probability",
            fix="let it report raw log-probabilities (vLLM: --logprobs-mode raw_logprobs); `tutelage probe` tells its kind",
        )


def _without(form: str, why: str) -> SignalError:
    other = "prompt_logprobs" if form == "echo" else "echo"
    return SignalError(
        f"the endpoint scores no text by {form}: {why}",
        fix=f'try teacher.scores = "{other}"; `tutelage probe` finds out what it gives',
    )


def _other(what: str) -> SignalError:
    return SignalError(
        f"the endpoint has another tokenizer than the student: {what}",
        fix="start the student from a model with the teacher's tokenizer, or learn from its text (tutelage collect)",
    )
