"""`probe`: about twenty small questions, one after another, and the steps that are not about supervision.

Sources: OpenAI API reference (`chat/create`, `models/list`).
"""

import json
import time

from tutelage.models.base import Model
from tutelage.models.prices import PriceList
from tutelage.models.probe import IGNORED, MOST_APART_PPM, NO, UNKNOWN, YES, Probe
from tutelage.models.probing.asker import Asker, shortened
from tutelage.models.probing.bodies import SCHEMA, dig, fits_schema, listed
from tutelage.models.probing.checks import apart, sampled_listed
from tutelage.models.probing.findings import Findings
from tutelage.models.probing.signal import OPEN_QUESTION, own_logprobs, split, supplied
from tutelage.records import UNATS_PER_NAT, Message, Usage
from tutelage.wire.answers import ChatAnswer

MAX_COST_NUSD = 50_000_000
EXPECTED = Usage(1300, 0, 350)  # what a probe comes to where everything is answered, for an estimate beforehand
_FACT = "What is the capital of France? Answer in one short sentence."
_FACT_TOKENS = 32
_SYSTEM = "Whatever you are asked, answer with the single word BANANA and with nothing else."
_SEED = 7
_REPEATS = 3
_DRAWN_TOKENS = 24
_WORDS = 9
_MANY_BEFORE = 30  # more tokens than a chat template needs
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time of day in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


async def probe(
    model: Model,
    prices: PriceList,
    *,
    max_cost_nusd: int = MAX_COST_NUSD,
    full_logits: bool = False,
    question_s: float = 30.0,
    whole_s: float = 300.0,
) -> Probe:
    """Asks an open model what it can do, never over the limit; `full_logits` when the weights are held here. What it
    cannot answer is a finding, and so is what it does not answer within `question_s`.

    Raises `TeacherError` when it cannot be reached, refuses the key, or the account is empty.
    """
    asker = Asker(model, prices, max_cost_nusd, min(question_s, model.endpoint.timeout_s), time.monotonic() + whole_s)
    found = Findings(asker)
    found.note("full_logits", YES if full_logits else NO, "" if full_logits else "its weights are not held here")
    if await _first(found):
        steps = (
            _before,
            _models,
            own_logprobs,
            _repeated,
            _drawn,
            _stopped,
            _system,
            _several,
            _forms,
            supplied,
            split,
        )
        for step in steps:
            await step(found)
        _one_model(found)
    return found.result()


async def _first(found: Findings) -> bool:
    """Whether it answers at all: as a chat, else as text that is continued."""
    heard = await found.asker.ask("one", 1)
    if heard.answer is None and heard.state == NO:
        found.note_heard("chat", heard)
        found.asker.is_completion = True
        again = await found.asker.ask("one", 1)
        heard = again if again.answer is not None else heard
    if heard.answer is None:
        found.note("text", heard.state, heard.words)
        return False
    found.note("completions" if found.asker.is_completion else "chat", YES)
    found.engine = shortened(next((value for name, value in heard.headers.items() if name.lower() == "server"), ""), 60)
    refused = found.asker.dropped.get("max_tokens", "")
    found.note("max_tokens", NO if refused else YES, refused)
    if refused:
        found.note("max_completion_tokens", YES)
    _cut_at_one(found, heard.answer)
    return True


def _cut_at_one(found: Findings, answer: ChatAnswer) -> None:
    """What an answer cut at one token says."""
    usage, said = answer.usage, answer.finish_reason
    if usage.completion_tokens > 1 + usage.reasoning_tokens:
        found.note("max_tokens", IGNORED, f"{usage.completion_tokens} tokens came for a limit of 1")
    if said == "length":
        found.note("finish_length", YES, "an answer cut at one token says 'length'")
    elif not answer.text and said == "stop":
        found.note("finish_length", UNKNOWN, "the answer ended by itself at once")
    else:
        found.note("finish_length", NO, f"an answer cut at one token says {said!r}")


async def _before(found: Findings) -> None:
    """How many tokens stand before ours: prompts of one and of nine equal words, extrapolated to none."""
    one = found.asker.answers[0].usage
    heard = await found.asker.ask(" ".join(["one"] * _WORDS), 1)
    if heard.answer is None:
        found.note_heard("hidden_prompt", heard)
        return
    nine = heard.answer.usage
    step = (nine.prompt_tokens - one.prompt_tokens) // (_WORDS - 1)
    if step < 1:
        words = f"{_WORDS} words count {nine.prompt_tokens} tokens, one counts {one.prompt_tokens}"
        found.note("hidden_prompt", UNKNOWN, words)
        return
    found.tokens_before = max(0, one.prompt_tokens - step)
    many = found.tokens_before > _MANY_BEFORE
    what = "a hidden system prompt, or one in the template" if many else "no more than a template needs"
    found.note("hidden_prompt", YES if many else NO, f"about {found.tokens_before} tokens before ours: {what}")


async def _models(found: Findings) -> None:
    """What its list of models tells of this one."""
    told = listed(await found.look("models"), found.asker.model.endpoint.model)
    found.engine = shortened("; ".join(filter(None, (told.owner, found.engine))), 60)
    found.context_tokens = told.context_tokens


async def _repeated(found: Findings) -> None:
    """One question several times, as deterministic as it can be asked."""
    for _ in range(_REPEATS):
        heard = await found.asker.ask(_FACT, _FACT_TOKENS, k=min(found.own_k, 5), temperature="0", seed=_SEED)
        if heard.answer is None:
            found.note_heard("deterministic", heard)
            return
        found.repeats.append(heard.answer)
    texts = {(answer.text, answer.reasoning) for answer in found.repeats}
    same = len(texts) == 1
    words = f"{'one text' if same else f'{len(texts)} texts'} in {_REPEATS} answers at temperature 0"
    distances = [apart(found.repeats[0], other) for other in found.repeats[1:]]
    if known := [distance for distance in distances if distance is not None]:
        unats = max(distance.unats for distance in known)
        found.evidence |= {"calls_differ_ppm": max(distance.ppm for distance in known), "calls_differ_unats": unats}
        words += f"; likely log-probabilities differ by up to {unats / UNATS_PER_NAT:.4f} nat"
    found.note("deterministic", YES if same else NO, words)
    said = found.repeats[0].finish_reason
    if said == "length":
        found.note("finish_stop", UNKNOWN, f"the answer did not end within {_FACT_TOKENS} tokens")
    else:
        found.note("finish_stop", YES if said == "stop" else NO, f"an answer that ended says {said!r}")


async def _drawn(found: Findings) -> None:
    """Two answers drawn hot with one seed: does the seed fix them, and is every token drawn among the candidates?"""
    dropped = found.asker.dropped
    for name in ("temperature", "top_p", "seed"):
        if name in dropped:
            found.note(name, NO, dropped[name])
    if found.own_k == 0 and "seed" in dropped:
        return
    hot = {"temperature": "1.5", "seed": _SEED}
    k = min(2, found.own_k)  # with k = 1 vLLM lists the drawn token in the place of the likeliest
    draws = [await found.asker.ask(OPEN_QUESTION, _DRAWN_TOKENS, k=k, **hot) for _ in range(2)]
    answers = [heard.answer for heard in draws if heard.answer is not None]
    if found.own_k:
        found.items["sampled_listed"] = sampled_listed([at for answer in answers for at in answer.positions], k)
    if "seed" in dropped:
        return
    if len(answers) < 2:
        found.note_heard("seed", next(heard for heard in draws if heard.answer is None))
    else:
        same = answers[0].text == answers[1].text
        found.note("seed", YES if same else IGNORED, "" if same else "two draws with one seed differ")


async def _stopped(found: Findings) -> None:
    """A word of the answer it always gives, as a stop string."""
    words = found.repeats[0].text.split() if found.repeats else []
    if len(words) < 2:
        found.note("stop_string", UNKNOWN, "no answer to cut")
        return
    stop = words[-1]
    heard = await found.asker.ask(_FACT, _FACT_TOKENS, temperature="0", seed=_SEED, stop=[stop])
    if heard.answer is None:
        found.note_heard("stop_string", heard)
        return
    came, said = heard.answer.text.split(), heard.answer.finish_reason
    if stop in heard.answer.text:
        found.note("stop_string", IGNORED, f"the answer holds it; finish_reason is {said!r}")
    elif came != words[: len(came)]:
        found.note("stop_string", UNKNOWN, "the answer was another one")
    else:
        found.note("stop_string", YES, f"cut before it; finish_reason is {said!r}")


async def _system(found: Findings) -> None:
    """Whether a system message has an effect, or at least is in the prompt."""
    heard = await found.asker.ask((Message("system", _SYSTEM), Message("user", _FACT)), 8, temperature="0")
    if heard.answer is None:
        found.note_heard("system", heard)
        return
    answer, plain = heard.answer, found.repeats[0] if found.repeats else None
    if "banana" in answer.text.casefold():
        found.note("system", YES, "obeyed")
    elif plain is None or not answer.text:
        found.note("system", UNKNOWN, "nothing to compare with")
    elif answer.usage.prompt_tokens != plain.usage.prompt_tokens or not plain.text.startswith(answer.text):
        found.note("system", YES, "it has an effect, but was not obeyed")
    else:
        found.note("system", IGNORED, "same answer, same prompt tokens as without")


async def _several(found: Findings) -> None:
    """Several answers to one question."""
    heard = await found.asker.ask(OPEN_QUESTION, 1, n=2)
    if heard.answer is None:
        found.note_heard("n", heard)
        return
    choices = dig(heard.value, "choices")
    came = len(choices) if isinstance(choices, list) else 1
    found.note("n", YES if came == 2 else IGNORED, f"2 asked for, {came} came")


async def _forms(found: Findings) -> None:
    """Tools, and an answer of a given form."""
    heard = await found.asker.ask("What time is it in Paris? Use the tool.", 64, tools=json.dumps([_TOOL]))
    if heard.answer is None:
        found.note_heard("tools", heard)
    elif heard.answer.tool_calls:
        found.note("tools", YES)
    else:
        found.note("tools", UNKNOWN, "taken, but it answered in words")
    asked = "Choose red or blue. Answer as JSON with the key colour."
    heard = await found.asker.ask(asked, 64, schema=json.dumps(SCHEMA), temperature="0")
    if heard.answer is None:
        found.note_heard("schema", heard)
    elif fits_schema(heard.answer.text):
        found.note("schema", YES)
    else:
        found.note("schema", IGNORED, f"it answered {heard.answer.text[:60]!r}")


def _one_model(found: Findings) -> None:
    """Whether all calls agree with being answered by one model."""
    names = found.distinct(lambda answer: answer.model)
    prints = found.distinct(lambda answer: answer.fingerprint)
    counts = sorted({answer.usage.prompt_tokens for answer in found.repeats if answer.usage_reported})
    differ_ppm = found.evidence.get("calls_differ_ppm", 0)
    if len(names) > 1:
        found.note("one_model", NO, f"it reports {len(names)} names: {', '.join(names)}")
    elif len(counts) > 1:
        found.note("one_model", NO, f"one question counts {' and '.join(map(str, counts))} prompt tokens")
    elif differ_ppm > MOST_APART_PPM:
        found.note("one_model", NO, f"one question's probabilities differ by {differ_ppm / 1e6:.2f}")
    elif not found.repeats:
        found.note("one_model", UNKNOWN, "no question was answered twice")
    else:
        more = f"; {len(prints)} fingerprints" if len(prints) > 1 else ""
        agree = "names and log-probabilities agree" if "calls_differ_unats" in found.evidence else "names agree"
        found.note("one_model", YES, agree + more)
