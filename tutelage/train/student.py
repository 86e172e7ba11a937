"""Making the student: the base model cut in depth to its first layers, with its tokenizer and a template of its own."""

import contextlib
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tutelage.errors import ConfigError, ResourceError
from tutelage.jsonl import writing
from tutelage.models.gguf import no_collection
from tutelage.models.layers import layer_count
from tutelage.models.quiet import quiet_transformers

# Text and end of turn for every message, in turns that need no names: a label question costs two tokens of frame.
# The first token stays the base's start token, which its attention is used to finding there.
TEMPLATE = "{{ start }}{% for message in messages %}{{ message['content'] + end }}{% endfor %}"


def make_student(source: Path, layers: int, template: str | None, labels: Sequence[str], out: Path) -> dict[str, Any]:
    """Writes a Hugging Face folder (safetensors float32) with the first `layers` decoder layers; returns facts.

    `source` is a GGUF file, which is de-quantised, or a Hugging Face folder. Layers are dropped from the end: the first
    ones keep reading what they were trained to read. Raises `ConfigError` when the base has fewer layers, when two of the
    labels begin with the same token, or when its parts are not laid out as we know them.
    """
    require_layers(source, layers)
    with quiet_transformers(), no_collection():
        base, tokenizer = _load_base(source)
        base_layers = base.config.num_hidden_layers
        _require_at_most(layers, base_layers, source)
        settings: dict[str, Any] = {**base.config.to_dict(), "num_hidden_layers": layers}
        if settings.get("layer_types"):
            settings["layer_types"] = settings["layer_types"][:layers]
        config = type(base.config).from_dict(settings)
        if hasattr(config, "quantization_config"):
            del config.quantization_config  # a de-quantised copy; transformers refuses to save it otherwise
        student = type(base)(config)
        names = set(student.state_dict())
        student.load_state_dict({name: value for name, value in base.state_dict().items() if name in names})
        student.generation_config = base.generation_config
        _require_known_layout(student, tokenizer, labels)
        tokenizer.chat_template = template or _own_template(tokenizer)
        base_parameters = sum(parameter.numel() for parameter in base.parameters())
        shutil.rmtree(out, ignore_errors=True)
        with writing(out):
            student.save_pretrained(out)
            tokenizer.save_pretrained(out)
    return {
        "base_layers": base_layers,
        "layers": layers,
        "base_parameters": base_parameters,
        "parameters": sum(parameter.numel() for parameter in student.parameters()),
    }


def require_layers(source: Path, layers: int) -> None:
    """Raises `ConfigError` when a base says, before its weights are read, that it has fewer layers."""
    if (found := layer_count(source)) is not None:
        _require_at_most(layers, found, source)


def _require_at_most(layers: int, base_layers: int, source: Path) -> None:
    if layers > base_layers:
        raise ConfigError(
            f"student.layers = {layers}, but {source.name} has {base_layers}", fix=f"choose at most {base_layers}"
        )


def load_base(source: Path) -> tuple[Any, Any]:
    """Model (float32) and tokenizer of a GGUF file, which is de-quantised, or of a Hugging Face folder of safetensors; no code
    of the folder's is run.

    A de-quantised model is copied into a fresh one, since transformers refuses to save it otherwise. Raises `ResourceError`
    when it cannot be read.
    """
    with quiet_transformers(), no_collection():
        base, tokenizer = _load_base(source)
        if source.is_file():
            config = type(base.config).from_dict(base.config.to_dict())
            if hasattr(config, "quantization_config"):
                del config.quantization_config
            fresh = type(base)(config)
            fresh.load_state_dict(base.state_dict())
            fresh.generation_config = base.generation_config
            base = fresh
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token  # padding is masked by length, never by id
    return base, tokenizer


def _load_base(source: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder, chosen = source, dict[str, Any]()
    if source.is_file():
        folder, chosen = source.parent, dict[str, Any](gguf_file=source.name)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **chosen)
        if chosen:
            chosen["quantization_config"] = GgufConfig(dequantize=True)
        else:
            chosen["use_safetensors"] = True
        with contextlib.redirect_stderr(io.StringIO()):  # de-quantising shows a bar whatever the settings
            base = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, **chosen
            )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ResourceError(
            f"{source} cannot be loaded: {error}",
            fix="give a GGUF file, or a Hugging Face folder with tokenizer and safetensors",
        ) from error
    return base, tokenizer


def _require_known_layout(student: Any, tokenizer: Any, labels: Sequence[str]) -> None:
    if not hasattr(student, "model") or not hasattr(student, "lm_head") or tokenizer.eos_token_id is None:
        raise ConfigError(
            f"{type(student).__name__} is no decoder with a body, a head and an end token",
            fix="start from a Llama-like causal language model",
        )
    firsts = [tokenizer(label, add_special_tokens=False)["input_ids"][:1] for label in labels]
    for at, first in enumerate(firsts):
        if not first or first in firsts[:at]:
            other = labels[firsts.index(first)]
            raise ConfigError(
                f"labels {other!r} and {labels[at]!r} begin with the same token for this student",
                fix="rename the labels so that their first tokens differ",
            )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked by length, never by id


def _own_template(tokenizer: Any) -> str:
    start = tokenizer.bos_token or ""
    return TEMPLATE.replace("{{ start }}", start).replace("end }}", f"'{tokenizer.eos_token}' }}}}")


def load_student(folder: Path, weights: Path | None = None) -> tuple[Any, Any]:
    """Model (float32, without dropout) and tokenizer of a student folder, with other trained weights put in when given."""
    with quiet_transformers():
        import torch
        from safetensors.torch import load_file
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from tutelage.models.causal import without_dropout

        model = without_dropout(
            AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
            )
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if weights is not None:
        own = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in load_file(weights).items():
                own[name].copy_(value)
    return model, tokenizer
