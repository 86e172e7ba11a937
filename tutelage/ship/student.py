"""The student's folder: safetensors, config, tokenizer, template, generation config and the model card."""

import shutil
from pathlib import Path
from typing import Any


def ship(trained: Any, tokenizer_folder: Path, card_text: str, extras: Path, out: Path) -> None:
    """Writes the folder whole: built beside and renamed. `trained` is the model with its final weights, `card_text` the
    README.md (`card.model_card`), `extras` a folder of what else goes along (`notices`)."""
    scratch = out.with_name(out.name + ".new")
    shutil.rmtree(scratch, ignore_errors=True)
    trained.save_pretrained(scratch)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        if (tokenizer_folder / name).exists():
            shutil.copyfile(tokenizer_folder / name, scratch / name)
    (scratch / "README.md").write_text(card_text, encoding="utf-8")
    shutil.copytree(extras, scratch, dirs_exist_ok=True)
    for path in scratch.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
    shutil.rmtree(out, ignore_errors=True)
    scratch.rename(out)
