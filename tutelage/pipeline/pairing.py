"""Preference training: answers that the student writes before it, kept in the record, and the pairs that are made of them."""

import contextlib
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from tutelage.errors import DataError, Interrupted, StorageError
from tutelage.jsonl import read_lines, write_lines, writing
from tutelage.losses.catalogue import make
from tutelage.meter import own_work
from tutelage.pipeline.rendering import Rows, rendered
from tutelage.pipeline.run import Done, Facts, Run
from tutelage.pipeline.talks import BEFORE, sides_in
from tutelage.pipeline.teaching_check import check_pupil
from tutelage.pipeline.teaching_plan import Lesson, Method, Reader, ends_of, load_pupil, roller_of, table_of
from tutelage.train.examples import Example
from tutelage.train.health import Limits
from tutelage.train.judging import HeldOutJudge
from tutelage.train.loop import precision
from tutelage.train.onpolicy import written
from tutelage.train.pairs import Pair, PairJudge, PairSource, Snapshot, snapshot
from tutelage.train.rollout import Roller, Rollout
from tutelage.train.rollout_local import LocalRoller
from tutelage.train.teaching import Words
from tutelage.training_config import TrainingConfig

REJECTED = "rejected"  # folder of the answers that the student wrote
FIRST = Path(REJECTED) / "answers.jsonl"
BLOCK = 64  # answers that are written before they are kept
ALIKE = "the student's own answer is the same"


class Paired(NamedTuple):
    """What the loop is given, and the conversations that have pairs."""

    lesson: Lesson
    rows: Rows


def rejected(config: TrainingConfig, method: Method, run: Run, data: Done, made: Done) -> Done | None:
    """The rejected stage: an answer of the student, as it is before training, to the prompt of every conversation of both sides.
    None for a method without pairs. Raises `DataError` when no pair can be told apart."""
    if method.signal != "pairs":
        return None

    def work(scratch: Path) -> Facts:
        pupil = load_pupil(config, run.folder / BEFORE)
        rows = rendered(config, run, pupil, sides_in(run.folder))
        every = (*rows.train, *rows.validation)
        seen = check_pupil(config, pupil, rows.train, run.progress.say, asked=every)
        roller = roller_of(config, pupil)
        run.progress.begin("the student's own answers", len(every), 0)
        with own_work(scratch / "meter.json") as spent, contextlib.closing(roller), run.stop.heeded():
            found = _written(config, every, pupil, roller, scratch, run)
        run.progress.end()
        facts = _look(config, _pairs(rows.train, found), _pairs(rows.validation, found), found, run)
        write_lines(run.folder / FIRST, found)
        return seen | facts | spent()

    table = config.method
    names = ("max_new_tokens", "temperature", "engine", "writer")
    settings = {name: value for name, value in table.model_dump(mode="json").items() if name in names}
    settings |= {"seed": config.run.seed, "max_tokens": config.data.max_tokens}
    inputs = {"data": data.outputs_digest, "student": made.outputs_digest}
    return run.stage("rejected", 1, settings, inputs, (REJECTED,), work)


def paired(config: TrainingConfig, method: Method, run: Run, pupil: Reader, rows: Rows, scratch: Path) -> Paired:
    """Source and judge on pairs of `rows`; the student is as it was before training. What the frozen student makes of them is
    computed once and kept in `scratch`."""
    found = list(read_lines(run.folder / FIRST))
    train, held = ([pair for pair in _pairs(some, found) if not pair.alike] for some in (rows.train, rows.validation))
    autocast = precision(config.train.precision, pupil.model.device.type)
    first = _kept(
        scratch / "reference.safetensors", [*train, *held], lambda pairs: snapshot(pupil.model, pairs, autocast)
    )
    parts = (
        Snapshot(first.pairs[some], first.reference[some]) for some in (slice(len(train)), slice(len(train), None))
    )
    mine, judged = parts
    again, close = _renewed(config, run, pupil, train, scratch, autocast)
    source = PairSource(
        mine, method.loss, table_of(config, len(train)), config.run.seed, text_weight=config.method.text_weight,
        device=pupil.model.device, again=again,
    )  # fmt: skip
    text = HeldOutJudge(
        [pair.chosen for pair in held], Words(make("cross-entropy")), roller=LocalRoller(pupil.model.model, ends_of(pupil)),
        answers=config.train.answers, max_new_tokens=config.method.max_new_tokens,
    )  # fmt: skip
    dropped = dict(rows.dropped)
    if same := len(rows.train) + len(rows.validation) - len(train) - len(held):
        dropped[ALIKE] = same
    told = Rows(tuple(pair.chosen for pair in train), tuple(pair.chosen for pair in held), dropped)
    return Paired(Lesson(source, PairJudge(judged, method.loss, text, config.method.text_weight), close), told)


def keep_renewed(scratch: Path, out: Path) -> None:
    """The answers that the student wrote as it went, from the scratch folder into the record's."""
    shutil.rmtree(out, ignore_errors=True)
    for file in sorted((scratch / REJECTED).glob("*.jsonl")):
        write_lines(out / file.name, read_lines(file))


def _written(
    config: TrainingConfig, examples: Sequence[Example], pupil: Reader, roller: Roller, scratch: Path, run: Run
) -> list[dict[str, Any]]:
    """A row an answer, in blocks that are kept as they are made."""
    roller.refresh(pupil.model.model)
    found: list[dict[str, Any]] = []
    for number, at in enumerate(range(0, len(examples), BLOCK)):
        file = scratch / f"answers-{number:06}.jsonl"
        if not file.exists():
            if run.stop:
                raise Interrupted
            write_lines(file, _block(config, examples[at : at + BLOCK], pupil, roller, 0))
        found += read_lines(file)
        run.progress.advance(len(found))
    return found


def _block(
    config: TrainingConfig, examples: Sequence[Example], pupil: Reader, roller: Roller, epoch: int
) -> list[dict[str, Any]]:
    """One answer a conversation, by a seed that the run, the epoch and the conversation decide."""
    table, seed = config.method, config.run.seed
    seeds = [random.Random(f"{seed}:{epoch}:{example.source}").randrange(1 << 31) for example in examples]
    prompts = [example.ids[: example.targets[0]] for example in examples]
    rollouts = roller.write(prompts, table.max_new_tokens, table.temperature, seeds)
    return [
        {
            "id": example.source,
            "ids": list(rollout.ids),
            "text": pupil.tokenizer.decode(rollout.ids, skip_special_tokens=True),
            "finished": rollout.finished,
            "seed": own,
        }
        for example, rollout, own in zip(examples, rollouts, seeds, strict=True)
    ]


def _pairs(examples: Sequence[Example], found: Sequence[dict[str, Any]]) -> list[Pair]:
    answers = {row["id"]: row for row in found}
    pairs = []
    for example in examples:
        row, prompt = answers[example.source], example.ids[: example.targets[0]]
        own = Rollout(prompt, tuple(row["ids"]), (), row["finished"])
        pairs.append(Pair(example, written(own, example.source)))
    return pairs


def _look(
    config: TrainingConfig, train: Sequence[Pair], held: Sequence[Pair], found: Sequence[dict[str, Any]], run: Run
) -> Facts:
    """What the answers are like, told and as facts. An answer that was cut or is empty is one that the student gives, and stays;
    one that says what the preferred one says leaves nothing to learn."""
    every = [*train, *held]
    cut, empty = sum(not row["finished"] for row in found), sum(not row["text"].strip() for row in found)
    same = sum(pair.alike for pair in every)
    tokens = sum(pair.sizes[1] for pair in every)
    preferred = sum(pair.sizes[0] for pair in every)
    run.progress.say(
        f"rejected: {len(every):,} answers of the student's own, {tokens / len(every):.0f} tokens each on average, the preferred "
        f"ones {preferred / len(every):.0f}; {cut:,} were cut at {config.method.max_new_tokens} tokens, {empty:,} are empty"
        + (f"; {same:,} left out: {ALIKE}" if same else "")
    )
    if cut > Limits().cut_share * len(every):
        run.progress.say(
            f"warning: {cut / len(every):.0%} of the student's own answers were cut before they ended: raise "
            "method.max_new_tokens, or train it on the text first (cross-entropy)"
        )
    for side, pairs, more in (
        ("to train on", train, ""),
        ("to judge by", held, ", or set aside more (data.validation)"),
    ):
        if all(pair.alike for pair in pairs):
            raise DataError(
                f"the student's own answer to each of the {len(pairs)} conversations {side} is the preferred one, so there is "
                "nothing to tell apart",
                fix=f"bring conversations that the student does not answer so yet{more}",
            )
    return {"answers": len(every), "cut": cut, "empty": empty, "alike": same, "tokens": tokens}


def _renewed(
    config: TrainingConfig, run: Run, pupil: Reader, pairs: Sequence[Pair], scratch: Path, autocast: torch.autocast
) -> tuple[Callable[[int, bool], Snapshot] | None, Callable[[], None]]:
    """The snapshots of later epochs (None where the first serves throughout), and what ends the engine that writes them."""
    if config.method.refresh == "never":
        return None, lambda: None
    roller, folder = roller_of(config, pupil), scratch / REJECTED

    def again(epoch: int, begins: bool) -> Snapshot:
        answers, reference = folder / f"epoch-{epoch + 1}.jsonl", folder / f"epoch-{epoch + 1}.safetensors"
        if begins:
            roller.refresh(pupil.model.model)
            rows: list[dict[str, Any]] = []
            for at in range(0, len(pairs), BLOCK):
                some = [pair.chosen for pair in pairs[at : at + BLOCK]]
                rows += _block(config, some, pupil, roller, epoch)
            write_lines(answers, rows)
            reference.unlink(missing_ok=True)
        if not answers.exists():
            raise StorageError(
                f"{answers} is missing", fix=f"delete {scratch}; training starts again from its beginning"
            )
        new = _pairs([pair.chosen for pair in pairs], list(read_lines(answers)))
        # Where the student now gives the preferred answer, its earlier one is still what it should not say.
        told = [old if pair.alike else pair for old, pair in zip(pairs, new, strict=True)]
        return _kept(reference, told, lambda some: snapshot(pupil.model, some, autocast))

    return again, roller.close


def _kept(path: Path, pairs: Sequence[Pair], make: Callable[[Sequence[Pair]], Snapshot]) -> Snapshot:
    """The snapshot that the file holds, or that is made now and kept there."""
    if not path.exists():
        made = make(pairs)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(path.name + ".new")
        with writing(path):
            save_file({"logq_N": torch.cat(made.reference)}, scratch)
            scratch.replace(path)
    sizes = [sum(pair.sizes) for pair in pairs]
    return Snapshot(tuple(pairs), load_file(path)["logq_N"].split(sizes))
