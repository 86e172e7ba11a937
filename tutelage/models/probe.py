"""What an endpoint really gives, found out before money is spent: the record of a probe, kept, and what it allows.

`models.probing.run.probe` asks the questions. Everything in the record that the endpoint said is shortened and printable.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from tutelage.canon import canonical, digest_of
from tutelage.errors import SignalError
from tutelage.jsonl import write_whole
from tutelage.models.base import Endpoint
from tutelage.records import Record
from tutelage.resources import cache_folder

YES, NO, IGNORED, UNKNOWN, NOT_ASKED = "yes", "no", "ignored", "unknown", "not asked"
RAW, PROCESSED_TEMPERATURE, PROCESSED_TOP_P = "raw", "after temperature", "after top-p"
PROCESSED_BOTH = "after temperature and top-p"
MOST_MASS_PPM = 1_005_000  # candidates that hold more than all probability, beyond rounding, are no probabilities
MOST_APART_PPM = 150_000  # calls that put more probability elsewhere, for one question, teach noise
PROBE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Item(Record):
    """One finding: `answer` is "yes", "no", "ignored" (taken, without effect), "unknown" or "not asked"; `words` say why or
    how much, at most 160 characters."""

    name: str
    answer: str
    words: str


@dataclass(frozen=True, slots=True)
class Probe(Record):
    """What one endpoint and model gave on one day. Numbers of tokens are −1 and digests empty where nothing tells."""

    probe_version: int
    route: str
    provider: str
    api: str
    model_asked: str
    weights_digest: str
    models_reported: tuple[str, ...]
    fingerprints: tuple[str, ...]
    engine: str  # what it says of its software: `owned_by` of its model list, and its Server header
    context_tokens: int  # prompt and answer together, as its model list tells
    items: tuple[Item, ...]
    top_k_own: int  # the largest k it took for its own output; 0 when it gives no log-probabilities
    entries_own: int  # how many candidates came back for that k, at the position with the fewest
    top_k_supplied: int  # the largest k for text that we supply; 0 when it scores none
    logprobs_are: str  # "raw", "after temperature", "after top-p", "after temperature and top-p" or "unknown"
    evidence: dict[str, int]  # the numbers behind the verdicts: log-probabilities in unats, shares in ppm
    tokenizer_digest: str  # `models.probing.splitting`; empty when its split was not seen
    tokenizer_from: str
    tokens_before: int  # tokens before the user's first word: template and system prompt
    calls: int
    tokens: int
    nusd: int
    price_source: str
    probed_at: str

    def item(self, name: str) -> Item:
        return next((item for item in self.items if item.name == name), Item(name, NOT_ASKED, ""))

    def is_yes(self, name: str) -> bool:
        return self.item(name).answer == YES


def best_k(probe: Probe) -> int:
    """How many candidates a position really come back, for the largest k that it takes; 0 when there are none."""
    return min(probe.top_k_own, probe.entries_own)


def offered_signals(probe: Probe) -> tuple[str, ...]:
    """What can be trained on, the richer first: "top-logprobs", "text"."""
    signals = []
    if best_k(probe) >= 1 and probe.is_yes("text") and not _against_logprobs(probe):
        signals.append("top-logprobs")
    if probe.is_yes("text"):
        signals.append("text")
    return tuple(signals)


def require_signal(probe: Probe, signal: str, k: int = 1, temperature: str = "1") -> None:
    """Raises `SignalError`, saying what was seen, when the endpoint does not offer the signal, does not take k, or gives
    log-probabilities that are not the model's own at the temperature that is asked with."""
    if probe.item("text").answer in (UNKNOWN, NOT_ASKED):
        return  # the probe itself came to nothing: what is not known is not no
    offered = offered_signals(probe)
    where = f"{probe.model_asked!r} at {probe.route}"
    if signal not in offered:
        seen = _against_logprobs(probe) if signal == "top-logprobs" and offered else probe.item("text").words
        fix = (
            'set teacher.signal = "text", or choose an endpoint that gives it' if offered else "choose another endpoint"
        )
        raise SignalError(f"{where} does not offer {signal}: {seen}", fix=fix)
    if signal == "top-logprobs" and k > probe.top_k_own:
        raise SignalError(
            f"{where} takes top_logprobs up to {probe.top_k_own}, not {k}",
            fix=f"set teacher.top_logprobs = {probe.top_k_own}",
        )
    if (
        signal == "top-logprobs"
        and probe.logprobs_are in (PROCESSED_TEMPERATURE, PROCESSED_BOTH)
        and float(temperature) != 1
    ):
        raise SignalError(
            f"{where} gives log-probabilities {probe.logprobs_are}, and they are asked for at temperature {temperature}",
            fix="let the server give raw ones (vLLM: --logprobs-mode raw_logprobs), or ask at temperature 1",
        )


def _against_logprobs(probe: Probe) -> str:
    """Why its log-probabilities cannot be trained on; empty when they can."""
    if best_k(probe) < 1:
        return probe.item("top_logprobs").words or "no log-probabilities came"
    mass, apart = probe.evidence.get("mass_ppm", 0), probe.evidence.get("calls_differ_ppm", 0)
    if mass > MOST_MASS_PPM:
        return f"its candidates hold {mass / 1e6:.3f} of all probability"
    if apart > MOST_APART_PPM:
        return f"two calls with one question differ by {apart / 1e6:.2f} of all probability"
    if probe.item("one_model").answer == NO:
        return f"its calls are not of one model: {probe.item('one_model').words}"
    return ""


def supervision(probe: Probe) -> str:
    """One line: what it gives, in what form, and when that was found out."""
    offered = offered_signals(probe)
    if "top-logprobs" in offered:
        form = probe.logprobs_are if probe.logprobs_are != UNKNOWN else "raw or processed not known"
        own = f"top-{best_k(probe)} of its own output, {form}"
    else:
        own = "text only" if offered else "nothing that can be used"
    scores = f"scores text we supply (top-{probe.top_k_supplied})" if probe.top_k_supplied else "no scoring"
    full = "; full logits" if probe.is_yes("full_logits") else ""
    return f"{own}; {scores}{full}; probed {probe.probed_at[:10]}"


def save(probe: Probe, endpoint: Endpoint, folder: Path | None = None) -> Path:
    """Keep it for this endpoint, in the user's cache folder. Raises `StorageError` when it cannot be written."""
    path = _path(endpoint, folder)
    write_whole(path, canonical(probe.to_json()))
    return path


def load(endpoint: Endpoint, folder: Path | None = None) -> Probe | None:
    """The last probe of this endpoint and model; None when there is none, or none that can be read or still applies."""
    try:
        probe = Probe.from_json(json.loads(_path(endpoint, folder).read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None
    changed = endpoint.weights_digest and probe.weights_digest != endpoint.weights_digest
    return None if changed or probe.probe_version != PROBE_VERSION else probe


def _path(endpoint: Endpoint, folder: Path | None) -> Path:
    """By a digest: an address may hold anything. The port of a server of our own means nothing: its model does."""
    own = endpoint.route in ("embedded", "local")
    where = "" if own else endpoint.base_url.rstrip("/")
    name = digest_of([endpoint.api, endpoint.route, where, endpoint.provider, endpoint.model])
    return (folder or cache_folder() / "probes") / f"{name.removeprefix('sha256:')[:32]}.json"
