"""Loss kernel, training and rollouts on a CUDA GPU: `PYTHONPATH=. python benchmarks/gpu/train.py [--part PART] [--tiny]`.

Needs torch and transformers only. Parts: `kernel` (head, divergence and gradients in chunks at student hidden 2,048,
teacher hidden 4,096, vocabulary 128,256, 8,192 positions, as a fraction of the card's measured matmul peak, checked
against autograd on the first positions), `mfu` (training of a random Llama of 1.7 B shape in bf16 on packed rows, as a
fraction of that peak), `onpolicy` (rollouts by the model being trained, reverse KL to a random teacher, tokens a second of
whole steps). `--tiny` runs every part in seconds on a CPU, to see that it works. The last line printed is one JSON object;
it belongs into `benchmarks/results/gpu-train.json`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from tutelage.losses.catalogue import make
from tutelage.losses.chunked import Part, head_gradients
from tutelage.models.causal import Causal
from tutelage.models.kernels import economical
from tutelage.signals import Head, Hidden, Text
from tutelage.train.batch import Batch, Term
from tutelage.train.rollout_local import LocalRoller
from tutelage.train.step import clear, train_step

PARTS = ("kernel", "mfu", "onpolicy")


def timed(work: Callable[[], Any], device: str, times: int) -> float:
    """Median seconds of a call, after one to warm up."""

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    taken = []
    for _ in range(times + 1):
        wait()
        began = time.perf_counter()
        work()
        wait()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def peak_tflops(device: str, tiny: bool) -> float:
    """What the card multiplies at: the best of large square bf16 products."""
    size, dtype = (512, torch.float32) if tiny else (8192, torch.bfloat16)
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = min(timed(lambda: one @ other, device, 1) for _ in range(10))
    return 2 * size**3 / best / 1e12


def kernel(device: str, tiny: bool, peak: float) -> dict[str, Any]:
    """Forward and reverse KL and generalized JSD over a teacher's hidden states."""
    count, vocabulary, student_width, teacher_width = (64, 1000, 16, 32) if tiny else (8192, 128_256, 2048, 4096)
    dtype = torch.float32 if tiny else torch.bfloat16
    torch.manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, device=device) / shape[-1] ** 0.5).to(dtype)

    hidden_ND = torch.randn(count, student_width, device=device, dtype=dtype)
    head, teacher = Head(random(vocabulary, student_width)), Head(random(vocabulary, teacher_width))
    signal = Hidden(torch.randn(count, teacher_width, device=device, dtype=dtype), teacher)
    flops = 2 * count * vocabulary * (3 * student_width + teacher_width)
    found: dict[str, Any] = {}
    for name, loss in {
        "forward-kl": make("forward-kl"),
        "reverse-kl": make("reverse-kl"),
        "jsd": make("jsd", beta=0.5),
    }.items():
        gradient_VD = torch.zeros(vocabulary, student_width, device=device, dtype=torch.float32)
        parts = (Part(loss, signal),)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated() if device == "cuda" else 0
        seconds = timed(
            lambda: head_gradients(hidden_ND, head, parts, 1 / count, weight_gradient_VD=gradient_VD),  # noqa: B023
            device,
            5,
        )
        extra = torch.cuda.max_memory_allocated() - held if device == "cuda" else 0
        found[name] = {
            "ms": round(1e3 * seconds, 2),
            "of_peak": round(flops / seconds / 1e12 / peak, 3),
            "extra_gb": round(extra / 1e9, 2),
            "gradient_off": check(hidden_ND[:256], head, Part(loss, signal.rows(slice(0, 256)))),
        }
    return found


def check(hidden_ND: torch.Tensor, head: Head, part: Part) -> float:
    """How far the hidden states' gradient is from autograd's in float32, relative to its norm."""
    found = head_gradients(hidden_ND, head, (part,), 1.0, weight_gradient_VD=None).gradient_ND.float()
    leaf = hidden_ND.float().requires_grad_()
    exact = Head(head.weight_VD.float())
    assert isinstance(part.signal, Hidden)
    teacher = part.signal
    dense = Hidden(teacher.hidden_ND.float(), Head(teacher.head.weight_VD.float())).dense()
    part.loss(exact.logits(leaf), dense).sum().backward()
    assert leaf.grad is not None
    return float((found - leaf.grad).norm() / leaf.grad.norm())


def llama(device: str, *, tiny: bool, layers: int, width: int, inner: int, heads: int, vocabulary: int) -> Any:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    if tiny:
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
        vocabulary = 500
    config = LlamaConfig(
        **sizes, num_key_value_heads=sizes["num_attention_heads"], vocab_size=vocabulary, tie_word_embeddings=True,
        max_position_embeddings=4096, eos_token_id=0, bos_token_id=None,
    )  # fmt: skip
    with torch.device(device):
        return LlamaForCausalLM(config)


def mfu(device: str, tiny: bool, peak: float) -> dict[str, Any]:
    """A student of SmolLM2-1.7B's shape on packed documents: cross-entropy on every token, AdamW."""
    model = llama(device, tiny=tiny, layers=24, width=2048, inner=8192, heads=32, vocabulary=49_152)
    economical(model)
    student = Causal(model)
    model.train()
    lengths = (16,) * 4 if tiny else (1024,) * 16
    ids_T = torch.randint(1, 499 if tiny else 49_000, (sum(lengths),), device=device)
    positions_N = torch.arange(len(ids_T), device=device)
    term = Term(positions_N, (Part(make("cross-entropy"), Text(ids_T.roll(-1))),))
    batch = Batch(ids_T, lengths, (term,), {"text-target": len(ids_T)}, ())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda")

    def step() -> None:
        train_step(student, [batch], len(ids_T), 1.0, autocast)
        optimizer.step()
        clear(student)

    seconds = timed(step, device, 5)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    attention = 12 * model.config.num_hidden_layers * model.config.hidden_size * lengths[0] / 2
    flops = (6 * parameters + attention) * len(ids_T)
    return {
        "parameters": parameters,
        "tokens_per_s": round(len(ids_T) / seconds),
        "mfu": round(flops / seconds / 1e12 / peak, 3),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if device == "cuda" else None,
    }


def onpolicy(device: str, tiny: bool, peak: float) -> dict[str, Any]:
    """Whole steps: rollouts, teacher, gradients, AdamW. A student of 135 M shape, a teacher of three times its depth."""
    shape: dict[str, Any] = {"tiny": tiny, "width": 576, "inner": 1536, "heads": 9, "vocabulary": 49_152}
    model, above = llama(device, layers=10, **shape), llama(device, layers=30, **shape)
    if device == "cuda":
        above.bfloat16()
    student, teacher = Causal(model), Causal(above)
    teacher.model.eval().requires_grad_(False)
    roller = LocalRoller(model, ends=frozenset({0}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda")
    rows, new = (4, 8) if tiny else (64, 256)
    draw, tokens, writing = torch.Generator().manual_seed(0), 0, 0.0
    loss = make("reverse-kl")

    def step() -> None:
        nonlocal tokens, writing
        prompts = [tuple(torch.randint(1, 499, (32,), generator=draw).tolist()) for _ in range(rows)]
        began = time.perf_counter()
        written = roller.write(prompts, new, 1.0, list(range(rows)))
        writing += time.perf_counter() - began
        lengths = tuple(len(one.prompt_ids) + len(one.ids) - 1 for one in written)
        ids_T = torch.tensor([t for one in written for t in (*one.prompt_ids, *one.ids)[:-1]], device=device)
        places, start = [], 0
        for one, length in zip(written, lengths, strict=True):
            places += range(start + len(one.prompt_ids) - 1, start + length)
            start += length
        positions_N = torch.tensor(places, device=device)
        with torch.no_grad():
            signal = Hidden(teacher.hidden(ids_T, lengths)[positions_N], teacher.head())
        batch = Batch(ids_T, lengths, (Term(positions_N, (Part(loss, signal),)),), {"soft-target": len(places)}, ())
        train_step(student, [batch], len(places), 1.0, autocast)
        optimizer.step()
        clear(student)
        tokens = len(ids_T)

    seconds = timed(step, device, 3)
    return {"tokens_per_s": round(tokens / seconds), "rollout_time_share": round(writing / 4 / seconds, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tiny", action="store_true")
    chosen = parser.parse_args()
    device = "cpu" if chosen.tiny else "cuda"
    peak = peak_tflops(device, chosen.tiny)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "matmul_tflops": round(peak, 2),
    }
    for part in chosen.part:
        found[part] = {"kernel": kernel, "mfu": mfu, "onpolicy": onpolicy}[part](device, chosen.tiny, peak)
        print(part, json.dumps(found[part]), flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
