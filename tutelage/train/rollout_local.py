"""The student writes with the very weights that are being trained: nothing is saved, sent or loaded again.

Legend: B answers, T new tokens, V vocabulary. Bit for bit repeatable: the same weights, prompts, seeds and limits give the same
ids and log-probabilities on the same machine (`tutelage.train.numerics`), which resuming exactly needs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from transformers.cache_utils import DynamicCache

from tutelage.errors import ConfigError, SignalError
from tutelage.models.causal import cache_argument
from tutelage.train.rollout import GREEDY, Rollout, check, context_tokens, end_ids
from tutelage.train.rollout_fast import PRECISIONS, FastDecoder, Precision, Weights, laid_out

_PROBE_PROMPTS = ((1, 5, 9, 2, 8, 3, 7), (4, 6, 12))
_PROBE_STEPS = ((2, 10), (11, 0))


class Decoder(Protocol):
    """Answers under way, one token at a time."""

    def start(self, prompts: Sequence[tuple[int, ...]], new_tokens: int) -> torch.Tensor: ...

    def step(self, ids_B: torch.Tensor) -> torch.Tensor: ...

    def keep(self, rows: Sequence[int]) -> None: ...


class PlainDecoder:
    """Any causal language model of transformers: its own forward pass and cache, prompts padded on the left.

    A cache that holds a state from token to token cannot select: all answers run on then, and what is not kept is not read.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        self._kept: torch.Tensor | None = None  # rows of the cache that are read, where it cannot select

    def start(self, prompts: Sequence[tuple[int, ...]], new_tokens: int) -> torch.Tensor:
        """Next-token logits_BV of the prompts."""
        longest, device = max(map(len, prompts)), self._model.device
        ids_BT = torch.tensor([(0,) * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
        sizes_B1 = torch.tensor([[len(prompt)] for prompt in prompts], device=device)
        self._mask_BT = (torch.arange(longest, device=device) >= longest - sizes_B1).long()
        return self._read(ids_BT, (self._mask_BT.cumsum(1) - 1).clamp(min=0), self._mask_BT)

    def step(self, ids_B: torch.Tensor) -> torch.Tensor:
        """Next-token logits_BV after one more token of each answer."""
        self._mask_BT = torch.nn.functional.pad(self._mask_BT, (0, 1), value=1)
        places_B1 = self._mask_BT.sum(1, keepdim=True) - 1
        attends = any(hasattr(layer, "update") for layer in self._cache.layers)
        mask_BT = self._mask_BT if attends else None  # a state alone: nothing of the past is looked at
        if self._kept is None:
            return self._read(ids_B[:, None], places_B1, mask_BT)
        every_B = ids_B.new_zeros(len(self._mask_BT)).index_copy_(0, self._kept, ids_B)
        return self._read(every_B[:, None], places_B1, mask_BT)[self._kept]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        at = torch.tensor(rows, device=self._mask_BT.device)
        if any(hasattr(layer, "update_recurrent_state") for layer in self._cache.layers):
            self._kept = at if self._kept is None else self._kept[at]
            return
        self._mask_BT = self._mask_BT[at]
        self._cache.batch_select_indices(at)

    def _read(self, ids_BT: torch.Tensor, places_BT: torch.Tensor, mask_BT: torch.Tensor | None) -> torch.Tensor:
        return self._model(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            position_ids=places_BT,
            **cache_argument(self._model, self._cache),
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]


class LocalRoller:
    """Writes with `model` itself, in eval mode for as long as it writes.

    `ends`: the end tokens, else those of the model's configuration. `columns`: tokens of the tokenizer, where the head is
    wider: the rest is no token and is never drawn. `rows`: answers written at once. `precision`: "int8" and "bfloat16" write
    with rounded weights on a CPU, faster, which makes the student that writes another than the one that learns: their
    log-probabilities are the writer's. Scores of drawn tokens are weighed by the ratio of both; losses on whole distributions
    are not, and learn on the writer's text as it is. Raises `ConfigError` for an unknown precision, or
    a rounded one for a model that only its own code can run.
    """

    def __init__(
        self,
        model: Any,
        ends: frozenset[int] | None = None,
        columns: int | None = None,
        rows: int = 64,
        precision: Precision = "own",
    ) -> None:
        if precision not in PRECISIONS:
            raise ConfigError(f"rollout precision {precision!r}", fix=f"use one of {', '.join(PRECISIONS)}")
        self._model, self._columns, self._rows, self._precision = model, columns, rows, precision
        self._ends = ends or end_ids(model)
        self.fast = laid_out(model) and self._alike()
        if precision != "own" and not self.fast:
            raise ConfigError(
                f"{type(model).__name__} cannot write with {precision} weights",
                fix='set the rollout precision to "own"',
            )

    def refresh(self, model: Any) -> None:
        """Nothing has to move; another model is taken over."""
        if model is not self._model:
            self.__init__(model, self._ends, self._columns, self._rows, self._precision)

    def close(self) -> None:
        """Nothing was started."""

    @torch.inference_mode()
    def write(
        self, prompts: Sequence[tuple[int, ...]], max_new_tokens: int, temperature: float, seeds: Sequence[int]
    ) -> list[Rollout]:
        """As `Roller.write`."""
        check(prompts, max_new_tokens, temperature, seeds, context_tokens(self._model))
        found: list[Rollout] = []
        with _writing(self._model):
            weights = Weights.of(self._model, self._precision) if self.fast else None
            for at in range(0, len(prompts), self._rows):
                part = slice(at, at + self._rows)
                decoder = FastDecoder(weights) if weights else PlainDecoder(self._model)
                found += self._batch(decoder, prompts[part], max_new_tokens, temperature, seeds[part])
        return found

    def _batch(
        self,
        decoder: Decoder,
        prompts: Sequence[tuple[int, ...]],
        max_new_tokens: int,
        temperature: float,
        seeds: Sequence[int],
    ) -> list[Rollout]:
        device = self._model.device
        draws_BT = torch.stack([_uniform(seed, max_new_tokens) for seed in seeds]).to(device)
        ids: list[list[int]] = [[] for _ in prompts]
        logp: list[list[float]] = [[] for _ in prompts]
        active = list(range(len(prompts)))
        logits_BV = decoder.start(prompts, max_new_tokens)
        for at in range(max_new_tokens):
            chosen = choose(logits_BV[:, : self._columns], temperature, draws_BT[:, at])
            drawn = chosen.ids_B.tolist()
            for row, token, value in zip(active, drawn, chosen.logp_B.tolist(), strict=True):
                ids[row].append(token)
                logp[row].append(value)
            kept = [number for number, token in enumerate(drawn) if token not in self._ends]
            if not kept or at + 1 == max_new_tokens:
                break
            next_B = chosen.ids_B
            if len(kept) < len(active):
                active = [active[number] for number in kept]
                draws_BT, next_B = draws_BT[kept], next_B[kept]
                decoder.keep(kept)
            logits_BV = decoder.step(next_B)
        return [
            Rollout(prompt, tuple(own), tuple(values), own[-1] in self._ends)
            for prompt, own, values in zip(prompts, ids, logp, strict=True)
        ]

    @torch.inference_mode()
    def _alike(self) -> bool:
        """Whether the short way gives the model's own log-probabilities, tried on a few tokens."""
        vocabulary = self._model.get_output_embeddings().weight.shape[0]
        prompts = [tuple(token % vocabulary for token in prompt) for prompt in _PROBE_PROMPTS]
        steps = [torch.tensor(step, device=self._model.device) % vocabulary for step in _PROBE_STEPS]
        with _writing(self._model):
            try:
                ways = [
                    _forced(decoder, prompts, steps)
                    for decoder in (PlainDecoder(self._model), FastDecoder(Weights.of(self._model)))
                ]
            except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
                return False  # parts that have the names but not the shapes or signatures known here
        apart = (ways[0] - ways[1]).abs()
        half = self._model.dtype in (torch.bfloat16, torch.float16)
        return bool(apart.mean() < 0.1 if half else apart.max() < 1e-3)


def _forced(decoder: Decoder, prompts: Sequence[tuple[int, ...]], steps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Log-probabilities [steps + 1, B, V] along tokens that are given."""
    found = [decoder.start(prompts, len(steps)), *(decoder.step(ids_B) for ids_B in steps)]
    return torch.stack(found).float().log_softmax(-1)


class Chosen(NamedTuple):
    """The next token of each answer: `ids_B`, and `logp_B` float32 natural logs at temperature 1."""

    ids_B: torch.Tensor
    logp_B: torch.Tensor


def choose(logits_BV: torch.Tensor, temperature: float, draws_B: torch.Tensor) -> Chosen:
    """Draws by the inverse of the distribution function, one uniform number in [0, 1) a row; temperature 0 takes the first
    of the likeliest. A row's token depends on nothing but its own logits and number."""
    logp_BV = logits_BV.float().log_softmax(-1)
    if logp_BV.isnan().any():
        raise SignalError(
            "the student's logits are not finite: it cannot write", fix="lower train.learning_rate and train again"
        )
    if temperature == GREEDY:
        ids_B = logp_BV.argmax(-1)
    else:
        p_BV = logp_BV.exp() if temperature == 1 else (logp_BV / temperature).softmax(-1)
        below_BV = p_BV.cumsum(-1, dtype=torch.float64)
        total_B = below_BV[:, -1]
        point_B = draws_B * total_B  # below the total: the largest number is 1 − 2⁻⁵³
        ids_B = torch.searchsorted(below_BV, point_B[:, None], right=True)[:, 0]
    return Chosen(ids_B, logp_BV.gather(1, ids_B[:, None])[:, 0])


def _uniform(seed: int, count: int) -> torch.Tensor:
    """Numbers that depend on the answer's seed alone, whatever is written beside it, on whatever device."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@contextmanager
def _writing(model: Any) -> Iterator[None]:
    """The model as it writes: without dropout, and with attention that knows a cache."""
    training, attention = model.training, model.config._attn_implementation
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    model.eval()
    if attention not in ("sdpa", "eager"):
        try:
            inner.set_attn_implementation("sdpa")
        except ValueError:
            inner.set_attn_implementation("eager")
    try:
        yield
    finally:
        if inner.config._attn_implementation != attention:
            inner.set_attn_implementation(attention)
        model.train(training)
