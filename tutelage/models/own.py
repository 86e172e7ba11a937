"""The model behind a server of our own, which the first question without an answer starts."""

import time
from dataclasses import replace
from types import TracebackType
from typing import Self

from tutelage.models.base import Endpoint
from tutelage.models.http import HttpModel
from tutelage.models.openai import OpenAIDialect
from tutelage.models.process import ServedProcess
from tutelage.progress import Progress


class OwnModel(HttpModel):
    """As `HttpModel`, of an endpoint whose address is not known before `wake`. Whoever owns the server ends it."""

    def __init__(self, endpoint: Endpoint, connections: int, server: ServedProcess) -> None:
        super().__init__(endpoint, OpenAIDialect(), connections)
        self._server = server

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await super().__aexit__(kind, error, trace)

    async def wake(self, progress: Progress) -> None:
        """Starts the server unless it runs, says so, and connects. Apart from `complete`, since the time of an answer is
        measured; it blocks, since nothing else is under way. Raises `TeacherError` when it does not come up."""
        if self._session is not None:
            return
        if not self._server.is_up:
            progress.say(f"loading {self.endpoint.model}")
            began = time.monotonic()
            self._server.start()
            progress.say(f"loaded {self.endpoint.model} in {time.monotonic() - began:.0f} s")
        self.endpoint = replace(self.endpoint, base_url=self._server.base_url)
        await super().__aenter__()
