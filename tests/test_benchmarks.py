"""The benchmarks of asking, small: that they run, and that what they check can fail."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.asking.audit import audit, key_found, wrong_answers, wrong_bills
from benchmarks.asking.faults import spellings

ROOT = Path(__file__).parents[1]
KEY = "sk-proj-Abcdefghijklmnopqrstuvwxyz0123456789-_"


SMALL = ("--requests", "100", "--rounds", "1", "--concurrency", "20")


def run(name: str, folder: Path, *flags: str) -> dict:
    command = [sys.executable, ROOT / "benchmarks" / name, "--out", folder / "out.json", "--work", folder, *flags]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = json.loads(said.splitlines()[-1])
    assert found == json.loads((folder / "out.json").read_bytes())
    return found


def test_a_rate_is_measured(tmp_path: Path) -> None:
    found = run("collect.py", tmp_path, *SMALL, "--part", "rate", "--rivals")
    ours = found["rate"]["ours"]
    assert 1 < ours["most_in_flight"] <= 20
    assert 0 < ours["asking_rps"] < 20 / 0.05 * 1.2  # so many in flight for so long each
    assert 2500 < ours["stored_bytes_a_request"] < 10_000
    assert found["rate"]["raw"]["rps"] > 0
    assert found["ratio"] is None


@pytest.mark.slow
def test_rivals_and_resuming(tmp_path: Path) -> None:
    more = ("--sdk-requests", "50", "--logprob-requests", "40", "--exchanges", "500", "--prompts", "100")
    found = run("collect.py", tmp_path, *SMALL, *more)
    assert found["sdk_rps"] > 0 and found["ratio"] and found["logprobs"]["ratio"]
    assert found["logprobs"]["ours"]["stored_bytes_a_request"] > 100_000
    assert 0 < found["resume_first_request_s"] < 30
    assert 20 < found["resume_rss_mb"] < 500


CHAOS = ("--prompts", "100", "--kills", "1", "--concurrency", "10", "--timeout-s", "2")


def test_nothing_is_lost_or_bought_twice(tmp_path: Path) -> None:
    found = run("chaos.py", tmp_path, *CHAOS, "--part", "kills")
    assert (found["answered"] + found["explained"], found["lost"], found["duplicated"]) == (100, 0, 0)
    assert (found["kills"], found["faults"]["401"]) == (1, 1)
    assert [stop["code"] for stop in found["other_stops"]] == [2]
    assert found["other_stops"][0]["lines"] < 12  # one clear error
    assert found["in_flight"] <= found["most_possible_in_flight"] <= 10
    assert found["settled_usd"] <= found["server_usd"] <= found["settled_usd"] + found["unresolved_usd"]
    assert found["server_usd"] <= found["cap_usd"]
    assert (found["wrong_answers"], found["wrong_bills"]) == (0, 0)
    assert (found["stored_twice"], found["damaged_lines"], found["key_found"]) == (0, 0, 0)
    assert found["reader_agrees"] and found["index_agrees"]


@pytest.mark.slow
def test_a_cap_and_a_full_disk_end_it_cleanly(tmp_path: Path) -> None:
    found = run("chaos.py", tmp_path, *CHAOS, "--part", "capped", "--part", "disk", "--cost", "0.025")
    capped, disk = found["capped"], found["disk"]
    assert (capped["exit_code"], capped["passed_cap"], capped["key_found"]) == (3, False, 0)
    assert 0 < capped["answered"] < 60
    if "skipped" not in disk:
        assert (disk["exit_codes_when_full"], disk["exit_code_with_room"]) == ([2, 2], 0)
        assert (disk["answered"], disk["damaged_lines"], disk["damaged_when_full"]) == (disk["prompts"], 0, 0)


@pytest.mark.parametrize("spelling", spellings(KEY))
def test_the_key_is_found_in_any_spelling(tmp_path: Path, spelling: str) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "said").write_text(f"before {spelling} after")
    (tmp_path / "other").write_text("sk-proj-[redacted:LOOP_KEY]")
    assert [place.split(":")[0] for place in key_found(tmp_path, KEY)][:1] == ["deep/said"]


def test_the_second_reader_sees_damage_and_a_wrong_answer(tmp_path: Path) -> None:
    from benchmarks.asking.bulk import _stored

    asked = {"messages": [{"role": "user", "content": "What?"}]}
    address, request = _stored(b"request", asked)
    answer = {"request_digest": address, "answer": "that of another", "attempts": 1, "price": {"cost_nusd": 5}}
    _, reservation = _stored(b"reservation", {"request_digest": address, "attempt": 1, "nusd": 9})
    _, exchange = _stored(b"exchange", answer)
    segment = tmp_path / "000001.seg"
    segment.write_bytes(reservation + reservation + request + exchange)
    found = audit(tmp_path)
    assert (wrong_answers(found), found.settled_nusd, found.unresolved_nusd) == (1, 5, 9)
    assert found.open_for() == {"What?": 1}
    assert [wrong_bills(found, {"What?": billed}) for billed in (4, 5, 14, 15)] == [1, 0, 0, 1]
    segment.write_bytes(reservation + request.replace(b"What", b"Who!") + exchange + b"sha256:torn")
    found = audit(tmp_path)
    assert (found.damaged, found.torn) == (["000001.seg line 2"], 1)
