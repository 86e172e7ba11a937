"""What a local model thinks of a text that is there already: the log-probability of each of its tokens, none drawn.

Legend: T tokens of the text, C of one chunk of it, V vocabulary, K most likely candidates.
"""

from dataclasses import dataclass

import torch
from transformers.cache_utils import DynamicCache

from tutelage.errors import DataError
from tutelage.models.causal import cache_argument
from tutelage.models.hf import HFModel, PromptTooLong
from tutelage.records import UNATS_PER_NAT, Position, TokenLogprob

_CHUNK_TOKENS = 256  # logits of so many positions are held at once: 150 MB in float32 with a vocabulary of 150,000


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Ids of a text, how many candidates to name at each position, and whether to name the likeliest next token too."""

    ids: tuple[int, ...]
    top: int
    with_next: bool


@dataclass(frozen=True, slots=True)
class TextScores:
    """A position for every id but the first, which nothing comes before, and behind them the next token where it was asked
    for. Log-probabilities are of the raw distribution (temperature 1, nothing truncated)."""

    positions: tuple[Position, ...]


def encode(model: HFModel, text: str) -> tuple[int, ...]:
    """Ids of a text as it stands, without chat template; with the beginning token where the tokenizer puts one."""
    return tuple(model._tokenizer(text)["input_ids"])


def check_text(model: HFModel, ids: tuple[int, ...]) -> None:
    """Raises `DataError`: no ids, one outside the model's vocabulary, or more than its context holds (`PromptTooLong`)."""
    rows = model._model.get_input_embeddings().num_embeddings
    wrong = next((token for token in ids if not 0 <= token < rows), None)
    if not ids or wrong is not None:
        what = "an empty prompt" if not ids else f"token {wrong} is not from 0 to {rows - 1}"
        raise DataError(what, fix="send text, or ids of this model's own tokenizer")
    if len(ids) > model.limit:
        raise PromptTooLong(len(ids), model.limit)


@torch.inference_mode()
def score_text(model: HFModel, request: ScoreRequest) -> TextScores:
    """One text, which has passed `check_text`. Equal to the logits of one pass over it, up to rounding."""
    ids, inner, positions = request.ids, model._model, list[Position]()
    following = (*ids[1:], None)
    size = _CHUNK_TOKENS if model._packs else len(ids)  # another kind of state cannot always be fed in pieces
    cache = DynamicCache(config=inner.config) if size < len(ids) else None
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        ids_1C, places_1C = torch.tensor([part]), torch.arange(start, start + len(part))[None]
        kept = cache_argument(inner, cache) if cache is not None else {}
        logits_CV = (
            inner(input_ids=ids_1C, position_ids=places_1C, use_cache=cache is not None, **kept).logits[0].float()
        )
        norm_C = logits_CV.logsumexp(-1)
        top_CK, order_CK = logits_CV.topk(min(max(1, request.top), logits_CV.shape[-1]), dim=-1)
        rows = zip(order_CK.tolist(), (top_CK - norm_C[:, None]).tolist(), following[start : start + size], strict=True)
        for at, (tokens, logprobs, next_id) in enumerate(rows):
            likely = [_token(model, *pair) for pair in zip(tokens, logprobs, strict=True)]
            if next_id is not None:
                chosen = _token(model, next_id, float(logits_CV[at, next_id] - norm_C[at]))
                positions.append(Position(chosen, tuple(likely[: request.top])))
            elif request.with_next:
                positions.append(Position(likely[0], tuple(likely[: request.top])))
    return TextScores(tuple(positions))


def _token(model: HFModel, token_id: int, logprob: float) -> TokenLogprob:
    nats = max(logprob, -1e9)  # a masked token's infinity is no JSON
    return TokenLogprob(model.token_bytes.b64(token_id), token_id, min(0, round(nats * UNATS_PER_NAT)))
