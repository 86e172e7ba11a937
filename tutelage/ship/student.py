"""The student's folder: safetensors, config, tokenizer, template, generation config and the model card."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutelage.canon import digest_file, digest_of
from tutelage.models.quiet import without_bars


def ship(
    trained: Any, tokenizer_folder: Path, card_text: str, extras: Path, out: Path,
    judge: Callable[[tuple[str, ...]], None] = lambda files: None,
) -> Path | None:  # fmt: skip
    """Writes the folder whole: built beside and renamed. `trained` is the model with its final weights, `card_text` the
    README.md (`card.model_card`), `extras` a folder of what else goes along (`notices`). `judge` is shown the names of all files
    first: where it raises nothing is put in place, and what was there stays.

    A student of other weights that was there is kept beside it; returns where, None where there was none."""
    scratch = out.with_name(out.name + ".new")
    shutil.rmtree(scratch, ignore_errors=True)
    with without_bars():
        trained.save_pretrained(scratch)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        if (tokenizer_folder / name).exists():
            shutil.copyfile(tokenizer_folder / name, scratch / name)
    (scratch / "README.md").write_text(card_text, encoding="utf-8")
    shutil.copytree(extras, scratch, dirs_exist_ok=True)
    for path in scratch.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
    try:
        judge(tuple(path.relative_to(scratch).as_posix() for path in scratch.rglob("*")))
    except Exception:
        shutil.rmtree(scratch)
        raise
    kept = _set_aside(out, scratch)
    scratch.rename(out)
    return kept


def _set_aside(out: Path, new: Path) -> Path | None:
    """Makes room for `new`. Weights are kept once: papers about the same ones are written again by the same run file."""
    before = _weights(out)
    kept = out.with_name(f"{out.name}.before-{digest_of(before).removeprefix('sha256:')[:8]}")
    if before and before != _weights(new):
        if kept.exists():
            shutil.rmtree(out)
        else:
            out.rename(kept)
        return kept
    shutil.rmtree(out, ignore_errors=True)
    return None


def _weights(folder: Path) -> dict[str, str]:
    return {path.name: digest_file(path) for path in sorted(folder.glob("*.safetensors"))}
