"""`tutelage plan`: terms, tokens, cost, time, disk, memory and power of a run, without spending anything."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def plan(
    run_file: Path,
    *,
    size: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    json: bool = False,
) -> int:
    """Say what a run would do and cost. Asks no model and spends nothing.

    Parameters
    ----------
    run_file
        The TOML file of the run.
    size
        A named size of the run file.
    set_
        Override one key; may be repeated.
    json
        Print one JSON object.
    """
    from datetime import UTC, datetime

    from tutelage.cli.output import print_json
    from tutelage.cli.overrides import parse_overrides
    from tutelage.config import load_config
    from tutelage.pipeline.plan import describe
    from tutelage.pipeline.plan import plan as work_out

    found = work_out(load_config(run_file, size, parse_overrides(set_)), datetime.now(UTC).date().isoformat())
    if json:
        print_json(found)
    else:
        print(describe(found))
    return 0 if found["permitted"] and found["within_budget"] else 1
