"""Energy counters: a tree as Linux has it and a library as NVIDIA's, going round, standing still, forbidden."""

import ctypes
import time
from pathlib import Path
from typing import Any

import pytest

from tutelage.energy import Counter, NotTold, Watch, find_counters
from tutelage.meter import Meter, own_work


def zone(root: Path, zone_name: str, name: str, energy_uj: int, range_uj: int = 262_143_328_850) -> Path:
    folder = root / zone_name
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    return folder / "energy_uj"


def no_library() -> Any:
    raise OSError("libnvidia-ml.so.1: no such file")


class Library:
    """NVML with two GPUs, of which the second has no energy counter."""

    def __init__(self) -> None:
        self.energy_mj = 5_000

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, number: ctypes.c_uint, handle: Any) -> int:
        handle._obj.value = 100 + number.value
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: ctypes.c_void_p, energy: Any) -> int:
        energy._obj.value = self.energy_mj
        return 0 if handle.value == 100 else 3


def test_only_whole_packages_are_counted(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 4_000_000)
    for part, name in (("intel-rapl:0:0", "core"), ("intel-rapl:0:1", "dram"), ("intel-rapl:2", "psys")):
        zone(tmp_path, part, name, 7)
    told = find_counters(tmp_path, no_library)
    assert told.words() == "all of CPU package-0, CPU package-1"
    with Watch(told.counters) as watch:
        first.write_text("3500000\n")
        second.write_text("4250000\n")
    assert watch.joules() == 2.75


def test_a_counter_that_starts_again_at_0(tmp_path: Path) -> None:
    energy = zone(tmp_path, "intel-rapl:0", "package-0", 9_999_900, range_uj=9_999_999)
    with Watch(find_counters(tmp_path, no_library).counters) as watch:
        energy.write_text("400\n")
    assert watch.joules() == 500e-6
    with pytest.raises(NotTold, match="went back"):
        Counter("GPU 0", lambda: 0).since(5, 4)


def test_it_is_read_in_between_so_that_no_round_is_missed() -> None:
    ticks = [0]

    def read() -> int:
        ticks[0] += 60
        return ticks[0] % 100

    with Watch([Counter("c", read, 99)], every_s=0.005) as watch:
        time.sleep(0.1)
    assert watch.joules() == pytest.approx((ticks[0] - 60) / 1e6)
    assert ticks[0] > 300


def test_a_machine_that_does_not_tell(tmp_path: Path) -> None:
    nothing = find_counters(tmp_path / "none", no_library)
    assert nothing.words() == "this machine does not tell: no counter (RAPL, NVML)"
    with Watch(nothing.counters) as watch:
        pass
    assert watch.joules() is None
    still = zone(tmp_path, "intel-rapl:0", "package-0", 17)
    with Watch(find_counters(tmp_path, no_library).counters) as watch:
        pass
    assert watch.joules() is None, "a counter that stands still says nothing"
    with Watch(find_counters(tmp_path, no_library).counters) as watch:
        still.unlink()
    assert watch.joules() is None


def test_a_counter_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    energy = zone(tmp_path, "intel-rapl:0", "package-0", 5)
    read = Path.read_text

    def refused(path: Path, *args: Any, **how: Any) -> str:
        if path == energy:
            raise PermissionError(13, "Permission denied")
        return read(path, *args, **how)

    monkeypatch.setattr(Path, "read_text", refused)
    told = find_counters(tmp_path, no_library)
    assert told.counters == () and told.words() == f"this machine does not tell: only root may read {energy}"


def test_gpus_that_have_a_counter(tmp_path: Path) -> None:
    library = Library()
    told = find_counters(tmp_path, lambda: library)
    assert [counter.name for counter in told.counters] == ["GPU 0"] and "GPU 1 has no energy counter" in told.silent[0]
    with Watch(told.counters) as watch:
        library.energy_mj += 1_250
    assert watch.joules() == 1.25


def test_a_meter_tells_what_was_measured(tmp_path: Path) -> None:
    meter = Meter(tmp_path / "m.json")
    assert (meter.energy_mj(), meter.energy_j_each(), meter.cpu_s_each()) == (None, None, None)
    meter.add(2.0, 4, 8.0)
    assert (meter.energy_mj(), meter.energy_j_each(), meter.read()) == (8000, 2.0, (2000, 4))
    meter.add(1.0, 2)
    assert meter.energy_mj() is None, "of a part nobody knows"
    assert meter.energy_j_each() == 2.0
    (tmp_path / "old.json").write_text('{"cpu_ms": 500, "count": 2}')
    assert Meter(tmp_path / "old.json").energy_mj() is None and Meter(tmp_path / "old.json").cpu_s_each() == 0.25


def test_own_work_adds_up_over_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter(range(0, 10**9, 3_000_000))
    told = find_counters(tmp_path, no_library)._replace(counters=(Counter("c", lambda: next(steps)),))
    monkeypatch.setattr("tutelage.meter.counters", lambda: told)
    with pytest.raises(KeyError), own_work(tmp_path / "m.json"):
        raise KeyError
    with own_work(tmp_path / "m.json") as spent:
        sum(range(3_000_000))
    assert spent()["energy_mj"] == 6000 and spent()["cpu_ms"] >= 10
