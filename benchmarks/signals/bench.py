"""Teacher, student, texts and signals of `benchmarks/signal_store.py`."""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

TURNS = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
)
LONGEST = 384
LAYERS = 10
BATCH = 4  # texts a step
DISTILLKIT = "distillkit_50"


class Example(NamedTuple):
    """A text, the positions that predict its answer, and the teacher's last hidden states there."""

    ids_T: torch.Tensor
    positions_N: torch.Tensor
    hidden_ND: torch.Tensor


class Row(NamedTuple):
    """What one kind of signal gives for an example: ids, weights. None stands for the whole distribution."""

    ids_NK: torch.Tensor
    weights_NK: torch.Tensor


Source = Callable[[Example], Row | None]


def whole(_: Example) -> None:
    """The signal that is the whole distribution."""


def pairs(data: Path | None) -> list[tuple[str, str]]:
    """Questions and answers."""
    if data is not None:
        rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
        return [(row["question"], row["answer"]) for row in rows]
    from tutelage.resources import FILM_REVIEWS, fetch

    lines = fetch(FILM_REVIEWS).read_text(encoding="utf-8", errors="replace").splitlines()
    sentences = [line.split("\t")[-1].strip() for line in lines]
    return [("Go on.", " ".join(sentences[at : at + 3])) for at in range(0, len(sentences) - 3, 3)]


def captured(teacher: Any, tokenizer: Any, texts: list[tuple[str, str]]) -> list[Example]:
    """The teacher's view of every answer."""
    found = []
    for question, answer in texts:
        asked = tokenizer(TURNS.format(question=question))["input_ids"]
        ids = (asked + tokenizer(answer)["input_ids"] + [tokenizer.eos_token_id])[:LONGEST]
        ids_T = torch.tensor(ids)
        positions_N = torch.arange(len(asked) - 1, len(ids) - 1)
        with torch.no_grad():
            hidden_TD = teacher.model(ids_T[None]).last_hidden_state[0]
        found.append(Example(ids_T, positions_N, hidden_TD[positions_N].clone()))
    return [example for example in found if len(example.positions_N)]


class Bench:
    """Everything the measurements share."""

    def __init__(self, chosen: argparse.Namespace, work: Path) -> None:
        from tutelage.resources import SMOLLM2, fetch
        from tutelage.train.student import load_student, make_student

        torch.manual_seed(chosen.seed)
        for layers in (30, LAYERS):
            if not (work / str(layers)).exists():
                make_student(fetch(SMOLLM2), layers, None, [], work / str(layers))
        teacher, tokenizer = load_student(work / "30")
        self.teacher_head = teacher.lm_head.weight.detach()
        self.student_folder, self.chosen, self.work = work / str(LAYERS), chosen, work
        texts = pairs(chosen.data)
        self.train = captured(teacher, tokenizer, texts[: chosen.texts])
        self.held = captured(teacher, tokenizer, texts[-chosen.held :])
        self.warm: dict[str, torch.Tensor] | None = None
        if chosen.warm_steps:
            self.warm = self.trained(whole, 0, chosen.warm_steps).state_dict()

    def student(self) -> Any:
        """The student that every arm begins as: pruned, and with `--warm-steps` trained on the whole distribution for so long."""
        from tutelage.train.student import load_student

        model = load_student(self.student_folder)[0]
        if self.warm is not None:
            model.load_state_dict(self.warm)
        return model

    def logp(self, example: Example) -> torch.Tensor:
        """The teacher's log-probabilities [N, V]."""
        return torch.nn.functional.linear(example.hidden_ND, self.teacher_head).log_softmax(-1)

    def loss(self, student: Any, example: Example, row: Row | None) -> torch.Tensor:
        """Σ over positions of logsumexp(z) − Σ tᵢ zᵢ: its gradient is that of the forward KL where E[t] = p."""
        hidden_TD = student.model(example.ids_T[None]).last_hidden_state[0]
        logits_NV = student.lm_head(hidden_TD[example.positions_N])
        if row is None:
            revealed_N = (self.logp(example).exp() * logits_NV).sum(-1)
        else:
            revealed_N = (row.weights_NK * logits_NV.gather(-1, row.ids_NK)).sum(-1)
        return (logits_NV.logsumexp(-1) - revealed_N).sum()

    def held_out_kl(self, student: Any) -> float:
        total, count = 0.0, 0
        with torch.no_grad():
            for example in self.held:
                logp_NV = self.logp(example)
                logits_TV = student.lm_head(
                    student.model(example.ids_T[None]).last_hidden_state[0][example.positions_N]
                )
                total += float((logp_NV.exp() * (logp_NV - logits_TV.log_softmax(-1))).sum())
                count += len(logp_NV)
        return total / count

    def trained(self, source: Source, seed: int, steps: int | None = None) -> Any:
        """A student after `--steps` steps, or so many: the same start, optimizer, and order of texts by `seed`, whatever the
        signal."""
        student = self.student()
        optimizer = torch.optim.AdamW(student.parameters(), lr=self.chosen.lr, betas=(0.9, 0.95), weight_decay=0.0)
        order = torch.Generator().manual_seed(seed)
        steps = steps or self.chosen.steps
        for step in range(steps):
            picked = [self.train[at] for at in torch.randint(len(self.train), (BATCH,), generator=order).tolist()]
            count = sum(len(example.positions_N) for example in picked)
            for example in picked:
                (self.loss(student, example, source(example)) / count).backward()
            for group in optimizer.param_groups:
                group["lr"] = self.chosen.lr * min(1.0, (step + 1) / 5) * (1 - step / steps)
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return student

    def gradient(self, student: Any, source: Source) -> torch.Tensor:
        """The mean gradient over the first `--angle-positions` positions, as one vector."""
        student.zero_grad()
        left = self.chosen.angle_positions
        for example in self.train:
            row = source(example)
            take = min(left, len(example.positions_N))
            part = Example(example.ids_T, example.positions_N[:take], example.hidden_ND[:take])
            self.loss(student, part, row and Row(*(column[:take] for column in row))).backward()
            left -= take
            if not left:
                break
        found = torch.cat([parameter.grad.flatten() for parameter in student.parameters()])
        student.zero_grad()
        return found / (self.chosen.angle_positions - left)


def cached(
    bench: Bench, kind: Any, thin: Callable[[torch.Tensor, torch.Generator], Any], seed: int
) -> tuple[Any, dict[str, Any]]:
    """The training texts' signal, drawn by `seed`, in a cache and read back; with what it cost."""
    from tutelage.canon import digest_of
    from tutelage.signals.thin import seeded
    from tutelage.store.signals import Identity, SignalCache, SignalWriter, key_of

    names = ("teacher", "tokenizer", "student_tokenizer", "template", "dataset", "sampling")
    identity = Identity(
        kind, **{name: digest_of(name) for name in names}, logprobs="raw", vocabulary=len(bench.teacher_head)
    )
    thin_s = add_s = 0.0
    folder = Path(tempfile.mkdtemp(dir=bench.work))
    with SignalWriter(folder, identity) as writer:
        for example in bench.train:
            logp_NV = bench.logp(example)
            began = time.perf_counter()
            signal = thin(logp_NV, seeded(key_of(example.ids_T).hex(), seed))
            thin_s += time.perf_counter() - began
            began = time.perf_counter()
            writer.add(example.ids_T, example.positions_N, signal)
            add_s += time.perf_counter() - began
        began = time.perf_counter()
        writer.flush()
        add_s += time.perf_counter() - began
    cache = SignalCache(folder, identity)
    began = time.perf_counter()
    for example in bench.train:
        cache.read(example.ids_T)
    read_s = time.perf_counter() - began
    size = sum(path.stat().st_size for path in folder.iterdir())
    facts = {
        "bytes_per_token": round(size / cache.positions, 2),
        "thin_positions_per_s": round(cache.positions / thin_s),
        "write_positions_per_s": round(cache.positions / add_s),
        "read_positions_per_s": round(cache.positions / read_s),
        "coding_log_nats": max(error.log_nats for error in cache.errors()),
        "coding_kl_nats": max(error.kl_nats for error in cache.errors()),
    }
    return cache, facts


def fitted_top_50(logp_NV: torch.Tensor) -> Row:
    """The 50 likeliest as DistillKit's smaller setting gives them back: bfloat16 for the first, least squares in 1, t, √t for the
    others; then to sum 1, which is what its default does with missing ids."""
    best = logp_NV.topk(50)
    t = torch.arange(49.0)
    terms_KP = torch.stack([torch.ones(49), t, t.sqrt()], -1)
    coefficients_NP = torch.linalg.lstsq(terms_KP, best.values[:, 1:].T).solution.T
    fit_NK = torch.cat([best.values[:, :1].bfloat16().float(), coefficients_NP @ terms_KP.T], -1)
    return Row(best.indices, fit_NK.softmax(-1))


def kinds_of(chosen: argparse.Namespace) -> dict[str, tuple[Any, Callable[[torch.Tensor, torch.Generator], Any]]]:
    """By name, what is cached and how it is thinned. The first `--c` is plain `threshold`."""
    from tutelage.signals.thin import random_draws, threshold, top_k
    from tutelage.store.signal_kinds import Draws, Threshold, TopKTail

    found: dict[str, Any] = {}
    for c in chosen.c:
        name = f"threshold_1/{1 / c:g}" if found else "threshold"
        found[name] = (Threshold(c), lambda logp_NV, generator, c=c: threshold(logp_NV, c, generator))
    found["rskd_50"] = (Draws(50), lambda logp_NV, generator: random_draws(logp_NV, 50, generator))
    found["top_12_renormalised"] = (TopKTail(12), lambda logp_NV, _: top_k(logp_NV, 12))
    return found


def names_of(chosen: argparse.Namespace) -> tuple[str, ...]:
    """The signals asked for, in order; all there are unless `--signals` names some."""
    known = (*kinds_of(chosen), DISTILLKIT)
    return tuple(name for name in known if not chosen.signals or name in chosen.signals)


def source_of(bench: Bench, name: str, seed: int) -> tuple[Source, dict[str, Any]]:
    """One kind of signal, drawn by `seed`: what it gives, what it costs."""
    if name == DISTILLKIT:
        packed = {"bytes_per_token": 2 + 3 * 4 + math.ceil(50 * math.ceil(math.log2(len(bench.teacher_head))) / 8)}
        return (lambda example: fitted_top_50(bench.logp(example))), packed
    kind, thin = kinds_of(bench.chosen)[name]
    cache, facts = cached(bench, kind, thin, seed)

    def read(example: Example) -> Row:
        signal = cache.read(example.ids_T, example.positions_N).signal
        if hasattr(signal, "logp_NK"):
            return Row(signal.ids_NK, signal.logp_NK.softmax(-1))
        return Row(signal.ids_NK, signal.weights_NK)

    return read, facts
