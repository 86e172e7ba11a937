"""Joules that this machine uses, where it tells: RAPL counters of CPU packages (Linux), NVML counters of NVIDIA GPUs.

A counter counts a whole package or GPU: whatever else runs there is in it; memory, disks, fans and losses of the power supply
are not. Energy is in microjoules (uj) as the counters have it, and in joules (_j) outside.
"""

import ctypes
import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

POWERCAP = Path("/sys/class/powercap")
# A package's counter starts again at 0 after max_energy_range_uj: 65 kJ on old CPUs, which 500 W take 130 s to use.
EVERY_S = 30.0


class NotTold(Exception):
    """A counter does not answer; its words say why."""


@dataclass(frozen=True, slots=True)
class Counter:
    """One counter: `read` gives microjoules since some moment or raises `NotTold`; `range_uj` is the value after which it starts
    again at 0, None where it does not."""

    name: str
    read: Callable[[], int]
    range_uj: int | None = None

    def since(self, before_uj: int, now_uj: int) -> int:
        """Microjoules from one reading to the next. Raises `NotTold` for a counter that went back and has no range."""
        if now_uj >= before_uj:
            return now_uj - before_uj
        if self.range_uj is None or before_uj > self.range_uj:
            raise NotTold(f"{self.name} went back from {before_uj} to {now_uj} uJ")
        return self.range_uj - before_uj + now_uj + 1


class Told(NamedTuple):
    """The counters of a machine, and for those that do not answer why."""

    counters: tuple[Counter, ...]
    silent: tuple[str, ...]

    def words(self) -> str:
        """What is counted, or why nothing is."""
        if self.counters:
            return "all of " + ", ".join(counter.name for counter in self.counters)
        return f"this machine does not tell: {'; '.join(self.silent) or 'no counter (RAPL, NVML)'}"


def find_counters(powercap: Path = POWERCAP, nvml: Callable[[], Any] | None = None) -> Told:
    """Those that answer now. `nvml` loads NVIDIA's library, or raises `OSError` where there is none."""
    found, silent = list[Counter](), list[str]()
    for counter in (*_packages(powercap), *_gpus(nvml or _load_nvml)):
        try:
            counter.read()
        except NotTold as error:
            silent.append(str(error))
        else:
            found.append(counter)
    return Told(tuple(found), tuple(silent))


@functools.cache
def counters() -> Told:
    """Those of this machine, looked for once."""
    return find_counters()


class Watch:
    """Adds up what counters count from entering to leaving; reads them in between so that none can go round unseen."""

    def __init__(self, watched: Sequence[Counter], every_s: float = EVERY_S) -> None:
        self._counters, self._every_s = tuple(watched), every_s
        self._last: list[int] = []
        self._total_uj = 0
        self._broken = not watched
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            self._last = [counter.read() for counter in self._counters]
        except NotTold:
            self._broken = True
        if not self._broken:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._look()

    def joules(self) -> float | None:
        """So far; None where no counter told, one stopped, or none moved (on some virtual machines they stand still)."""
        if not self._broken and not self._over.is_set():
            self._look()
        return None if self._broken or self._total_uj == 0 else self._total_uj / 1e6

    def _watch(self) -> None:
        while not self._over.wait(self._every_s):
            self._look()

    def _look(self) -> None:
        with self._lock:
            if self._broken:
                return
            try:
                now = [counter.read() for counter in self._counters]
                self._total_uj += sum(map(Counter.since, self._counters, self._last, now))
            except NotTold:
                self._broken = True
            else:
                self._last = now


def _packages(powercap: Path) -> list[Counter]:
    """The CPU packages. Their parts (intel-rapl:0:0) are in them; a zone "psys" would count them again."""
    found = []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (folder / "name").read_text().strip()
            range_uj = int((folder / "max_energy_range_uj").read_text())
        except (OSError, ValueError):
            continue
        if name.startswith("package"):
            found.append(Counter(f"CPU {name}", functools.partial(_read_file, folder / "energy_uj"), range_uj))
    return found


def _read_file(path: Path) -> int:
    try:
        return int(path.read_text())
    except PermissionError:
        raise NotTold(f"only root may read {path}") from None
    except (OSError, ValueError) as error:
        raise NotTold(f"{path} cannot be read: {error}") from None


def _load_nvml() -> Any:
    return ctypes.CDLL("libnvidia-ml.so.1")


def _gpus(load: Callable[[], Any]) -> list[Counter]:
    """The NVIDIA GPUs: energy in mJ since the driver was loaded (nvmlDeviceGetTotalEnergyConsumption; Volta and later)."""
    try:
        library = load()
    except OSError:
        return []
    count = ctypes.c_uint()
    if library.nvmlInit_v2() or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return []
    found = []
    for number in range(count.value):
        handle = ctypes.c_void_p()
        if not library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(number), ctypes.byref(handle)):
            found.append(Counter(f"GPU {number}", functools.partial(_read_gpu, library, handle, number)))
    return found


def _read_gpu(library: Any, handle: ctypes.c_void_p, number: int) -> int:
    energy_mj = ctypes.c_ulonglong()
    if code := library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(energy_mj)):
        raise NotTold(f"GPU {number} has no energy counter (NVML code {code})")
    return 1000 * energy_mj.value
