"""An error about one of several models names that model's table of the run file."""

from pathlib import Path
from typing import Any

import pytest

from tests.loopback import problem
from tests.pipeline.test_proving import JUDGE, Models, prove, rows, write
from tests.pipeline.test_proving import models as models  # a fixture
from tutelage.errors import TeacherError
from tutelage.pipeline.naming import named


def test_keys_of_the_table_are_renamed_and_nothing_else() -> None:
    with pytest.raises(TeacherError) as caught, named("systems.student"):
        raise TeacherError("teacher.url of the teacher. Other: myteacher.url, teacher.nothing", fix="[teacher.price]")
    assert caught.value.message == "systems.student.url of the teacher. Other: myteacher.url, teacher.nothing"
    assert str(caught.value).endswith("fix: [systems.student.price]")


@pytest.mark.parametrize("key", ["scores", "tokenizer", "served_as", "criteria", "path"])
def test_keys_that_a_system_or_a_judge_alone_has_are_renamed(key: str) -> None:
    with pytest.raises(TeacherError) as caught, named("systems.student"):
        raise TeacherError(f"teacher.{key} is wrong", fix="none")
    assert caught.value.message == f"systems.student.{key} is wrong"


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_a_proof_names_the_systems_table(tmp_path: Path, models: Models, capsys: Any, who: str) -> None:
    getattr(models, who).fault = lambda number, request: problem(404)
    assert prove(write(tmp_path, models, rows(20)), "--out", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert f"check systems.{who}.url and systems.{who}.model" in said
    assert " teacher.url" not in said


def test_a_proof_names_the_judges_table(tmp_path: Path, models: Models, capsys: Any) -> None:
    models.student.share = 0.3
    run_file = write(tmp_path, models, rows(20), JUDGE.format(url="http://127.0.0.1:9/v1"))
    assert prove(run_file, "--out", tmp_path / "run") == 2
    assert "judges.strict.url is right" in capsys.readouterr().err
