"""The student's folder: safetensors, config, tokenizer, template, generation config and a model card."""

import shutil
from pathlib import Path
from typing import Any

import jinja2

_CARD = """\
---
license: {{ licence_tag }}
library_name: transformers
pipeline_tag: text-generation
base_model_relation: finetune
tags: [distillation, tutelage]
distillation:
  teacher: {{ teacher | tojson }}
  teacher_licence: {{ licence | tojson }}
  terms_verdict: {{ verdict | tojson }}
  method: forward KL on the teacher's top log-probabilities, tail mass kept
  record: provenance/
---

# {{ name }}

A student of **{{ teacher }}** with {{ layers }} of the {{ base_layers }} decoder layers of {{ base }}, {{ parameters }}
parameters, distilled with tutelage. It answers one question in one word: {{ labels | join(", ") }}. The teacher's
instruction and examples are not part of its prompt; they are baked into the weights.

## How to ask it

One user message: `{{ question }}` with the text in place of `{text}`. The folder's own chat template adds no system
message. Serve it with `tutelage serve RUN`, or load it with transformers.

## Where it comes from

- Training examples: {{ examples }} questions answered by the teacher; loss tokens: {{ loss_tokens }}.
- Starting weights: {{ base }} ({{ base_licence }}), first {{ layers }} layers.
- Terms: {{ verdict }} for the purpose "{{ purpose }}" ({{ clause }}, {{ source }}).
- The base and the teacher do not say which models' output they were trained on: upstream is unknown, not zero.

How good it is, with intervals, is in the run's `evidence.json` and `report.html`; `tutelage verify RUN` checks the
record against these very weights.
"""


def ship(trained: Any, tokenizer_folder: Path, card: dict[str, Any], out: Path) -> None:
    """Writes the folder whole: built beside and renamed. `trained` is the model with its final weights."""
    scratch = out.with_name(out.name + ".new")
    shutil.rmtree(scratch, ignore_errors=True)
    trained.save_pretrained(scratch)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        if (tokenizer_folder / name).exists():
            shutil.copyfile(tokenizer_folder / name, scratch / name)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    (scratch / "README.md").write_text(environment.from_string(_CARD).render(card), encoding="utf-8")
    for path in scratch.iterdir():
        path.chmod(0o644)
    shutil.rmtree(out, ignore_errors=True)
    scratch.rename(out)
