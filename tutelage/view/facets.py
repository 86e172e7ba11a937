"""By what examples can be divided: columns with few values, and how many examples have each.

Counting goes over all examples, so the thread that indexes does it, and a page only reads what was counted.
"""

import json
import sqlite3

FACETS = ("stage", "who", "role", "purpose", "finish", "fate", "correct", "differs", "model", "origin")
NONE = "-"  # stands for an empty value
_MOST_VALUES = 100  # of one facet, the commonest


def count_facets(database: sqlite3.Connection) -> None:
    """Counts every value over all examples and keeps the counts in the index."""
    columns = ", ".join(FACETS)
    found: dict[str, dict[str, int]] = {name: {} for name in FACETS}
    for *values, count in database.execute(f"SELECT {columns}, count(*) FROM example GROUP BY {columns}").fetchall():
        for name, value in zip(FACETS, values, strict=True):
            found[name][value] = found[name].get(value, 0) + count
    kept = {
        name: sorted(((value or NONE, count) for value, count in counts.items()), key=lambda one: (-one[1], one[0]))
        for name, counts in found.items()
    }
    database.execute("INSERT OR REPLACE INTO about VALUES ('facets', ?)", (json.dumps(kept),))


def facets(database: sqlite3.Connection) -> dict[str, list[tuple[str, int]]]:
    """As they were counted last; a facet with one value divides nothing and is left out."""
    row = database.execute("SELECT value FROM about WHERE name = 'facets'").fetchone()
    found = json.loads(row[0]) if row else {}
    return {
        name: [(value, count) for value, count in counts[:_MOST_VALUES]]
        for name, counts in found.items()
        if len(counts) > 1
    }
