"""Evaluation logs of Inspect as rows of answers to import."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tutelage.collect.rows import Row
from tutelage.errors import DataError
from tutelage.wire.inspect_logs import FIX, Sampled, read_log, sample_of
from tutelage.wire.values import WireError

MAX_BYTES = 1 << 30  # of one log: it is one JSON value, and read whole
_FINISH = {"max_tokens": "length"}


def inspect_rows(path: Path) -> Iterator[Row]:
    """A row a sample, numbered from 1: all turns before the answer, the answer, and the log's model. A sample's epoch is its
    draw. A sample that cannot be read, or that ended in an error, is a bad row. Raises `DataError` when the file is no log."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES >> 20} MiB", fix="split the evaluation")
        log = read_log(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"there is no file {path}", fix=f"check its name; it was looked for as {path.absolute()}"
        ) from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}", fix="give a file that can be read") from None
    except WireError as error:
        raise DataError(f"{path}: {error.message}", fix=FIX) from None
    for number, sample in enumerate(log.samples, 1):
        try:
            found = sample_of(sample)
        except WireError as error:
            yield Row(number, {}, b"", error.message)
            continue
        problem = f"the sample ended in an error: {found.error}" if found.error else ""
        yield Row(number, {} if problem else _fields(found, log.model), b"", problem)


def _fields(sample: Sampled, model: str) -> dict[str, Any]:
    """In the columns of an export."""
    said: dict[str, Any] = {"role": "assistant", "content": sample.answer}
    said |= {"reasoning": sample.reasoning} if sample.reasoning else {}
    said |= {"tool_calls": list(sample.tool_calls)} if sample.tool_calls else {}
    finish = _FINISH.get(sample.stop_reason, sample.stop_reason)
    told = {"model": model, "draw": sample.epoch - 1, "finish_reason": finish}
    return {"messages": [turn.to_json() for turn in sample.asked], "completion": [said], "metadata": told}
