"""One's own job without code: `init` and `run` on data made on the spot, against a served teacher and the real one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from openai import OpenAI

from tests.cli.test_cli import init, tutelage
from tests.loopback import Teacher, serving
from tests.models.tiny import save_tiny
from tutelage.ledger.verify import verify

SMALL = ("--set", "train.epochs=2", "--set", "student.layers=1")
ASKED_ONCE = (*SMALL, "--set", "controls.again=0")  # where answers are counted


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tutelage", "run", "run.toml", *arguments],
        cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def point_at(run_file: Path, base: Path) -> None:
    """A tiny student of one's own instead of the pinned one, and the teacher's licence."""
    text = run_file.read_text().replace('base = "smollm2-135m-instruct"', f'path = "{base}"\nlicence = "MIT"')
    run_file.write_text(text.replace("# licence =", "licence ="))


def test_init_then_run_then_serve_and_verify(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    with serving(Teacher()) as teacher:
        run_file = init(tmp_path, "--teacher", teacher.base_url, "--model", "word-counter")
        point_at(run_file, base)
        done = tutelage("run", "run.toml", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "held-out" in done.stdout
    folder = tmp_path / "runs" / "my"
    assert (folder / "evidence.json").exists()
    shown = tutelage("verify", str(folder))
    assert shown.returncode == 0, shown.stdout
    assert "100 % of the" in shown.stdout
    assert "word-counter under apache-2.0" in shown.stdout
    explained = json.loads(tutelage("verify", str(folder), "--explain", "--json").stdout)
    assert explained["ok"]
    assert explained["covered"]
    assert explained["not_covered"]
    server = subprocess.Popen(
        [sys.executable, "-m", "tutelage", "serve", str(folder), "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        client = OpenAI(base_url=url, api_key="none")
        assert client.models.list().data
        said = client.chat.completions.create(
            model="student", messages=[{"role": "user", "content": "rain and frost"}], max_tokens=3, temperature=0
        )
        streamed = client.chat.completions.create(
            model="student",
            messages=[{"role": "user", "content": "rain and frost"}],
            max_tokens=3,
            temperature=0,
            stream=True,
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
        assert text == said.choices[0].message.content
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_or_killed_it_resumes_and_pays_for_nothing_twice(tmp_path: Path, blow: signal.Signals) -> None:
    base = save_tiny(tmp_path / "base")
    teacher = Teacher()
    teacher.delay_s = 0.02
    with serving(teacher):
        run_file = init(tmp_path, "--teacher", teacher.base_url)
        point_at(run_file, base)
        process = start(tmp_path, *ASKED_ONCE)
        deadline = time.monotonic() + 60
        while teacher.asked < 30 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, blow)
        _, told = process.communicate(timeout=60)
        if blow == signal.SIGINT:
            assert process.returncode == 130, told
            assert "run the same command again" in told
        again = tutelage("run", "run.toml", *ASKED_ONCE, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    twice = sum(count - 1 for count in teacher.answered.values())
    assert twice <= (0 if blow == signal.SIGINT else 4), "only what was under way at a kill may be asked again"
    assert not verify(tmp_path / "runs" / "my").findings


def test_a_budget_stops_the_run_cleanly(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    with serving(Teacher()) as teacher:
        run_file = init(tmp_path, "--teacher", teacher.base_url)
        point_at(run_file, base)
        done = tutelage("run", "run.toml", *ASKED_ONCE, "--set", "budget.max_tokens=400", cwd=tmp_path)
        assert done.returncode == 3
        assert "max_tokens" in done.stderr
        assert teacher.asked * 8 <= 400
        more = ("--set", "budget.max_tokens=100000")
        again = tutelage("run", "run.toml", *ASKED_ONCE, *more, cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        assert set(teacher.answered.values()) == {1}


@pytest.mark.real
@pytest.mark.timeout(900)
def test_the_real_teacher_teaches_a_second_job(tmp_path: Path) -> None:
    """The embedded teacher over its real server, and a student cut from the real weights."""
    init(tmp_path)
    settings = {
        "data.train": 40, "data.held_out": 20, "data.validation": 8, "train.epochs": 1, "student.layers": 2,
        "budget.max_cost_usd": 0,
    }  # fmt: skip
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    done = tutelage("run", "run.toml", *flags, cwd=tmp_path, timeout_s=600)  # weights are read several times
    assert done.returncode == 0, done.stderr
    evidence = json.loads((tmp_path / "runs" / "my" / "evidence.json").read_text())
    assert evidence["claims"][0]["n"] == 20
    assert evidence["training"]["teacher_layers"] == 30
    assert evidence["cost"]["teacher_cpu_s_per_query"] > evidence["cost"]["student_cpu_s_per_query"] > 0
    assert not verify(tmp_path / "runs" / "my").findings
