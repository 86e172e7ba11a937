"""What a question teaches by what comes with its answer: `python -m benchmarks.reviews_api [--run FOLDER] [--seeds 3]`.

Teacher: Gemma 3 270M through its endpoint, asked once by the recipe film_reviews_gemma (size standard) into `--run`, unless
that lies there. Student: six layers of SmolLM2-135M-Instruct, of another tokenizer. From the same answers, with equally many
steps:
- `text`: cross-entropy on the label that the teacher wrote, which is all that an API without log-probabilities shows;
- `labels`: on the label after the decision rule that log-probabilities allow (each label its declared share);
- `top_20`: the unbiased truncated forward KL on its candidates for that token (their tail kept), after the same rule;
- `alm`: cross-entropy on the written label and approximate likelihood matching of its recorded log-probability;
`_half` and `_quarter` with that share of the questions, which are those that the recipe selected: answers that give no label much
probability are dropped there. `text` and `alm` leave out the few without a label in words.

Accuracy is against people's ratings of held-out sentences: as the student answers, and `balanced`, with its own threshold at the
median over the questions it learnt from: no gold, but the knowledge that half of them are good. Differences are paired by
sentence, seeds averaged, with the BCa bootstrap's 95 % interval over sentences. What is done lies in `--work` by arm and seed and
is not done again: another run needs another folder. The last line printed is the result.
"""

import argparse
import itertools
import json
import random
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.paired import difference
from tutelage.config import RunConfig
from tutelage.hardware import describe
from tutelage.jsonl import write_whole
from tutelage.losses.alm import Chunks
from tutelage.losses.catalogue import make
from tutelage.losses.chunked import Part
from tutelage.models.causal import Causal
from tutelage.models.kernels import economical
from tutelage.pipeline.learning import BEFORE, read_selection
from tutelage.progress import Quiet, Stop
from tutelage.prompts import read_prompts
from tutelage.run_file import load_config
from tutelage.store.store import Store
from tutelage.tasks import read_label, student_messages
from tutelage.train.batch import Batch, starts
from tutelage.train.labels import Data, LabelJudge, LabelSource, build, offsets_nats
from tutelage.train.loop import Loop, Plan, Seen, plan_steps
from tutelage.train.loop import train as loop
from tutelage.train.student import load_student

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "tutelage" / "recipes" / "film_reviews_gemma" / "run.toml"
RESULT = ROOT / "benchmarks" / "results" / "reviews_api.json"
SHARES = {"half": 0.5, "quarter": 0.25}
ARMS = ("text", "top_20_half", "top_20", "alm", "labels", "text_half", "top_20_quarter")
TAU = 100.0
COMPARED = (("top_20_half", "text"), ("top_20", "text"), ("alm", "text"), ("top_20", "alm"), ("top_20", "labels"),
            ("top_20_half", "top_20"))  # fmt: skip


class SameSteps(LabelSource):
    """As many steps as all questions would take, whatever the share of them."""

    def __init__(self, data: Data, config: RunConfig, seed: int, steps: int) -> None:
        super().__init__(data, config.train, seed)
        self._steps = steps

    @property
    def plan(self) -> Plan:
        return Plan(super().plan.per_epoch, self._steps)


class Matching(SameSteps):
    """Beside the written label, how likely the teacher said it was: `logp` by row, in nats."""

    logp: tuple[float, ...] = ()

    def batch(self, rows: Any) -> Batch:
        batch = super().batch(rows)
        (term,) = batch.terms
        (words,) = term.parts
        sizes = [len(self.data.examples[row].answer_ids) for row in rows]
        unit_N, logp_N = torch.full((sum(sizes),), -1), torch.zeros(sum(sizes))
        for at, (row, start, size) in enumerate(zip(rows, starts(sizes), sizes, strict=True)):
            unit_N[start : start + size - 1] = at  # all but the end of turn, of which an endpoint says nothing
            logp_N[start + size - 2] = self.logp[row]
        chunks = Chunks(words.signal.ids_N, unit_N, logp_N)
        return batch._replace(terms=(term._replace(parts=(words, Part(make("alm"), chunks, TAU))),))


class Recipe:
    """What the teacher said, and how a student is trained and examined on it."""

    def __init__(self, run: Path, work: Path) -> None:
        self.run, self.work = run, work
        work.mkdir(parents=True, exist_ok=True)
        self.config = load_config(RECIPE, "standard")
        self.store = Store(run / "store")
        prompts = read_prompts(run / "data" / "prompts.jsonl")
        self.texts = {one.prompt_id: one.text for one in (*prompts.train, *prompts.validation)}
        self.selected = read_selection(run)["train"]
        self.offsets = offsets_nats(json.loads((run / "curate" / "decision.json").read_bytes()))
        gold = json.loads((run / "data" / "gold.json").read_bytes())
        self.held = [(one.text, self.config.task.labels.index(gold[one.prompt_id])) for one in prompts.held_out]
        self.steps = plan_steps(len(self.selected), self.config.train).steps

    def source(self, arm: str, seed: int, tokenizer: Any) -> LabelSource:
        kind, _, share = arm.rpartition("_")
        kind, share = (kind, share) if share in SHARES else (arm, "")
        rows = list(self.selected)
        random.Random(seed).shuffle(rows)
        rows = rows[: round(len(rows) * SHARES.get(share, 1.0))]
        task, texts, store = self.config.task, self.texts, self.store
        if kind in ("text", "alm"):
            said = [read_label(task, store.get(row["address"])) for row in rows]
            rows = [row for row, one in zip(rows, said, strict=True) if one.literal >= 0]
            data = build(task, rows, texts, store, tokenizer, "text", [0.0] * len(task.labels))
            if kind == "text":
                return SameSteps(data, self.config, seed, self.steps)
            matching = Matching(data, self.config, seed, self.steps)
            matching.logp = tuple(one.logp_L[one.literal] for one in said if one.literal >= 0)
            return matching
        data = build(task, rows, texts, store, tokenizer, "top-logprobs", self.offsets)
        if kind == "labels":
            data = Data(tuple(one._replace(soft=False) for one in data.examples), None, data.target_NL, data.label_ids)
        return SameSteps(data, self.config, seed, self.steps)

    def train(self, arm: str, seed: int) -> dict[str, Any]:
        """Whether each held-out sentence was answered right; not again where that is known."""
        folder = self.work / f"{arm}-{seed}"
        facts = folder / "facts.json"
        if facts.exists():
            return json.loads(facts.read_bytes())
        folder.mkdir(parents=True, exist_ok=True)
        model, tokenizer = load_student(self.run / BEFORE)
        source = self.source(arm, seed, tokenizer)
        economical(model)
        student, began = Causal(model), time.process_time()
        torch.manual_seed(seed)
        table = self.config.train.model_copy(update={"checkpoint_every_s": 1e9, "segment_steps": 10**6})
        looks = itertools.count()  # each better than the one before: the last weights stay, averaged as in any training
        settings = Loop(table, seed, folder, Quiet(), Stop(), lambda _: None)
        loop(student, source, lambda *_: Seen(-next(looks), {}, {}), settings)
        for left in folder.glob("**/*.safetensors"):
            left.unlink()
        found = {"cpu_s": time.process_time() - began, "questions": len(source.data.examples)}
        found |= self.examined(student, tokenizer, source.data)
        write_whole(facts, json.dumps(found).encode())
        return found

    def examined(self, student: Causal, tokenizer: Any, data: Data) -> dict[str, list[float]]:
        task, student.model.training = self.config.task, False
        asked = [
            tokenizer.apply_chat_template(
                [one.to_json() for one in student_messages(task, text)], add_generation_prompt=True, return_dict=False
            )
            for text, _ in self.held
        ]
        held = Data(
            tuple(data.examples[0]._replace(prompt_ids=tuple(ids)) for ids in asked),
            None,
            torch.zeros(0),
            data.label_ids,
        )
        odds, own = (self._odds(student, one) for one in (held, data))
        threshold = statistics.median(own)
        right = [label for _, label in self.held]
        return {
            "accuracy": [float((one > 0) == label) for one, label in zip(odds, right, strict=True)],
            "balanced": [float((one > threshold) == label) for one, label in zip(odds, right, strict=True)],
            "share_of_the_second_label": [float(one > 0) for one in odds],
        }

    @torch.no_grad()
    def _odds(self, student: Causal, data: Data) -> list[float]:
        """Log-odds of the second label against the first, nats."""
        judge, student_logp = LabelJudge(data), list[float]()
        for start in range(0, len(data.examples), 64):
            rows = range(start, min(start + 64, len(data.examples)))
            logq_BL = judge.label_logp(student, rows, torch.autocast("cpu", enabled=False))
            student_logp += (logq_BL[:, 1] - logq_BL[:, 0]).tolist()
        return student_logp


def asked(run: Path) -> None:
    """The recipe's run, where it is not there: teacher, prompts, selection and the student before training."""
    if not ((run / "curate" / "decision.json").exists() and (run / BEFORE).exists()):
        command = ["run", str(RECIPE), "--size", "standard", "--out", str(run), "--set", "controls.plain=false"]
        subprocess.run([sys.executable, "-m", "tutelage", *command], check=True)


def means(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Over sentences and seeds."""
    names = ("accuracy", "balanced", "share_of_the_second_label")
    by_seed = {name: [round(statistics.mean(one[name]), 4) for one in found] for name in names}
    together = {name: round(statistics.mean(values), 4) for name, values in by_seed.items()}
    return {**together, "by_seed": by_seed, "questions": found[0]["questions"],
            "cpu_s": round(statistics.mean(one["cpu_s"] for one in found), 1)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--run", type=Path, default=Path("runs/reviews-gemma"))
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-reviews-api"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    asked(chosen.run)
    recipe = Recipe(chosen.run, chosen.work)
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in chosen.arms}
    for seed in range(1, chosen.seeds + 1):
        for arm in chosen.arms:
            found[arm].append(one := recipe.train(arm, seed))
            said = f"{statistics.mean(one['accuracy']):.3f}, balanced {statistics.mean(one['balanced']):.3f}"
            print(f"{arm}, seed {seed}: {said} ({one['cpu_s']:.0f} CPU-s)", file=sys.stderr, flush=True)
    result = {
        "held_out": len(recipe.held),
        "steps": recipe.steps,
        "arms": {arm: means(some) for arm, some in found.items()},
        "minus": {
            f"{one} - {other}": {
                name: difference(*([each[name] for each in found[arm]] for arm in (one, other)))
                for name in ("accuracy", "balanced")
            }
            for one, other in COMPARED
            if one in found and other in found
        },
        "hardware": describe(),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("tutelage", "torch", "transformers")},
        "date": datetime.now(UTC).date().isoformat(),
    }
    chosen.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
