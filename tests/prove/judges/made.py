"""Judges of known worth, for the tests: what each would call, given who is truly better.

Shape legend: N items.
"""

import numpy as np

from tutelage.prove.judges.calls import Call, Items, JudgeCalls

NO_GOLD = int(Call.UNREADABLE)


def made_items(
    rng: np.random.Generator, n: int, *, win_rate: float = 0.5, gold: int = 0, per_session: int = 1
) -> tuple[Items, np.ndarray]:
    """Items whose better answer is the student's with `win_rate`, lengths unrelated to it; and who is better, (N,)."""
    better_N = np.where(rng.random(n) < win_rate, 1, -1).astype(np.int8)
    longer_N = rng.choice(np.array([-1, 1], dtype=np.int8), size=n)
    gold_N = np.full(n, NO_GOLD, dtype=np.int8)
    gold_N[:gold] = better_N[:gold]
    session_N = None if per_session == 1 else np.arange(n) // per_session
    return Items(longer_N, np.zeros(n, dtype=bool), gold_N, session_N), better_N


def noisy(rng: np.random.Generator, side_N: np.ndarray, right: float) -> np.ndarray:
    return np.where(rng.random(side_N.size) < right, side_N, -side_N).astype(np.int8)


def good(rng: np.random.Generator, better_N: np.ndarray, right: float = 0.9) -> JudgeCalls:
    """Names the better answer with probability `right`, in each order anew."""
    return JudgeCalls("good", noisy(rng, better_N, right), noisy(rng, better_N, right))


def bad(kind: str, rng: np.random.Generator, items: Items) -> JudgeCalls:
    """A judge that does not look at what the answers say."""
    n = items.n
    ones, noughts = np.ones(n, dtype=np.int8), np.zeros(n, dtype=np.int8)
    garbage = np.full(n, NO_GOLD, dtype=np.int8)
    values = np.array([-1, 0, 1], dtype=np.int8)

    def drawn(shares: tuple[float, float, float]) -> np.ndarray:
        return rng.choice(values, size=n, p=shares)

    orders = {
        "random": lambda: (drawn((0.5, 0.0, 0.5)), drawn((0.5, 0.0, 0.5))),
        "random with ties": lambda: (drawn((0.3, 0.4, 0.3)), drawn((0.3, 0.4, 0.3))),
        "random, leans to A": lambda: (drawn((0.2, 0.1, 0.7)), drawn((0.7, 0.1, 0.2))),
        "always A": lambda: (ones, -ones),
        "always B": lambda: (-ones, ones),
        "always tie": lambda: (noughts, noughts),
        "garbage": lambda: (garbage, garbage),
        "mostly garbage": lambda: tuple(np.where(rng.random(n) < 0.9, garbage, drawn((0.5, 0, 0.5))) for _ in "AB"),
        "always student": lambda: (ones, ones),
        "always teacher": lambda: (-ones, -ones),
        "mostly student": lambda: (drawn((0.1, 0.0, 0.9)), drawn((0.1, 0.0, 0.9))),
        "longer": lambda: (items.longer_N, items.longer_N),
        "shorter": lambda: (-items.longer_N, -items.longer_N),
        "mostly longer": lambda: (noisy(rng, items.longer_N, 0.85), noisy(rng, items.longer_N, 0.85)),
        "longer or a coin": lambda: _or_a_coin(rng, items.longer_N),
        "student or a coin": lambda: _or_a_coin(rng, ones),
        "nearly always tie": lambda: _nearly_always_tie(rng, n),
    }
    first, second = orders[kind]()
    return JudgeCalls(kind, first, second)


BAD = (
    "random", "random with ties", "random, leans to A", "always A", "always B", "always tie", "garbage", "mostly garbage",
    "always student", "always teacher", "mostly student", "longer", "shorter", "mostly longer", "longer or a coin",
    "student or a coin", "nearly always tie",
)  # fmt: skip


def _or_a_coin(rng: np.random.Generator, side_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Surely one side (the longer answer) on three tenths of the items, where it is plain to see; a coin on the others: the
    least favourable mixture for a judge that goes by one property, with a consistency of 65 %."""
    is_clear = rng.random(side_N.size) < 0.3
    first, second = (np.where(is_clear, side_N, noisy(rng, side_N, 0.5)) for _ in "AB")
    return first, second


def _nearly_always_tie(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Consistent where it names a model, which is on one item of twenty."""
    settled = np.where(rng.random(n) < 0.05, rng.choice(np.array([-1, 1]), size=n), 0).astype(np.int8)
    return settled, settled
