"""`tutelage probe`, and the line of it in `tutelage plan`, as people meet them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import Teacher, serving
from tests.models.fake_endpoint import Fake
from tests.pipeline.conftest import write_data
from tutelage.cli.main import main
from tutelage.config import TeacherTable
from tutelage.models.probe import offered_signals
from tutelage.pipeline.supervision import Probing, known_probe, probe_teacher, supervision_of

KEY = "sk-planted-4711-abcdefgh"
TODAY = "2026-11-25"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))


def said(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_probe_an_address(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROBE_TEST_KEY", KEY)
    with serving(Fake(scores=("echo",), hidden=100)) as teacher:
        address = ("--url", teacher.base_url, "--model", "m", "--api-key-env", "PROBE_TEST_KEY")
        code, out, err = said(capsys, "probe", *address)
        assert (code, err) == (0, "")
        assert "offers: top-logprobs (k = 20), text" in out
        assert "log-probabilities      yes       20 asked for, 20 come back; raw" in out
        assert "follow a prompt that you do not see" in out
        code, out, _ = said(capsys, "probe", *address, "--json")
        found = json.loads(out)
        assert (code, found["schema_version"], found["top_k_own"]) == (0, 1, 20)
        assert found["offers"] == ["top-logprobs", "text"]
    kept = list((tmp_path / "cache" / "probes").iterdir())
    assert len(kept) == 1
    assert KEY not in kept[0].read_text() + out


def test_exit_codes(capsys: Any) -> None:
    with serving(Fake(refuses=("model",))) as teacher:
        code, out, _ = said(capsys, "probe", "--url", teacher.base_url, "--model", "m")
        assert code == 1 and "offers: nothing that can be trained on" in out
    code, _, err = said(capsys, "probe", "--url", "http://127.0.0.1:9/v1", "--model", "m")
    assert code == 2 and "cannot connect" in err and err.count("\n") == 2
    for wrong in ([], ["--url", "ftp://x"], ["no.toml"], ["--url", "http://127.0.0.1:9/v1", "--max-cost", "nan"]):
        code, _, err = said(capsys, "probe", *wrong)
        assert code == 2 and "fix:" in err, wrong


def run_file(folder: Path, url: str) -> Path:
    write_data(folder / "my.csv")
    text = f"""
[run]
name = "x"
seed = 1
purpose = "internal"
[task]
labels = ["sport", "food", "weather"]
[data]
path = "{folder / "my.csv"}"
gold = "topic"
licence = "own"
train = 60
held_out = 20
validation = 10
[teacher]
url = "{url}"
model = "m"
licence = "MIT"
[student]
base = "smollm2-135m-instruct"
layers = 1
[train]
epochs = 1
[claim]
margin = 0.2
"""
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_plan_probes_what_is_free_once_a_day(tmp_path: Path, capsys: Any) -> None:
    with serving(Fake()) as teacher:
        path = str(run_file(tmp_path, teacher.base_url))
        _, out, _ = said(capsys, "plan", path, "--no-probe")
        assert "supervision not probed: tutelage probe RUN.toml (free)" in out and teacher.asked == 0
        code, out, err = said(capsys, "plan", path)
        assert code == 0, err
        assert "supervision top-20 of its own output, raw; no scoring; probed " in out
        asked = teacher.asked
        assert "top-20" in said(capsys, "plan", path)[1] and teacher.asked == asked
        assert said(capsys, "plan", path, "--probe")[0] == 0 and teacher.asked == 2 * asked
        assert said(capsys, "probe", path)[0] == 0
    code, out, _ = said(capsys, "plan", path, "--probe")
    assert "supervision not known: " in out and "cannot connect" in out


def test_plan_says_when_it_is_not_enough(tmp_path: Path, capsys: Any) -> None:
    with serving(Fake(most_k=5)) as teacher:
        path = str(run_file(tmp_path, teacher.base_url))
        code, out, _ = said(capsys, "plan", path)
        assert code == 1 and "NOT ENOUGH" in out and "up to 5, not 20" in out
        assert said(capsys, "plan", path, "--set", "teacher.top_logprobs=5")[0] == 0


def test_plan_says_when_log_probabilities_are_not_the_models_own(tmp_path: Path, capsys: Any) -> None:
    with serving(Fake(processed=("temperature",))) as teacher:
        path = str(run_file(tmp_path, teacher.base_url))
        code, out, _ = said(capsys, "plan", path)
        assert code == 1 and "after temperature, and they are asked for at temperature 0" in out
        assert said(capsys, "plan", path, "--set", "teacher.signal='text'", "--set", "task.decision='argmax'")[0] == 0
        assert "ask at temperature 1 and top-p 1" in said(capsys, "probe", path)[1]


def test_a_paid_endpoint_is_probed_only_when_asked(capsys: Any) -> None:
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0, "dated": TODAY}
    fake = Fake()
    with serving(fake) as teacher:
        paid = TeacherTable.model_validate(
            {"url": teacher.base_url, "model": "m", "provider": "somebody", "price": price, "licence": "MIT"}
        )
        for probing in (Probing.NEVER, Probing.FREE):
            found = supervision_of(paid, TODAY, probing)
            assert found["words"].startswith("not probed: tutelage probe RUN.toml (about $0.00") and fake.asked == 0
        assert supervision_of(paid, TODAY, Probing.ALWAYS)["enough"] is True
        probe = known_probe(paid)
        assert probe is not None and 0 < probe.nusd < 50_000_000
        assert "top-20" in supervision_of(paid, "2027-01-01", Probing.FREE)["words"], "an old one is told with its date"


def test_the_ordinary_loopback_teacher() -> None:
    with serving(Teacher()) as teacher:
        found = probe_teacher(TeacherTable(url=teacher.base_url, model="m", licence="MIT"))
    assert offered_signals(found) == ("top-logprobs", "text")
    assert found.item("finish_length").answer == "no", "it says stop, whatever the limit"


@pytest.mark.real
def test_the_embedded_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUTELAGE_CACHE")
    found = probe_teacher(TeacherTable(resource="smollm2-135m-instruct"))
    assert offered_signals(found) == ("top-logprobs", "text")
    assert (found.top_k_own, found.entries_own, found.top_k_supplied, found.logprobs_are) == (64, 64, 0, "raw")
    for name in (
        "token_bytes",
        "token_ids",
        "deterministic",
        "seed",
        "one_model",
        "stop_string",
        "schema",
        "n",
        "system",
    ):
        assert found.is_yes(name), found.item(name)
    assert found.tokenizer_digest == "sha256:491c26a09d45b17de6a6d9d3fd22a0b4de28b53dfcf8e06ec21803a18d3db46e"
    assert known_probe(TeacherTable(resource="smollm2-135m-instruct")) == found
