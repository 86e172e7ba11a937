"""The student's folder is put in place whole, or not at all."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tests.models.tiny import save_tiny
from tutelage.errors import TermsError
from tutelage.ship.student import ship


def test_what_may_not_be_handed_on_is_not_put_in_place(tmp_path: Path) -> None:
    base, extras, out = save_tiny(tmp_path / "base"), tmp_path / "extras", tmp_path / "student"
    extras.mkdir()
    (extras / "NOTICE").write_text("n")
    model = AutoModelForCausalLM.from_pretrained(base)
    seen: list[tuple[str, ...]] = []
    assert ship(model, base, "card", extras, out, seen.append) is None
    assert {"NOTICE", "README.md", "model.safetensors", "tokenizer.json"} <= set(seen[0])
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def refuse(files: tuple[str, ...]) -> None:
        raise TermsError("no", fix="none")

    with pytest.raises(TermsError):
        ship(model.to("cpu"), base, "another card", extras, out, refuse)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "extras", "student"]
