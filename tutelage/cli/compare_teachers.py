"""`tutelage compare-teachers`: which of several teachers to learn from; running it again asks only what is open."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter


def compare_teachers(
    run_file: Path,
    *,
    out: Path | None = None,
    max_cost: float | None = None,
    probe: bool | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Ask every teacher of a run file the same labelled questions, rank them, and say what of the ranking is decided. Run the
    same command again to resume.

    Parameters
    ----------
    run_file
        The TOML file of the comparison: docs/compare-teachers.md.
    out
        The folder for answers and record (default: runs/NAME).
    max_cost
        Stop before spending more than so many dollars (default: as the run file says, else 3).
    probe
        Probe every candidate first, each for up to $0.05; or none. By default only servers that run on this machine.
    set_
        Override one key; may be repeated.
    json
        Print one JSON object: what comparison.json holds.
    quiet
        Say nothing on standard error.
    """
    from tutelage.cli.output import print_json
    from tutelage.cli.overrides import parse_overrides
    from tutelage.ledger.keys import default_signer
    from tutelage.pipeline.comparing import compare
    from tutelage.pipeline.run import Run, own_folder
    from tutelage.pipeline.supervision import Probing
    from tutelage.progress import Lines, Quiet, stop_on_signals
    from tutelage.run_file import load_compare_config

    said = {} if max_cost is None else {"budget.max_cost_usd": max_cost}
    config = load_compare_config(run_file, {**said, **parse_overrides(set_)})
    folder = own_folder(out or Path("runs") / config.run.name)
    probing = Probing.FREE if probe is None else Probing.ALWAYS if probe else Probing.NEVER
    progress = Quiet() if quiet else Lines()
    with stop_on_signals(progress) as stop, Run(folder, progress, stop, default_signer()) as under_way:
        found = compare(config, under_way, probing)
    if json:
        print_json({**found, "folder": str(folder)})
    else:
        print(describe(found))
        print(f"\nfigures  {folder / 'comparison.json'}\nverify   tutelage verify {folder}")
    return 0


def describe(found: dict[str, Any]) -> str:
    """The comparison as aligned tables and a verdict in words."""
    head = ("teacher", "accuracy", "interval", "tier", "ranks", "$/1000", "median", "reveals", "terms")
    rows = [head, *(_row(one) for one in found["candidates"])]
    gold = ", ".join(f"{count} {label}" for label, count in found["gold"].items())
    lines = [
        f"{found['items']} items ({gold}); intervals of accuracy at {found['level']:.0%}, each alone",
        *_aligned(rows),
    ]
    lines += [line for one in found["candidates"] for line in _notes(one)]
    if found["pairs"]:
        pairs = [("difference", "points", "interval", "at", "")]
        pairs += [_pair(pair) for pair in found["pairs"]]
        lines += ["", f"pairs, all orders said hold together at {found['level']:.0%} (Holm)", *_aligned(pairs)]
    return "\n".join([*lines, "", *_words(found)])


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    if "accuracy" not in one:
        return (one["name"], "not asked", "", "", "", "", "", "", f"{one['terms']}")
    low, high = one["ranks"]
    median = "–" if one["median_ms"] is None else f"{one['median_ms'] / 1000:.3f} s"
    reveals = f"top-{one['candidates_revealed']}" if one["candidates_revealed"] else "/".join(one["offers"])
    return (
        one["name"],
        f"{100 * one['accuracy']:.1f} %",
        f"{100 * one['low']:.1f} to {100 * one['high']:.1f}",
        str(one["tier"]),
        str(low) if low == high else f"{low} to {high}",
        f"{one['usd_per_thousand']:.4f}",
        median,
        reveals,
        one["terms"],
    )


def _notes(one: dict[str, Any]) -> list[str]:
    """What the table has no column for."""
    from tutelage.schema import one_line

    if "accuracy" not in one:
        return [f"  {one['name']}: {one_line(one['terms_say'])}"]
    notes = []
    if one["conditions"]:
        notes.append(f"  {one['name']}: provided that: {one_line('; '.join(one['conditions']))}")
    if "probed" in one["supervision"] and not one["supervision"].startswith("not probed"):
        notes.append(f"  {one['name']}: {one_line(one['supervision'])}")
    if (gain := one["calibration_gain"]) is not None:
        plain, balanced = (100 * one["by_decision"][rule]["accuracy"] for rule in ("argmax", "balanced"))
        notes.append(
            f"  {one['name']}: {plain:.1f} % as it answers, {balanced:.1f} % with label shares balanced: "
            f"{100 * gain['difference']:+.1f} points ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}); "
            f"ranked as {one['decision']}"
        )
    if one["unread"]:
        notes.append(f"  {one['name']}: {one['unread']} answers hold none of the labels and count as wrong")
    return notes


def _pair(pair: dict[str, Any]) -> tuple[str, ...]:
    limits = f"{100 * pair['low']:+.1f} to {100 * pair['high']:+.1f}"
    said = f"{pair['first']} before {pair['second']}" if pair["is_decided"] else "not decided"
    names = f"{pair['first']} − {pair['second']}"
    return (names, f"{100 * pair['difference']:+.1f}", limits, f"{100 * pair['level']:.3g} %", said)


def _words(found: dict[str, Any]) -> list[str]:
    verdict = found["verdict"]
    leaders, points = verdict["leaders"], f"{100 * found['margin']:g} points"
    if not found["pairs"]:
        lines = ["ranking      none: one candidate was asked"]
    elif verdict["is_decided"]:
        lines = [f"ranking      DECIDED, every pair of it: {' > '.join(_ranked(found))}"]
    elif len(leaders) == 1:
        lines = [f"ranking      {leaders[0]} is first; NOT DECIDED behind it ({verdict['open_pairs']} pairs are open)"]
    else:
        lines = [f"ranking      NOT DECIDED: the best may be {', '.join(leaders[:-1])} or {leaders[-1]}"]
    if len(leaders) > 1:
        lines.append(f"more items   {_more(found, verdict, points)}")
    if verdict["is_shown"]:
        lines.append(f"recommended  {verdict['recommended']}: {verdict['why']}")
    else:
        lines.append(f"recommended  NOT SHOWN; for now {verdict['recommended']}: {verdict['why']}")
        lines.append(f"             nobody is shown to be within {points} of the best on {found['items']} items")
    return lines


def _more(found: dict[str, Any], verdict: dict[str, Any], points: str) -> str:
    """How many would do for the first two, if what was seen is the truth."""
    first, second = _ranked(found)[:2]
    order, within = verdict["items_to_order_top_two"], verdict["items_to_show_within_margin"]
    told = []
    if order is not None:
        told.append(f"about {_rounded(order):,} items in all decide {first} before {second}")
    if within is not None and within > found["items"]:
        told.append(f"about {_rounded(within):,} show {first} within {points} of {second}")
    if not told:
        return f"no number of items is likely to order {first} and {second}: they were right equally often"
    return f"{'; '.join(told)} ({verdict['power']:.0%} power, if the shares seen are the true ones)"


def _rounded(count: int) -> int:
    """Two digits, upwards: no more is known of it."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return -(-count // unit) * unit


def _ranked(found: dict[str, Any]) -> list[str]:
    return [one["name"] for one in found["candidates"] if "accuracy" in one]


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
