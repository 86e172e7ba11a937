"""Whether the held-out items can prove anything: looked at before anybody is asked, and again by the proof."""

import json
from collections.abc import Mapping
from pathlib import Path

from tutelage.collect.unseen import Asked, require_unseen
from tutelage.config import RunConfig
from tutelage.pipeline.gate import teacher_name
from tutelage.prompts import Prompts, read_prompts
from tutelage.prove.gold import require_classes, require_other_author
from tutelage.terms.lineage import of_file


def require_gold(config: RunConfig, prompts: Prompts, gold: Mapping[str, str]) -> dict[str, int]:
    """That the held-out items can prove anything, before anybody is asked; how many texts were compared. Raises
    `DataError` for one class only, a label that the teacher wrote, and an item that is trained on too."""
    require_classes([gold[prompt.prompt_id] for prompt in prompts.held_out])
    if config.data.path is not None:
        require_other_author(teacher_name(config.teacher), of_file(Path(config.data.path)))
    trained = (Asked([prompt.text], "the training data") for prompt in (*prompts.train, *prompts.validation))
    known = require_unseen([[prompt.text] for prompt in prompts.held_out], trained).questions
    return {"held_out": len(prompts.held_out), "trained_on": known, "overlap": 0}


def read_gold(folder: Path) -> tuple[Prompts, dict[str, str]]:
    """The prompts of a run, and the human label of each held-out one."""
    gold = json.loads((folder / "data" / "gold.json").read_bytes())
    return read_prompts(folder / "data" / "prompts.jsonl"), gold
