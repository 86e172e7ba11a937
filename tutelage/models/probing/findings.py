"""What a probe under way has found so far: its items, its numbers, and the record they become."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tutelage.models.base import AskAgain
from tutelage.models.exchange import now_utc
from tutelage.models.http import HttpModel
from tutelage.models.probe import NO, PROBE_VERSION, UNKNOWN, YES, Item, Probe
from tutelage.models.probing.asker import Asker, Heard, json_in, shortened
from tutelage.wire.answers import ChatAnswer

_ITEM_WORDS = 160
_NAME = 80
_MOST_NAMES = 8


class Findings:
    """Filled by the steps of `run` and `signal`."""

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.items: dict[str, Item] = {}
        self.evidence: dict[str, int] = {}
        self.engine = ""
        self.context_tokens = -1
        self.own_k = 0
        self.own_entries = 0
        self.supplied_k = 0
        self.logprobs_are = UNKNOWN
        self.tokenizer_digest = ""
        self.tokenizer_from = ""
        self.tokens_before = -1
        self.repeats: list[ChatAnswer] = []  # answers to one question asked several times

    def note(self, name: str, answer: str, words: str = "") -> None:
        self.items[name] = Item(name, answer, shortened(words, _ITEM_WORDS))

    def note_heard(self, name: str, heard: Heard) -> None:
        """A question that was not answered: in the endpoint's own words."""
        self.note(name, heard.state, heard.words)

    async def look(self, what: str, body: dict[str, Any] | None = None) -> Any:
        """Another service of the same server, free of charge, as a JSON value; None when there is none. GET beside the
        chats, or POST of a body to the server's root."""
        model = self.asker.model
        if not isinstance(model, HttpModel) or model.endpoint.api != "openai":
            return None
        parts = urlsplit(model.endpoint.base_url)
        base = parts.path.rstrip("/")
        path = f"{base}/{what}" if body is None else f"{base.removesuffix('/v1')}/{what}"
        try:
            looked = await model.look(urlunsplit(parts._replace(path=path)), body)
        except AskAgain:
            return None
        return json_in(looked.body) if looked.status == 200 else None

    def distinct(self, of: Callable[[ChatAnswer], str]) -> tuple[str, ...]:
        """What all answers say of something, each word once, in order; empty ones left out."""
        said = {shortened(of(answer), _NAME) for answer in self.asker.answers} - {""}
        return tuple(sorted(said)[:_MOST_NAMES])

    def result(self) -> Probe:
        """The record."""
        asker, endpoint = self.asker, self.asker.model.endpoint
        if asker.answers:
            spoke = any(answer.text or answer.reasoning for answer in asker.answers)
            self.note("text", YES if spoke else NO, "" if spoke else "every answer was empty")
            reasons = any(answer.reasoning or answer.usage.reasoning_tokens for answer in asker.answers)
            self.note("reasoning", YES if reasons else NO)
        return Probe(
            probe_version=PROBE_VERSION,
            route=endpoint.route,
            provider=endpoint.provider,
            api=endpoint.api,
            model_asked=endpoint.model,
            weights_digest=endpoint.weights_digest,
            models_reported=self.distinct(lambda answer: answer.model),
            fingerprints=self.distinct(lambda answer: answer.fingerprint),
            engine=self.engine,
            context_tokens=self.context_tokens,
            items=tuple(self.items.values()),
            top_k_own=self.own_k,
            entries_own=self.own_entries,
            top_k_supplied=self.supplied_k,
            logprobs_are=self.logprobs_are,
            evidence=self.evidence,
            tokenizer_digest=self.tokenizer_digest,
            tokenizer_from=self.tokenizer_from,
            tokens_before=self.tokens_before,
            calls=asker.calls,
            tokens=asker.tokens,
            nusd=asker.nusd,
            price_source=asker.prices.source,
            probed_at=now_utc(),
        )
