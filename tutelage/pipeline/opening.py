"""The private values behind an example's record, out of the run's own store."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.canon import canonical
from tutelage.errors import ConfigError
from tutelage.ledger.disclose import OPENABLE
from tutelage.pipeline.learning import read_selection
from tutelage.store.store import Store


def position_of(run: Path, prompt: str | None, position: int | None) -> int:
    """Where an example stands in the committed selection. Raises `ConfigError` when it does not, or none is named."""
    rows = read_selection(run)["train"]
    if (prompt is None) == (position is None):
        raise ConfigError("name one example", fix="give --prompt ID or --position N")
    if prompt is not None:
        found = next((at for at, row in enumerate(rows) if row["prompt"] == prompt), None)
        if found is None:
            raise ConfigError(f"no example of prompt {prompt!r} was selected", fix="ids are in curate/selection.json")
        return found
    assert position is not None
    if not 0 <= position < len(rows):
        raise ConfigError(f"the selection has no example {position}", fix=f"0 to {len(rows) - 1}")
    return position


def blinded_values(run: Path, position: int, names: Sequence[str]) -> dict[str, str]:
    """The texts behind blinded fields, by name. Raises `ConfigError` for a field that is not blinded."""
    if strangers := [name for name in names if name not in OPENABLE]:
        raise ConfigError(f"{strangers[0]!r} is no blinded field", fix=f"one of {', '.join(OPENABLE)}")
    row = read_selection(run)["train"][position]
    store = Store(run / "store")
    try:
        pair = next(store.pairs([row["address"]]))
    finally:
        store.close()
    values: dict[str, Any] = {
        "exchange": pair.digest,
        "prompt": canonical(pair.request["messages"]).decode(),
        "answer": pair.exchange["answer"],
        "logprobs": canonical(pair.exchange["logprobs"]).decode(),
    }
    return {name: values[name] for name in names}
