"""Supervised against on-policy distillation of a chat model: `python -m benchmarks.chat [--data FOLDER] [--work FOLDER]`.

Teacher: SmolLM2-135M-Instruct. Student: its first 10 of 30 layers. Questions: with `--data` the self-instruct seed tasks to train
on, completed by questions that the teacher writes (Magpie), and the user-oriented instructions held out; without it the
teacher writes all of them. The teacher's answers are drawn at temperature 1.

One warm start (forward KL to the live teacher on its answers), and from it, for each seed:
- `on_policy`: reverse KL over the whole vocabulary on the student's own text;
- `text`: supervised on the teacher's words, as many loss tokens; `text_time`: the same for as many CPU-seconds;
- `forward_kl`: the teacher's distribution on its words, as many loss tokens; `forward_kl_time` for as many CPU-seconds;
- `cached`: the same distribution captured once, by threshold sampling at 1/50, as many loss tokens;
- `gkd`: Jensen-Shannon at β = 0.5, half of the steps on the student's own text, as many steps as `on_policy`;
- `distillm_2`: DistiLLM-2's contrastive loss on pairs, as many loss tokens of both sides together.
Figures are means over held-out questions; differences to `on_policy` are paired by question, seeds averaged, with the
BCa bootstrap's 95 % interval. What was done lies in `--work` and is not done again. The last line printed is the result.
"""

import argparse
import json
import math
import random
import shutil
import statistics
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from benchmarks.chat.measure import measure
from benchmarks.chat.prompts import HELD_OUT, TRAIN, answered, from_file, magpie, prompt_ids
from benchmarks.paired import difference
from tutelage.canon import digest_bytes, digest_of
from tutelage.config import TrainTable
from tutelage.hardware import describe
from tutelage.jsonl import write_whole
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.models.kernels import economical
from tutelage.models.quiet import without_bars
from tutelage.progress import Quiet, Stop
from tutelage.records import Role
from tutelage.resources import SMOLLM2, fetch
from tutelage.store.signal_kinds import Threshold
from tutelage.store.signals import Identity, SignalCache, SignalWriter
from tutelage.train.capture import capture
from tutelage.train.contrast import ContrastSource, ContrastTeacher
from tutelage.train.examples import Example
from tutelage.train.loop import Loop, Seen, Source, advance
from tutelage.train.offpolicy import DataSource
from tutelage.train.onpolicy import RolloutSource
from tutelage.train.rollout_local import LocalRoller
from tutelage.train.students import StudentSpec
from tutelage.train.students import make as make_student
from tutelage.train.teaching import CachedTeacher, LiveTeacher, Words

RESULT = Path(__file__).parents[1] / "results" / "chat.json"
LAYERS, BATCH = 10, 8
ARMS = ("on_policy", "text", "text_time", "forward_kl", "forward_kl_time", "cached", "gkd", "distillm_2")


class Recipe:
    """Teacher, student, questions and answers."""

    def __init__(self, chosen: argparse.Namespace, work: Path) -> None:
        self.chosen, self.work = chosen, work
        work.mkdir(parents=True, exist_ok=True)
        for name, spec in (("teacher", StudentSpec()), ("start", StudentSpec("pruned", layers=LAYERS))):
            if not (work / name / "config.json").exists():
                make_student(spec, fetch(SMOLLM2), work / name)
        self.teacher = self.load(work / "teacher")
        self.teacher.model.eval().requires_grad_(False)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(work / "teacher")
        roller = LocalRoller(self.teacher.model)
        train, held = self._questions(roller)
        new = chosen.new_tokens
        self.answers = answered(roller, train, new, 1.0, 1, work / "train.jsonl")
        self.drawn = answered(roller, held, new, 1.0, 2, work / "held-out.jsonl")
        self.likeliest = answered(roller, held, new, 0.0, 3, work / "held-out-greedy.jsonl")

    def _questions(self, roller: LocalRoller) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """Questions to train on and those held out, as tokens."""
        chosen, path = self.chosen, self.work / "questions.json"
        if not path.exists():
            files = [chosen.data / name for name in (TRAIN, HELD_OUT)] if chosen.data else []
            train, held = [list(from_file(path)) for path in files] or ([], [])
            wanted = max(0, chosen.questions - len(train)) + max(0, chosen.held - len(held))
            own = [text for text in magpie(roller, self.tokenizer, wanted, 1) if text not in {*train, *held}]
            missing = max(0, chosen.held - len(held))
            write_whole(path, json.dumps({"held": held + own[:missing], "train": train + own[missing:]}).encode())
        texts = json.loads(path.read_bytes())
        train_ids = prompt_ids(self.tokenizer, texts["train"], chosen.questions)
        return train_ids, prompt_ids(self.tokenizer, texts["held"], chosen.held)

    @property
    def examples(self) -> list[Example]:
        """The teacher's answers as the student's own are taken: what was cut at the limit is learnt as far as it goes, and no
        end is made up for it."""
        return [one.example(str(at)) for at, one in enumerate(self.answers)]

    @property
    def ended(self) -> float:
        """Share of the teacher's answers that end within the limit."""
        return statistics.mean(one.finished for one in self.answers)

    def load(self, folder: Path) -> Causal:
        model = Causal.load(folder)
        economical(model.model)
        return model

    def table(self, steps: int, rate: float) -> TrainTable:
        return TrainTable(
            epochs=steps / math.ceil(len(self.answers) / BATCH), batch_size=BATCH, learning_rate=rate, train_embeddings=True,
            average_last=0.0, segment_steps=10**6, checkpoint_every_s=1e9,
        )  # fmt: skip

    def source(self, arm: str, student: Causal, steps: int, seed: int, rate: float) -> Source:
        own: dict[str, Any] = {"max_new_tokens": self.chosen.new_tokens}
        written_by, table = LocalRoller(student.model), self.table(steps, rate)
        if arm == "distillm_2":
            # An epoch's answers are written before it: one of as many prompts as there are steps for.
            some = random.Random(seed).sample(self.examples, min(len(self.examples), steps * BATCH))
            table = table.model_copy(update={"epochs": steps / math.ceil(len(some) / BATCH)})
            teaching = ContrastTeacher(self.teacher, make("distillm-2"))
            folder = self.work / f"{arm}-{seed}"
            return ContrastSource(some, student, written_by, teaching, table, seed, folder, **own)
        if arm in ("on_policy", "gkd"):
            live = LiveTeacher(self.teacher, make("reverse-kl") if arm == "on_policy" else make("jsd", beta=0.5))
            own["student_share"] = 1.0 if arm == "on_policy" else 0.5
            return RolloutSource(self.examples, student, written_by, live, table, seed, **own)
        if arm.startswith("text"):
            return DataSource(self.examples, Words(make("cross-entropy")), table, seed)
        if arm == "cached":
            return DataSource(self.examples, CachedTeacher(self.cache(), make("sparse-forward-kl")), table, seed)
        return DataSource(self.examples, LiveTeacher(self.teacher, make("forward-kl")), table, seed)

    def cache(self) -> SignalCache:
        """The teacher's distribution on its own answers, captured once for all seeds."""
        columns, folder = len(self.teacher.head().weight_VD), self.work / "signals"
        one = digest_bytes(b"SmolLM2")  # tokenizer and template are both models'
        identity = Identity(
            kind=Threshold(1 / 50), teacher=one, tokenizer=one, student_tokenizer=one, template=one,
            dataset=digest_of([example.key for example in self.examples]), sampling="temperature 1", logprobs="raw",
            vocabulary=columns,
        )  # fmt: skip
        with SignalWriter(folder, identity) as writer:
            capture(self.examples, self.teacher, columns, writer, Quiet())
        return SignalCache(folder, identity)

    def train(self, arm: str, start: Path, steps: int, seed: int, rate: float) -> dict[str, Any]:
        """A student of this arm in a folder of its own, and what it took; not again where it is there."""
        folder = self.work / f"{arm}-{seed}"
        facts = folder / "facts.json"
        if facts.exists():
            return json.loads(facts.read_bytes())
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        torch.manual_seed(seed)
        student, journal = self.load(start), list[dict[str, Any]]()
        source = self.source(arm, student, steps, seed, rate)
        table = self.table(steps, rate)
        began, waited = time.process_time(), time.monotonic()
        advance(
            student, source, lambda *_: Seen(0.0, {}, {}), Loop(table, seed, folder, Quiet(), Stop(), journal.append)
        )
        taken = {"cpu_s": time.process_time() - began, "wall_s": time.monotonic() - waited, "steps": len(journal)}
        taken["loss_tokens"] = sum(entry.get(str(role), 0) for entry in journal for role in Role)
        with without_bars():
            student.model.save_pretrained(folder / "student")
        for left in (*folder.glob("best-*"), folder / "segments", folder / "last"):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        write_whole(folder / "journal.jsonl", b"".join(json.dumps(entry).encode() + b"\n" for entry in journal))
        found = taken | {"measured": self.measure(student)}
        write_whole(facts, json.dumps(found).encode())
        _tell(f"{arm}, seed {seed}: {_line(found)}")
        return found

    def measure(self, student: Causal) -> dict[str, list[float]]:
        new = self.chosen.new_tokens
        return measure(self.teacher, student, self.tokenizer, self.drawn, self.likeliest, new)


def arms_of(recipe: Recipe, warm: Path, seed: int) -> dict[str, dict[str, Any]]:
    """The arms of one seed; the on-policy one says how many tokens and seconds the others may take."""
    chosen, found = recipe.chosen, dict[str, dict[str, Any]]()
    found["on_policy"] = recipe.train("on_policy", warm, chosen.steps, seed, chosen.rate)
    tokens, seconds = found["on_policy"]["loss_tokens"], found["on_policy"]["cpu_s"]
    a_step = BATCH * statistics.mean(len(one.targets) for one in recipe.examples)
    for arm in ("text", "forward_kl"):
        if not {arm, f"{arm}_time"} & {*chosen.arms}:
            continue
        found[arm] = recipe.train(arm, warm, max(1, round(tokens / a_step)), seed, chosen.rate)
        if f"{arm}_time" in chosen.arms:
            steps = round(seconds / (found[arm]["cpu_s"] / found[arm]["steps"]))
            found[f"{arm}_time"] = recipe.train(f"{arm}_time", warm, max(1, steps), seed, chosen.rate)
    for arm, steps in (("cached", tokens / a_step), ("gkd", chosen.steps), ("distillm_2", tokens / a_step / 2)):
        if arm in chosen.arms:
            found[arm] = recipe.train(arm, warm, max(1, round(steps)), seed, chosen.rate)
    return {arm: one for arm, one in found.items() if arm == "on_policy" or arm in chosen.arms}


def means(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Over questions and seeds; by seed where there are several."""
    names = found[0]["measured"]
    by_seed = {name: [statistics.mean(one["measured"][name]) for one in found] for name in names}
    return {
        **{name: round(statistics.mean(values), 4) for name, values in by_seed.items()},
        "by_seed": {name: [round(value, 4) for value in values] for name, values in by_seed.items()},
        **{name: round(statistics.mean(one[name] for one in found), 1) for name in ("loss_tokens", "cpu_s", "steps")},
    }


def _line(found: dict[str, Any]) -> str:
    figures = ", ".join(f"{name} {statistics.mean(values):.3f}" for name, values in found["measured"].items())
    return f"{found['steps']} steps, {found['loss_tokens']:,} tokens, {found['cpu_s']:.0f} CPU-s; {figures}"


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, help=f"a folder with {TRAIN} and {HELD_OUT}")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-chat"))
    parser.add_argument("--questions", type=int, default=480)
    parser.add_argument("--held", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--warm-steps", type=int, default=240)
    parser.add_argument("--warm-rate", type=float, default=6e-4)
    parser.add_argument("--steps", type=int, default=40, help="on-policy")
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="beside on_policy")
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    recipe = Recipe(chosen, chosen.work)
    _tell(f"{len(recipe.answers)} questions, {recipe.ended:.0%} of the answers end, {len(recipe.drawn)} held out")
    warm = recipe.train("warm_forward_kl", chosen.work / "start", chosen.warm_steps, 0, chosen.warm_rate)
    _tell(f"warm start: {_line(warm)}")
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS if arm == "on_policy" or arm in chosen.arms}
    for seed in range(1, chosen.seeds + 1):
        for arm, one in arms_of(recipe, chosen.work / "warm_forward_kl-0" / "student", seed).items():
            found[arm].append(one)
    compared = ("forward_kl", "reverse_kl", "rouge_l")
    result = {
        "data": chosen.data is not None,
        "questions": len(recipe.answers),
        "answers_that_end": round(recipe.ended, 3),
        "held_out": len(recipe.drawn),
        "settings": {
            name: getattr(chosen, name) for name in ("new_tokens", "warm_steps", "warm_rate", "steps", "rate")
        },
        "teacher": {"stopped": statistics.mean(one.finished for one in recipe.drawn)},
        "warm": means([warm]),
        "arms": {arm: means(some) for arm, some in found.items()},
        "on_policy_minus": {
            arm: {
                name: difference(*([one["measured"][name] for one in found[each]] for each in ("on_policy", arm)))
                for name in compared
            }
            for arm in found
            if arm != "on_policy"
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
