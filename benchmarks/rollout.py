"""How fast the student writes: `python benchmarks/rollout.py [--rounds 3]`. New tokens a second of each engine, side by side.

The student is 10 of SmolLM2-135M's 30 layers; 4 questions of GSM8K (or, without `--data`, prompts of random ids of the same
lengths), 128 new tokens each. Engines take turns, and of each the best round counts: what other work on the machine costs is
not theirs. `llamacpp_*` without refresh is llama.cpp's own batched rate with 4 slots; "with refresh" counts what must be done
before answers come from new weights. Writes `benchmarks/results/rollout.json`; the same is the last line printed.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from tutelage.hardware import describe
from tutelage.resources import fetch, resource
from tutelage.train.rollout import Roller
from tutelage.train.rollout_fast import FastDecoder, Weights
from tutelage.train.rollout_llamacpp import LlamaCppRoller
from tutelage.train.rollout_local import LocalRoller
from tutelage.train.student import load_student, make_student

RESULTS = Path(__file__).parent / "results"
NEW_TOKENS, ANSWERS, LAYERS = 128, 4, 10
NEVER = frozenset([0])  # so that every answer has its 128 tokens
KL_TOKENS = 32


def prompts_of(data: Path | None, folder: Path) -> list[tuple[int, ...]]:
    """Four questions as the student would be asked them."""
    if data is None:
        draw = random.Random(0)
        return [tuple(draw.randrange(100, 40_000) for _ in range(length)) for length in (64, 113, 87, 58)]
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    rows = [json.loads(line) for line in data.read_text().splitlines()[:ANSWERS]]
    turns = [[{"role": "user", "content": row["question"]}] for row in rows]
    return [tuple(tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)) for turn in turns]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def measure(roller: Roller, model: Any, prompts: list[tuple[int, ...]], into: dict[str, list[float]], rnd: int) -> None:
    """One round: a refresh with the answers after it, then answers alone (of an engine that is up)."""
    seeds = list(range(rnd * ANSWERS, (rnd + 1) * ANSWERS))

    def answer() -> int:
        return sum(len(found.ids) for found in roller.write(prompts, NEW_TOKENS, 1.0, seeds))

    def fresh() -> int:
        roller.refresh(model)
        return answer()

    for name, work in (("with_refresh", fresh), ("own", answer)):
        wall_s, tokens = timed(work)
        into.setdefault(name, []).append(tokens / wall_s)


@torch.inference_mode()
def kl_nats(model: Any, prompts: list[tuple[int, ...]], precision: Any) -> float:
    """Mean KL(student ‖ the writer with rounded weights) along the student's likeliest tokens."""
    decoders = FastDecoder(Weights.of(model)), FastDecoder(Weights.of(model, precision))
    logits, total = [decoder.start(prompts, KL_TOKENS) for decoder in decoders], 0.0
    for _ in range(KL_TOKENS):
        logits = [decoder.step(logits[0].argmax(-1)) for decoder in decoders]
        own, rounded = (value.double().log_softmax(-1) for value in logits)
        total += float((own.exp() * (own - rounded)).sum(-1).mean())
    return total / KL_TOKENS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="gsm8k_train.jsonl")
    parser.add_argument("--kinds", nargs="*", default=["F32", "F16", "Q8_0"], help="weights of llama.cpp")
    parser.add_argument("--out", type=Path, default=RESULTS / "rollout.json")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "student"
        make_student(fetch(resource("smollm2-135m-instruct")), LAYERS, None, ("yes", "no"), folder)
        model, _ = load_student(folder)
        model.eval()
        prompts = prompts_of(chosen.data, folder)
    plain = LocalRoller(model, NEVER)
    plain.fast = False
    rollers: dict[str, Any] = {
        "local": LocalRoller(model, NEVER),
        "local_int8": LocalRoller(model, NEVER, precision="int8"),
        "local_plain": plain,
    }
    rollers |= {f"llamacpp_{kind}": LlamaCppRoller(model, ANSWERS, 512, kind, NEVER) for kind in chosen.kinds}
    rates: dict[str, dict[str, list[float]]] = {name: {} for name in rollers}
    try:
        for rnd in range(chosen.rounds):
            for name, roller in rollers.items():
                measure(roller, model, prompts, rates[name], rnd)
    finally:
        for roller in rollers.values():
            roller.close()
    best = {name: {kind: round(max(values), 1) for kind, values in found.items()} for name, found in rates.items()}
    result = {
        "tokens_per_s": best,
        "ratio_same_precision": round(best["local"]["with_refresh"] / best["llamacpp_F32"]["own"], 3)
        if "llamacpp_F32" in best
        else None,
        "kl_nats": {"int8": kl_nats(model, prompts, "int8")},
        "prompt_tokens": [len(prompt) for prompt in prompts],
        "new_tokens": NEW_TOKENS,
        "threads": torch.get_num_threads(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "hardware": describe(),
        "versions": {"torch": torch.__version__},
        "date": datetime.now(UTC).date().isoformat(),
    }
    chosen.out.parent.mkdir(exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
