"""People who decide between the answers of a proof, as `tutelage label --pairs` lets them."""

from collections.abc import Callable
from pathlib import Path

from tutelage.prove.gold_file import DRAWN, FORMAT, PERSON, TIE, Header, Journal, Mode, frame_of
from tutelage.prove.shown import SYSTEMS
from tutelage.serve.labelling import Desk
from tutelage.serve.labelling_items import deal, of_run


def label_pairs(run: Path, out: Path, prefer: Callable[[str], str], sample: int) -> Path:
    """`prefer` says of an item whose answer is better, or `TIE`."""
    matter = of_run(run, Mode.PAIRS)
    head = Header(
        FORMAT, PERSON, Mode.PAIRS, "Which?", (*SYSTEMS, TIE), SYSTEMS, len(matter.questions), sample, 0, DRAWN,
        frame_of(matter.questions), "2026-11-28T00:00:00Z",
    )  # fmt: skip
    with Journal(out, head) as journal:
        desk = Desk(journal, deal(matter, head), "Anna")
        for at, shown in enumerate(desk.dealt):
            assert desk.decide(at, (*shown.order, TIE).index(prefer(shown.unit.item)))
    return out
