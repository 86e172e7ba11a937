"""The command line as people meet it: exit codes, one clear error, JSON, run files for one's own data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.conftest import write_data
from tutelage.cli.overrides import parse_overrides
from tutelage.errors import ConfigError

RECIPE = Path(__file__).parents[2] / "tutelage" / "recipes" / "film_reviews" / "run.toml"


def tutelage(*arguments: str, cwd: Path | None = None, timeout_s: int = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tutelage", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=timeout_s,
    )


def init(folder: Path, *more: str) -> Path:
    write_data(folder / "my.csv")
    done = tutelage("init", "--data", "my.csv", *more, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run.toml"


def test_help_names_every_command() -> None:
    done = tutelage("--help")
    assert done.returncode == 0
    for verb in ("demo", "init", "plan", "run", "serve", "verify", "doctor", "terms"):
        assert verb in done.stdout


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["run"], ["run", "x.toml", "--no-such-flag"], ["terms", "nothing"]]
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    done = tutelage(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error:")
    assert "Traceback" not in done.stderr


def test_missing_run_file(tmp_path: Path) -> None:
    done = tutelage("run", "nothing.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "nothing.toml" in done.stderr
    assert "tutelage init" in done.stderr
    assert not (tmp_path / "runs").exists(), "nothing half-written"


def test_unknown_key_has_a_did_you_mean(tmp_path: Path) -> None:
    run_file = init(tmp_path)
    run_file.write_text(run_file.read_text().replace("epochs = 4", "epoch = 4"))
    done = tutelage("plan", "run.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "unknown key train.epoch (did you mean epochs?)" in done.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("claim.margin=-0.03", "claim.margin"),
        ("data.train=0", "data.train"),
        ("task.labels=['one']", "task.labels"),
        ("run.purpose='world domination'", "run.purpose"),
        ("teacher.url='ftp://x'", "exactly one of"),
        ("student.layers='many'", "student.layers"),
        ("train=5", "train"),
        ("nonsense", "KEY=VALUE"),
    ],
)
def test_bad_values_are_named(tmp_path: Path, override: str, message: str) -> None:
    init(tmp_path)
    done = tutelage("plan", "run.toml", "--set", override, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "fix:" in done.stderr
    assert "Traceback" not in done.stderr


def test_init_writes_a_run_file_that_plans(tmp_path: Path) -> None:
    init(tmp_path)
    done = tutelage("plan", "run.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "weather" in (tmp_path / "run.toml").read_text()
    found = json.loads(tutelage("plan", "run.toml", "--json", cwd=tmp_path).stdout)
    assert found["schema_version"] == 1
    assert found["questions"]["held_out"] == 55
    again = tutelage("init", "--data", "my.csv", cwd=tmp_path)
    assert again.returncode == 2
    assert "--force" in again.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("my.txt", "x", ".csv"),
        ("my.csv", "a,b\n1,2\n", "which of"),
        ("my.csv", "text,label\na,x\nb,x\n", "1 labels"),
        ("my.jsonl", "[1]\n", "not an object"),
    ],
)
def test_init_on_bad_data(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    done = tutelage("init", "--data", name, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "run.toml").exists()


def test_init_goes_on_without_bad_rows_only_if_asked(tmp_path: Path) -> None:
    rows = "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(60))
    (tmp_path / "my.csv").write_text("text,label\n" + rows + ",a\n")
    stopped = tutelage("init", "--data", "my.csv", cwd=tmp_path)
    assert stopped.returncode == 2
    assert "line 62" in stopped.stderr
    assert "--bad-rows skip" in stopped.stderr
    done = tutelage("init", "--data", "my.csv", "--bad-rows", "skip", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'bad_rows = "skip"' in (tmp_path / "run.toml").read_text()
    assert "60 rows" in done.stdout


def test_terms_check_stops_with_the_clause(tmp_path: Path) -> None:
    run_file = init(tmp_path, "--teacher", "http://127.0.0.1:9/v1")
    unknown = tutelage("terms", "check", "run.toml", cwd=tmp_path)
    assert unknown.returncode == 1
    assert "unknown" in unknown.stdout.lower()
    run_file.write_text(run_file.read_text().replace('# licence = "apache-2.0"', 'licence = "llama-3" #'))
    forbidden = tutelage("terms", "check", "run.toml", cwd=tmp_path)
    assert forbidden.returncode == 1
    assert "§1.b.v" in forbidden.stdout
    run = tutelage("run", "run.toml", cwd=tmp_path)
    assert run.returncode == 1
    assert "§1.b.v" in run.stderr


def test_terms_list_and_show() -> None:
    assert "deepseek-api" in tutelage("terms", "list").stdout
    assert json.loads(tutelage("terms", "list", "--json").stdout)["entries"]
    shown = tutelage("terms", "show", "Apache-2.0")
    assert "§4" in shown.stdout
    assert tutelage("terms", "show", "no-such-licence").returncode == 2


def test_doctor() -> None:
    done = tutelage("doctor", "--json")
    assert done.returncode == 0, done.stdout
    assert {"python", "torch", "xllamacpp"} <= {row["what"] for row in json.loads(done.stdout)["rows"]}


def test_verify_needs_a_run(tmp_path: Path) -> None:
    done = tutelage("verify", str(tmp_path))
    assert done.returncode == 2
    assert "no record" in done.stderr


def test_the_recipe_of_the_package_is_valid_at_every_size() -> None:
    from tutelage.run_file import load_config

    for size in (None, "full", "standard", "quick"):
        config = load_config(RECIPE, size)
        assert config.student.layers <= 10, "at most a third of the teacher's layers"
    assert load_config(RECIPE, "full").claim.margin == 0.03
    assert load_config(RECIPE, "standard").claim.margin == 0.05


def test_overrides() -> None:
    found = parse_overrides(["a.b=3", "c=hello", 'd="3"', "e=[1, 2]", "f=a=b"])
    assert found == {"a.b": 3, "c": "hello", "d": "3", "e": [1, 2], "f": "a=b"}
    with pytest.raises(ConfigError):
        parse_overrides(["novalue"])
