"""Code by its tests, and what hostile code cannot do."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tutelage.errors import ConfigError, DataError
from tutelage.prove.tasks import code as code_module
from tutelage.prove.tasks.base import Answer
from tutelage.prove.tasks.catalogue import task_of
from tutelage.prove.tasks.code import code_of
from tutelage.prove.tasks.sandbox import Limits, isolation_problem, run_test

PROBLEM = isolation_problem()
shut_in = pytest.mark.skipif(bool(PROBLEM), reason=PROBLEM or "namespaces work")
GOLD = json.dumps(["assert add(1, 2) == 3", "assert add(-1, 1) == 0", "assert add('a', 'b') == 'ab'"])
RIGHT = "Here:\n```python\ndef add(a, b):\n    return a + b\n```\nUse it:\n```python\nadd(1, 2)\n```"
ANYWHERE = {"allow_execution": True, "isolation": "none", "time_s": 5}


def test_tests_passed() -> None:
    task = task_of("code", ANYWHERE)
    task.require_reference(GOLD)
    assert task.score(Answer(RIGHT), GOLD).value == 1
    wrong = RIGHT.replace("a + b", "7 if a == -1 else a + b")
    found = task.score(Answer(wrong), GOLD)
    assert (found.value, found.parts["tests passed"], found.read) == (
        0,
        2 / 3,
        "2 of 3 tests; test 2: raised AssertionError",
    )
    assert task_of("code", {**ANYWHERE, "count": "share"}).score(Answer(wrong), GOLD).value == 2 / 3
    assert (
        task.score(
            Answer("def double(x): return 2 * x"), '{"setup": "y = 2", "tests": ["assert double(y) == 4"]}'
        ).value
        == 1
    )


@pytest.mark.parametrize(
    "text", ["", "no code here, sorry", "```rust\nfn f() {}\n```", "```python\ndef f(:\n```", "x = 1\n" * 30_000]
)
def test_what_is_no_python_is_not_run(text: str) -> None:
    assert not task_of("code", ANYWHERE).score(Answer(text), GOLD).is_read


def test_the_block_that_defines_something_counts() -> None:
    assert code_of("```\npip install x\n```\n```py\ndef f(): pass\n```") == "def f(): pass\n"
    assert code_of("```python\ndef f(): pass") == "def f(): pass"


@pytest.mark.parametrize(
    "gold", ["", "assert (", "[]", "[1]", '{"tests": "x"}', '["pass"]', "# nothing", json.dumps(["assert 1"] * 201)]
)
def test_gold_without_tests_is_refused(gold: str) -> None:
    with pytest.raises(DataError, match="gold"):
        task_of("code", ANYWHERE).require_reference(gold)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("import sys; sys.exit(0)", "raised SystemExit"),
        ("import os; os._exit(0)", "ended"),
        ("while True: pass", "time"),
        ("x = [0] * 10**9", "raised MemoryError"),
        ("import sys; sys.stdout.write('x' * 10**7); input()", "raised EOFError"),
        ("import os\nos.write(3, b'passed\\n' * 2000)", "output"),
        ("import os; assert not {'USER', 'SECRET'} & set(os.environ)", "passed"),
        ("f = open('big', 'wb')\nwhile True: f.write(b'0' * 10**6)", "raised OSError"),
        ("raise type('A b\\n\\x1b', (Exception,), {})", "raised Ab"),
        ("class passed(Exception): pass\nraise passed", "raised passed"),
    ],
)
@pytest.mark.parametrize("isolated", [False, pytest.param(True, marks=shut_in)])
def test_code_that_ends_fills_or_hangs(
    code: str, outcome: str, isolated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    limit = 1.0 if outcome == "time" else 20.0
    began = time.monotonic()
    assert run_test(code, "", "pass", Limits(limit, 256 << 20, isolated)) == outcome
    assert time.monotonic() - began < 25


@shut_in
@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("import socket; socket.create_connection(('127.0.0.1', PORT), 1)", "raised OSError"),
        ("open('OUTSIDE/made', 'w')", "raised FileNotFoundError"),
        ("import os; assert os.listdir('/run') == os.listdir('/home') == []", "passed"),
        ("open('/etc/hosts', 'a')", "raised OSError"),
        ("import os; assert os.getpid() == 1", "passed"),
        ("import tempfile; tempfile.mkstemp()", "passed"),
        ("import os\nwhile True: os.fork()", "processes"),
        ("import os, time\nos.fork()\nkept = bytearray(b'1') * (160 << 20)\ntime.sleep(60)", "memory"),
        (
            "import ctypes\nlibc = ctypes.CDLL(None)\n"
            "assert libc.mount(b't', b'/mnt', b'tmpfs', 0, None) and libc.umount2(b'/run', 2)",
            "passed",
        ),
    ],
)
def test_code_that_is_shut_in(code: str, outcome: str, tmp_path: Path) -> None:
    listens = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1]); input()"
    server = subprocess.Popen(
        [sys.executable, "-u", "-c", listens],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stdout is not None
        code = code.replace("PORT", server.stdout.readline().strip()).replace("OUTSIDE", str(tmp_path))
        found = run_test(code, "", "pass", Limits(20.0, 256 << 20, True))
        server.kill()
    expected = {outcome, "raised ConnectionRefusedError"} if "socket" in code else {outcome}
    if outcome == "raised FileNotFoundError":
        expected |= {"raised OSError", "raised PermissionError"}
        assert not list(tmp_path.iterdir())
    assert found in expected


@shut_in
def test_nothing_outlives_the_test() -> None:
    mark = f"tutelage-left-{os.getpid()}"
    left = f"os.execv('/bin/sh', ['{mark}', '-c', 'sleep 50; :'])"
    code = (
        f"import os, time\nif not os.fork():\n os.setsid()\n if not os.fork():\n  {left}\n os._exit(0)\ntime.sleep(0.3)"
    )
    assert run_test(code, "", "pass", Limits(20.0, 256 << 20, True)) == "passed"
    time.sleep(0.2)
    assert not [one for one in psutil.process_iter(["cmdline"]) if mark in (one.info["cmdline"] or [])]


def test_it_is_off_where_code_cannot_be_shut_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_module, "isolation_problem", lambda: "there is no `unshare`")
    with pytest.raises(ConfigError, match="cannot be shut in: there is no `unshare`") as caught:
        task_of("code", {"allow_execution": True})
    assert 'isolation = "none"' in caught.value.fix


@pytest.mark.parametrize(
    "other", ["bash\npip install x", "json\n{}", "text\nfirst this", "console\r\n$ ls", "sql\ndef x"]
)
def test_a_fence_of_another_language_is_no_code_and_hides_none(other: str) -> None:
    text = f"Install:\n```{other}\n```\nThen:\n```python\ndef add(a, b):\n    return a + b\n```\nand\n```{other}\n```"
    assert code_module.code_of(text) == "def add(a, b):\n    return a + b\n"
    assert code_module.code_of(f"```{other}\n```") == ""
    assert code_module.code_of("```Python title=x\r\ny = 1\r\n```") == "y = 1\r\n"


@pytest.mark.parametrize(
    "before",
    [
        "Use ```pip install x``` first.\n\n",
        "Here is ```foo``` function: ",
        "```markdown\nfirst\n",
        "A ```b``` and ```c```:\n",
        "",
    ],
)
def test_code_within_a_line_and_blocks_left_open_hide_none(before: str) -> None:
    text = f"{before}```python\ndef f():\n    return 1\n```\nIt uses ```f```.\n"
    assert code_module.code_of(text) == "def f():\n    return 1\n"
