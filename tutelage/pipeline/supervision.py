"""What a teacher reveals, for the plan of a run and for `tutelage probe`: probed, or remembered from when it was."""

import asyncio
import tempfile
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from tutelage.canon import digest_file
from tutelage.config import TeacherTable
from tutelage.errors import SignalError, TeacherError
from tutelage.models.base import Endpoint
from tutelage.models.prices import PriceList, price_list
from tutelage.models.probe import Probe, load, offered_signals, require_signal, save, supervision
from tutelage.models.probing.run import EXPECTED, MAX_COST_NUSD, probe
from tutelage.models.teachers import open_model
from tutelage.pipeline.serving import remote, serve_teacher
from tutelage.records import NUSD_PER_USD
from tutelage.resources import resource

LABEL_TEMPERATURE = "0"  # of label questions: `models.questions.label_params`


class Probing(StrEnum):
    """When a plan probes: never; when it is free and the server is up anyway; or whatever it costs (within the limit)."""

    NEVER = "never"
    FREE = "free"
    ALWAYS = "always"


def prices_of(teacher: TeacherTable, endpoint: Endpoint | None = None, *, single: bool = False) -> PriceList:
    """What the teacher costs, as it is asked or (`single`) in calls of their own: the run file's price, else a
    prices.toml, else what is known. Raises `ConfigError`."""
    if endpoint is None:
        endpoint = remote(teacher) if teacher.url else Endpoint("", "embedded", "", "", "")
    overrides = Path(teacher.prices) if teacher.prices else None
    return price_list(
        endpoint,
        teacher.price,
        datetime.now(UTC).date().isoformat(),
        tier="batch" if teacher.batch and not single else "",
        overrides=overrides,
    )


def probe_teacher(teacher: TeacherTable, max_cost_nusd: int = MAX_COST_NUSD) -> Probe:
    """Probes the teacher, served here if need be, and keeps the result. Raises `TeacherError` when it cannot be reached,
    `ConfigError` when nobody knows what it costs."""

    async def ask(endpoint: Endpoint, prices: PriceList) -> Probe:
        async with open_model(endpoint, 1) as model:
            return await probe(model, prices, max_cost_nusd=max_cost_nusd, full_logits=teacher.path is not None)

    with tempfile.TemporaryDirectory() as folder, serve_teacher(teacher, Path(folder)) as served:
        endpoint = served.up()
        found = asyncio.run(ask(endpoint, prices_of(teacher, endpoint, single=True)))
        save(found, endpoint)
        return found


def known_probe(teacher: TeacherTable) -> Probe | None:
    """The last probe of this teacher, if there was one."""
    if teacher.url is not None:
        return load(remote(teacher))
    if teacher.resource is not None:
        pinned = resource(teacher.resource)
        return load(Endpoint("", "embedded", pinned.provider, pinned.name, pinned.licence))
    folder = Path(teacher.path or "")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return None
    digest = digest_file(weights)
    name = f"{folder.name}@{digest.removeprefix('sha256:')[:16]}"
    return load(Endpoint("", "embedded", "local", name, "", weights_digest=digest))


def supervision_of(teacher: TeacherTable, today: str, probing: Probing = Probing.NEVER) -> dict[str, Any]:
    """What a plan says of it: `words`, the signals `offered`, and whether they are `enough` for the run file (None when
    nobody knows yet). A server that cannot be reached is words, not an error."""
    found = known_probe(teacher)
    is_old = found is None or found.probed_at[:10] != today
    is_free = teacher.url is not None and remote(teacher).route.startswith("loopback")
    if probing is Probing.ALWAYS or (probing is Probing.FREE and is_free and is_old):
        try:
            found = probe_teacher(teacher)
        except TeacherError as error:
            words = f"not known: {error.message}"
            return {"words": words, "offered": [], "enough": None}
    if found is None:
        expected = prices_of(teacher, single=True).of(EXPECTED).cost_nusd / NUSD_PER_USD
        cost = f"about ${expected:.4f}" if expected else "free"
        return {"words": f"not probed: tutelage probe RUN.toml ({cost})", "offered": [], "enough": None}
    words, enough = supervision(found), True
    try:
        require_signal(found, teacher.signal, teacher.top_logprobs, LABEL_TEMPERATURE)
    except SignalError as error:
        words, enough = f"{words}  NOT ENOUGH: {error.message}", False
    return {"words": words, "offered": list(offered_signals(found)), "enough": enough}
