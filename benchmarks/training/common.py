"""What both sides are given: the same weights, the same questions and answers in the same order, the same batches."""

import argparse
import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

BATCH, LIMIT_TOKENS, NEW_TOKENS = 4, 384, 128
LEARNING_RATE = 1e-4
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def weights(cache: Path) -> tuple[Path, Path]:
    """Folders of the teacher (30 layers) and the student (its first 10), made once."""
    from tutelage.resources import SMOLLM2, fetch
    from tutelage.train.student import make_student

    folders = cache / "teacher", cache / "student"
    for folder, layers in zip(folders, (30, 10), strict=True):
        if not (folder / "model.safetensors").exists():
            make_student(fetch(SMOLLM2), layers, TEMPLATE, [], folder)
    return folders


def conversations(data: Path | None, count: int) -> list[list[dict[str, str]]]:
    """Questions and answers of a JSON Lines file; without one, the film-review sentences, each continued from its middle."""
    if data is not None:
        rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
        pairs = [(row["question"], row["answer"]) for row in rows]
    else:
        from tutelage.resources import FILM_REVIEWS, fetch

        lines = fetch(FILM_REVIEWS).read_text(encoding="latin-1").splitlines()
        texts = [line.split("\t")[-1].strip() for line in lines]
        joined = [" ".join(texts[at : at + 8]) for at in range(0, len(texts), 8)]
        pairs = [(text[: len(text) // 3], text[len(text) // 3 :]) for text in joined if len(text) > 200]
    random.Random(0).shuffle(pairs)
    return [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for question, answer in pairs[:count]
    ]


@contextlib.contextmanager
def peak_gb() -> Iterator[list[float]]:
    """The largest resident memory of this process and its children while inside, sampled every 20 ms, in GB."""
    found, over = [0.0], threading.Event()
    process = psutil.Process()

    def watch() -> None:
        while not over.wait(0.02):
            with contextlib.suppress(psutil.Error):
                held = sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
                found[0] = max(found[0], held / 1e9)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def said(**figures: Any) -> None:
    """Prints a side's figures as its last line."""
    print(json.dumps(figures), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("what")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    chosen = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(psutil.cpu_count(logical=False) or 1)
    torch.manual_seed(0)
    return chosen


class Clock:
    """Seconds and tokens of each step."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, int]] = []

    @contextlib.contextmanager
    def step(self, tokens: list[int]) -> Iterator[None]:
        """`tokens` is filled inside; its sum is what the step read."""
        began = time.perf_counter()
        yield
        self.steps.append((time.perf_counter() - began, sum(tokens)))

    def rates(self) -> list[float]:
        """Tokens a second of each step but the first, which warms up."""
        return [round(tokens / seconds, 1) for seconds, tokens in self.steps[1:]]
