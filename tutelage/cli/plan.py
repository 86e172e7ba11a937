"""`tutelage plan`: terms, tokens, cost, time, disk, memory and power of a run, without spending anything."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def plan(
    run_file: Path,
    *,
    size: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    probe: bool | None = None,
    json: bool = False,
) -> int:
    """Say what a run would do and cost; for a training, which method fits what the teacher reveals; for a proof, what its items
    can show. Spends nothing, and asks no model but a server on this machine (see `probe`).

    Parameters
    ----------
    run_file
        The TOML file of the run.
    size
        A named size of the run file.
    set_
        Override one key; may be repeated.
    probe
        Probe the teacher first, for up to $0.05; or never. By default only a server that runs on this machine is probed, and
        only if it was not today.
    json
        Print one JSON object.
    """
    from datetime import UTC, datetime

    from tutelage.cli.output import print_json
    from tutelage.cli.overrides import parse_overrides
    from tutelage.pipeline.plan import describe
    from tutelage.pipeline.plan import plan as work_out
    from tutelage.pipeline.plan_collect import describe_collect, plan_collect
    from tutelage.pipeline.plan_proof import describe_proof, plan_proof
    from tutelage.pipeline.plan_training import describe_training, plan_training
    from tutelage.pipeline.supervision import Probing
    from tutelage.run_file import load_collect_config, load_config, load_proof_config, load_training_config, verb_of

    probing = Probing.FREE if probe is None else Probing.ALWAYS if probe else Probing.NEVER
    today, overrides = datetime.now(UTC).date().isoformat(), parse_overrides(set_)
    if verb_of(run_file) == "collect":
        found = plan_collect(load_collect_config(run_file, overrides), today, probing)
        words = describe_collect(found)
    elif verb_of(run_file) == "train":
        found = plan_training(load_training_config(run_file, overrides), today, probing)
        words = describe_training(found)
    elif verb_of(run_file) == "prove":
        found = plan_proof(load_proof_config(run_file, overrides), today)
        words = describe_proof(found)
    else:
        found = work_out(load_config(run_file, size, overrides), today, probing)
        words = describe(found)
    if json:
        print_json(found)
    else:
        print(words)
    enough = found.get("supervision", {}).get("enough") is not False
    return 0 if found["permitted"] and found["within_budget"] and enough else 1
