"""A run file for one's own data: columns and labels are looked up in the file, sizes follow from its rows."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Literal

from tutelage.collect.sources import Row, read_rows
from tutelage.config import DataTable
from tutelage.errors import ConfigError, DataError
from tutelage.jsonl import write_whole
from tutelage.run_file import load_config

_TEXT_NAMES = ("text", "sentence", "review", "message", "comment", "body", "content", "question", "input", "title")
_GOLD_NAMES = ("label", "gold", "category", "class", "sentiment", "target", "intent", "topic", "rating", "answer")

_TEMPLATE = """\
# A distillation run, written by `tutelage init`. Every key is described in docs/run-file.md.

[run]
name = {name}
seed = 1
purpose = "internal" # internal | distributed | classifier-only | competing-product | research | same-platform

[task]
kind = "labels"
labels = {labels}
question = "{{text}}" # what teacher and student are asked; {{text}} is the row's text
# The teacher's instruction. It is baked into the student's weights and never part of the student's prompt.
instruction = {instruction}
# A few examples help the teacher; write them yourself, do not take them from the data.
# examples = [ {{ text = "...", label = {first_label} }} ]
examples = []
# "balanced" gives each label its declared share (default: equal) by offsets fixed on training items; "argmax" does not.
decision = "argmax"

[data]
path = {path}
format = {format}
text = {text}
gold = {gold} # human labels; read for held-out rows only
licence = "own" # under which you hold the data: "own", or an SPDX id
train = {train}
held_out = {held_out}
validation = {validation}
bad_rows = {bad_rows} # "stop" or "skip"

[teacher]
{teacher}
concurrency = 4

[budget]
max_cost_usd = 3.0 # the run stops before it would pass this
max_tokens = 20_000_000

[student]
base = "smollm2-135m-instruct"
layers = 6 # of 30

[train]
epochs = 4

[claim]
metric = "accuracy"
margin = 0.05 # the student may be worse than the teacher by less than this
"""


def write_run_file(
    data: Path, teacher: str, text: str | None, gold: str | None, model: str, api_key_env: str | None, out: Path,
    bad_rows: Literal["stop", "skip"] = "stop", *, force: bool,
) -> str:  # fmt: skip
    """Writes a valid run file and returns one line about it. Raises `ConfigError` or `DataError`; an existing file is
    kept unless `force`."""
    if out.exists() and not force:
        raise ConfigError(f"{out} exists", fix="choose another --out, or add --force")
    form = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}.get(data.suffix.lower())
    if form is None:
        raise DataError(f"{data}: cannot tell the format from {data.suffix!r}", fix="name it .csv, .tsv or .jsonl")
    columns = _columns(data, form)
    text = text or _guess(columns, _TEXT_NAMES, "text", data)
    gold = gold or _guess(columns, _GOLD_NAMES, "gold", data)
    settings = {"path": str(data), "format": form, "text": text, "gold": gold, "licence": "own", "bad_rows": bad_rows}
    table = DataTable.model_validate({**settings, "train": 2, "held_out": 1, "validation": 1})
    rows = read_rows(data, table).good
    labels = _labels(rows, gold)
    train, held_out, validation = _sizes(rows)
    content = _TEMPLATE.format(
        name=_toml("".join(c if c.isalnum() or c in "._-" else "-" for c in data.stem).strip("-._")[:64] or "run"),
        labels=_toml(labels),
        first_label=_toml(labels[0]),
        instruction=_toml(f"Classify the text. Answer with one word: {', '.join(labels[:-1])} or {labels[-1]}."),
        path=_toml(str(data.resolve())),
        format=_toml(form),
        text=_toml(text),
        gold=_toml(gold),
        bad_rows=_toml(bad_rows),
        train=train,
        held_out=held_out,
        validation=validation,
        teacher=_teacher(teacher, model, api_key_env),
    )
    write_whole(out, content.encode())
    load_config(out)  # what we write must load
    return f"{len(rows)} rows, labels {', '.join(labels)}; {train} to learn from, {held_out} held out"


def _teacher(teacher: str, model: str, api_key_env: str | None) -> str:
    if teacher == "embedded":
        return 'resource = "smollm2-135m-instruct" # served here; or: url = "https://host/v1", model = "name"'
    if not teacher.startswith(("http://", "https://")):
        raise ConfigError(
            f"--teacher {teacher!r} is no URL", fix='give "embedded" or a URL such as http://host:8000/v1'
        )
    lines = [f"url = {_toml(teacher)}", f"model = {_toml(model)}"]
    lines.append('signal = "top-logprobs" # "text" for an endpoint that gives no log-probabilities')
    lines.append('# licence = "apache-2.0" # of the model, where its weights are public; `tutelage terms list`')
    lines.append('# provider = "..." # id in `tutelage terms list`, for a provider\'s API; default: the host name')
    if api_key_env:
        lines.append(f"api_key_env = {_toml(api_key_env)}")
    return "\n".join(lines)


def _columns(data: Path, form: str) -> list[str]:
    try:
        with data.open(encoding="utf-8-sig", newline="") as file:
            if form == "jsonl":
                first = next((line for line in file if line.strip()), "")
                found = json.loads(first)
                if not isinstance(found, dict):
                    raise DataError(f"{data} line 1 is not an object", fix='write one {"text": …, "label": …} a line')
                return list(found)
            return next(csv.reader(file, delimiter="\t" if form == "tsv" else ","), [])
    except FileNotFoundError:
        raise DataError(f"no data file {data}", fix="check --data") from None
    except (ValueError, csv.Error) as error:
        raise DataError(
            f"{data}: cannot read its first line: {error}", fix="check that it is UTF-8 and well formed"
        ) from None


def _guess(columns: list[str], names: tuple[str, ...], what: str, data: Path) -> str:
    lowered = {column.casefold(): column for column in columns}
    found = next((lowered[name] for name in names if name in lowered), None)
    if found is None:
        raise DataError(f"{data}: which of {columns[:12]} is the {what} column?", fix=f"say --{what} NAME")
    return found


def _labels(rows: tuple[Row, ...], gold: str) -> list[str]:
    counts = Counter(row.gold.strip() for row in rows if row.gold.strip())
    labels = sorted(counts, key=lambda label: (-counts[label], label))
    if not 2 <= len(labels) <= 20:
        shown = ", ".join(labels[:8])
        raise DataError(f"column {gold!r} has {len(labels)} labels ({shown}), not 2 to 20", fix="say --gold NAME")
    return labels


def _sizes(rows: tuple[Row, ...]) -> tuple[int, int, int]:
    labelled = sum(1 for row in rows if row.gold.strip())
    held_out = min(2000, max(1, labelled // 4))
    train = len(rows) - held_out - max(2, len(rows) // 50)  # near-duplicate groups are taken whole
    if train < 10:
        raise DataError(f"{len(rows)} usable rows are too few", fix="bring a hundred rows at the least")
    return train, held_out, max(1, min(500, train // 10))


def _toml(value: str | list[str]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
