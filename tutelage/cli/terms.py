"""`tutelage terms`: check a run file against what licences and providers allow; explain, list and show what is known."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tutelage.errors import ConfigError


def check(
    run_file: Path,
    *,
    size: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    json: bool = False,
) -> int:
    """May this run learn from its teacher, with its data, on its base? The first line answers: may it, why, what must be done.
    Exit code 1 when not.

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
    from tutelage.pipeline.gate import check_terms, may_ask
    from tutelage.pipeline.gate_proof import may_prove
    from tutelage.pipeline.gate_training import may_train
    from tutelage.run_file import (
        load_collect_config,
        load_config,
        load_proof_config,
        load_training_config,
        verb_of,
    )
    from tutelage.terms.check import describe
    from tutelage.terms.explain import answer

    today, verb = datetime.now(UTC).date().isoformat(), verb_of(run_file)
    if verb == "prove":
        proof = may_prove(load_proof_config(run_file, parse_overrides(set_)), today)
        if json:
            print_json({"permitted": proof.together.permits, "verdicts": proof.to_json()})
        else:
            print(answer(proof.together))
            print("\n".join(describe(verdict) for verdict in (*proof.judged.values(), *proof.inherited)))
        return 0 if proof.together.permits else 1
    if verb == "collect":
        permission = may_ask(load_collect_config(run_file, parse_overrides(set_)), today)
        if json:
            print_json({"permitted": permission.together.permits, "verdicts": permission.to_json()})
        else:
            print(answer(permission.together))
            verdicts = (permission.teacher, permission.data, *permission.inherited)
            print("\n".join(describe(verdict) for verdict in verdicts))
        return 0 if permission.together.permits else 1
    if verb == "train":
        judged, gate = may_train(load_training_config(run_file, parse_overrides(set_)), today)
    else:
        gate = check_terms(load_config(run_file, size, parse_overrides(set_)), today)
        judged = {"teacher": gate.teacher, "data": gate.data, "base": gate.base}
    if json:
        verdicts = {**judged, "inherited": list(gate.inherited)}
        print_json({"permitted": gate.permits, "unmet": list(gate.unmet), "verdicts": verdicts})
    else:
        print(answer(gate.together, gate.unmet))
        print("\n".join(describe(verdict) for verdict in (*judged.values(), *gate.inherited)))
        print("\n".join(f"not met: {problem}" for problem in gate.unmet), end="\n" if gate.unmet else "")
    return 0 if gate.permits else 1


def explain(
    *, licence: str = "", route: str = "embedded", purpose: str = "internal", date: str = "", json: bool = False
) -> int:
    """What the texts say of any combination, without a run file. Exit code 1 when it is not permitted.

    Parameters
    ----------
    licence
        Licence of the model or data: id, SPDX id or alias. Empty: its weights are not public.
    route
        How it is reached: embedded, local, loopback, or a provider's id, alias or host name.
    purpose
        internal, distributed, classifier-only, competing-product, research or same-platform.
    date
        The day to judge by, YYYY-MM-DD. Default: today in UTC.
    json
        Print one JSON object.
    """
    from datetime import UTC, datetime

    from tutelage.cli.output import print_json
    from tutelage.terms.check import check as judge
    from tutelage.terms.check import way_out
    from tutelage.terms.explain import ages_days
    from tutelage.terms.explain import explain as in_words
    from tutelage.terms.registry import load_registry

    entries = load_registry()
    day = date or datetime.now(UTC).date().isoformat()
    verdict = judge(entries, subject="the model", licence=licence, route=route, purpose=purpose, today=day)
    if json:
        more = {"permitted": verdict.permits, "age_days": ages_days(verdict), "what_would_change": way_out(verdict)}
        print_json({"verdict": verdict, **more})
    else:
        print(in_words(verdict, entries))
    return 0 if verdict.permits else 1


def list_terms(*, json: bool = False) -> int:
    """Every licence and provider that is known, with its status for each purpose.

    Parameters
    ----------
    json
        Print one JSON object.
    """
    from tutelage.cli.output import print_json
    from tutelage.terms.registry import load_registry

    entries = load_registry().entries
    if json:
        print_json({"entries": list(entries)})
        return 0
    for entry in entries:
        print(f"{entry.id:22} {entry.kind:9} {entry.name}")
        print("  " + ", ".join(f"{rule.purpose}: {rule.status}" for rule in entry.rules))
    return 0


def show(name: str, *, json: bool = False) -> int:
    """One entry: its clauses, sources, dates and conditions.

    Parameters
    ----------
    name
        Id, SPDX id, alias or host name.
    json
        Print one JSON object.
    """
    from tutelage.cli.output import print_json
    from tutelage.terms.model import UnknownName
    from tutelage.terms.registry import load_registry

    entry = load_registry().find(name)
    if isinstance(entry, UnknownName):
        near = f"did you mean {', '.join(entry.near)}?" if entry.near else "see `tutelage terms list`"
        raise ConfigError(f"no terms are known under {name!r}; unknown is never allowed", fix=near)
    if json:
        print_json(entry.to_json())
        return 0
    print(f"{entry.name} ({entry.id}, {entry.kind})")
    for clause in entry.clauses:
        print(
            f"  {clause.number}: {clause.gist}\n    {clause.source}, effective {clause.effective}, checked {clause.checked_on}"
        )
    for rule in entry.rules:
        print(f"  {rule.purpose}: {rule.status}" + (f" ({rule.clause})" if rule.clause else ""))
    for condition in entry.conditions:
        print(f"  condition {condition.id}: {condition.words}")
    return 0


def merge(lineages: tuple[Path, ...], *, name: str, out: Path) -> int:
    """Write the lineage of a merge: every ancestor of every model that went into it.

    Parameters
    ----------
    lineages
        The lineage.json of each model that is merged.
    name
        The merged model's name.
    out
        The file to write: lineage.json in the merged model's folder.
    """
    from tutelage.jsonl import write_pretty
    from tutelage.terms.lineage import Lineage, read_lineage

    if len(lineages) < 2:
        raise ConfigError(f"{len(lineages)} lineages make no merge", fix="give the lineage.json of each model")
    merged = Lineage.of_merge(name, [read_lineage(path) for path in lineages])
    write_pretty(out, merged.to_json())
    print(f"{out}: {len(merged.ancestors)} ancestors; whoever starts from the merged model inherits their terms")
    return 0
