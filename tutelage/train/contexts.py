"""A teacher that reads another prompt than the student: the same answers, token by token, at places of its own.

What it says of them is learnt as if it stood there for the student's prompt: context distillation (Askell et al. 2021, arXiv
2112.00861), on the student's own text OPCD (arXiv 2602.12275) and SDFT (arXiv 2601.19897).
"""

from collections.abc import Mapping, Sequence

from tutelage.losses.chunked import Part
from tutelage.train.examples import Example
from tutelage.train.offpolicy import passage_of
from tutelage.train.teaching import Passage, Teaching


class InContext:
    """A teaching whose teacher reads `prompts` instead of the student's, by the conversation (`Example.source`)."""

    def __init__(self, teaching: Teaching, prompts: Mapping[str, Sequence[int]]) -> None:
        self._teaching, self._prompts = teaching, prompts
        self.role = teaching.role
        self._step: tuple[Passage, Passage] | None = None  # as the student reads it, and as the teacher does

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        """One row a position of the passage, in its order."""
        step = passage.step
        if step is not None and (self._step is None or self._step[0] is not step):
            self._step = step, reread(step, self._prompts)
        read = reread(passage, self._prompts)
        return self._teaching.parts(read if step is None or self._step is None else read._replace(step=self._step[1]))


def reread(passage: Passage, prompts: Mapping[str, Sequence[int]]) -> Passage:
    """The passage with another prompt before each answer; positions keep their order."""
    examples = [with_prompt(example, prompts[example.source]) for example in passage.examples]
    whole = passage_of(examples, passage.ids_T.device, None, passage.temperature)
    return whole._replace(drawn_logp_N=passage.drawn_logp_N, rows=passage.rows, progress=passage.progress)


def with_prompt(example: Example, prompt: Sequence[int]) -> Example:
    """All from the first place that is learnt on, after another prompt."""
    first = example.targets[0]
    moved = tuple(at - first + len(prompt) for at in example.targets)
    return Example((*prompt, *example.ids[first:]), moved, example.source)
