"""A budget that cannot be overrun: what a call may cost is set aside before it is made."""

from dataclasses import dataclass, field
from typing import NamedTuple

from tutelage.errors import BudgetError
from tutelage.models.waiting import Line
from tutelage.progress import Stop
from tutelage.records import NUSD_PER_USD

_GRANTED, _NEVER = 1, -1


class _Need(NamedTuple):
    nusd: int
    tokens: int


@dataclass(slots=True)
class Budget:
    """Reserve before a call, settle after it: spent + reserved never passes a limit (nano-USD, tokens)."""

    max_nusd: int
    max_tokens: int
    spent_nusd: int = 0
    spent_tokens: int = 0
    reserved_nusd: int = 0
    reserved_tokens: int = 0
    _line: Line[_Need] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._line = Line(self._grant, self._take_back)

    def reserve(self, nusd: int, tokens: int) -> None:
        """Raises `BudgetError` when the call might pass a limit, counting all that calls under way may still cost."""
        self._require(nusd, tokens, self.spent_nusd + self.reserved_nusd, self.spent_tokens + self.reserved_tokens)
        self.reserved_nusd += nusd
        self.reserved_tokens += tokens

    async def reserve_or_wait(self, nusd: int, tokens: int, stop: Stop) -> bool:
        """Reserves; waits while only reservations of calls under way are in the way. `False` when `stop` was set.

        Raises `BudgetError` when the call can never fit beside what is spent. First come, first served: what is reserved
        before a large call is settled one day, and no small one passes it, so that it is not starved.
        """
        if stop:
            return False
        self._require(nusd, tokens, self.spent_nusd, self.spent_tokens)
        need = _Need(nusd, tokens)
        granted = 0 if self._line else self._grant(need)
        granted = granted or await self._line.join(need, stop)
        if granted == _NEVER:
            self._require(nusd, tokens, self.spent_nusd, self.spent_tokens)
        return granted == _GRANTED

    def settle(self, reserved_nusd: int, reserved_tokens: int, nusd: int, tokens: int) -> None:
        """A call has ended: its reservation goes, what it cost stays."""
        assert 0 <= reserved_nusd <= self.reserved_nusd and 0 <= reserved_tokens <= self.reserved_tokens
        self.reserved_nusd -= reserved_nusd
        self.reserved_tokens -= reserved_tokens
        self.spent_nusd += nusd
        self.spent_tokens += tokens
        if self._line:
            self._line.move()

    def reopen(self, spent_nusd: int, spent_tokens: int, nusd: int, tokens: int) -> None:
        """A call of an earlier start that was counted as spent, since nobody knew its end, is under way again."""
        self.spent_nusd -= min(spent_nusd, self.spent_nusd)
        self.spent_tokens -= min(spent_tokens, self.spent_tokens)
        self.reserved_nusd += nusd
        self.reserved_tokens += tokens

    def _grant(self, need: _Need) -> int:
        free_nusd, free_tokens = self.max_nusd - self.spent_nusd, self.max_tokens - self.spent_tokens
        if need.nusd > free_nusd or need.tokens > free_tokens:
            return _NEVER
        if need.nusd > free_nusd - self.reserved_nusd or need.tokens > free_tokens - self.reserved_tokens:
            return 0
        self.reserved_nusd += need.nusd
        self.reserved_tokens += need.tokens
        return _GRANTED

    def _take_back(self, granted: int, need: _Need) -> None:
        self.settle(need.nusd, need.tokens, 0, 0)

    def _require(self, nusd: int, tokens: int, nusd_before: int, tokens_before: int) -> None:
        if nusd_before + nusd > self.max_nusd:
            raise BudgetError(
                f"the next question could bring the cost to ${(nusd_before + nusd) / NUSD_PER_USD:.6f}, "
                f"over max_cost_usd = {self.max_nusd / NUSD_PER_USD:g}",
                fix="raise budget.max_cost_usd and run again; answered questions are not asked again",
            )
        if tokens_before + tokens > self.max_tokens:
            raise BudgetError(
                f"the next question could bring the count to {tokens_before + tokens} tokens, "
                f"over max_tokens = {self.max_tokens}",
                fix="raise budget.max_tokens in the run file and run again; answered questions are not asked again",
            )
