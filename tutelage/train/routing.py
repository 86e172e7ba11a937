"""Several teachers, each of which teaches its own conversations: what they say of one passage, put together row by row.

Shape legend: N loss positions.
"""

from collections.abc import Mapping, Sequence

import torch

from tutelage.losses.chunked import Part
from tutelage.signals.several import merged
from tutelage.train.batch import starts
from tutelage.train.offpolicy import passage_of
from tutelage.train.teaching import Passage, Teaching


class Routed:
    """Asks for each example the teaching whose name `whose` gives for its conversation (`Example.source`). All of them make the
    same losses."""

    def __init__(self, teachings: Mapping[str, Teaching], whose: Mapping[str, str]) -> None:
        self._teachings, self._whose = teachings, whose
        self.role = next(iter(teachings.values())).role
        self._step: Passage | None = None
        self._steps: dict[str, Passage] = {}  # what of the step each teaches

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        """One row a position of the passage, in its order."""
        if passage.step is not None and passage.step is not self._step:
            self._step = passage.step
            self._steps = {name: _some(self._step, at) for name, at in self._rows(self._step).items()}
        by_name = self._rows(passage)
        said = [self._teachings[name].parts(self._own(passage, name, at)) for name, at in by_name.items()]
        if len(said) == 1:
            return said[0]
        places = [_places(passage, at) for at in by_name.values()]
        return tuple(
            parts[0]._replace(signal=merged([part.signal for part in parts], places))
            for parts in zip(*said, strict=True)
        )

    def _rows(self, passage: Passage) -> dict[str, list[int]]:
        """Places of the examples that each teaches, in their order."""
        found: dict[str, list[int]] = {}
        for at, example in enumerate(passage.examples):
            found.setdefault(self._whose[example.source], []).append(at)
        return found

    def _own(self, passage: Passage, name: str, at: Sequence[int]) -> Passage:
        own = _some(passage, at)
        if passage.step is None:
            return own
        among = {row: place for place, row in enumerate(self._rows(passage.step)[name])}
        return own._replace(step=self._steps[name], rows=tuple(among[passage.rows[one]] for one in at))


def _some(passage: Passage, at: Sequence[int]) -> Passage:
    """Some examples of a passage as one of their own."""
    own = passage_of([passage.examples[one] for one in at], passage.ids_T.device, None, passage.temperature)
    own = own._replace(progress=passage.progress)
    drawn_N = passage.drawn_logp_N
    return own if drawn_N is None else own._replace(drawn_logp_N=drawn_N[_places(passage, at)])


def _places(passage: Passage, at: Sequence[int]) -> torch.Tensor:
    """Which positions of the passage are those of its examples `at`, [N]."""
    sizes = [len(example.targets) for example in passage.examples]
    first = starts(sizes)
    places = [place for one in at for place in range(first[one], first[one] + sizes[one])]
    return torch.tensor(places, dtype=torch.long, device=passage.ids_T.device)
