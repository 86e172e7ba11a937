"""Calls that are being made again, and why, for the progress line."""

from collections import Counter

_SHOWN = 48  # characters of a reason


class Again:
    """Questions whose last call gave no answer and that are asked again."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def failed(self, address: str, reason: str) -> None:
        """The question at this address is asked again, for this reason: of `HTTP 500: what the server wrote`, its beginning."""
        self._reasons[address] = reason.partition(": ")[0][:_SHOWN]

    def ended(self, address: str) -> None:
        """It was answered or given up."""
        self._reasons.pop(address, None)

    @property
    def words(self) -> str:
        """`3 tried again: no answer within 60 s`; empty where none is."""
        if not self._reasons:
            return ""
        (reason, count), *others = Counter(self._reasons.values()).most_common()
        shared = f" ({count}) and other reasons" if others else ""
        return f"{len(self._reasons)} tried again: {reason}{shared}"
