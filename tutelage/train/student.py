"""Making the student: the base model cut in depth to its first layers, with its tokenizer and a template of its own."""

import contextlib
import shutil
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def make_student(gguf: Path, layers: int, template: str | None, out: Path) -> dict[str, Any]:
    """Writes a Hugging Face folder (safetensors float32) with the first `layers` decoder layers; returns facts.

    The GGUF weights are de-quantised. Layers are dropped from the end: the first layers keep reading what they were
    trained to read. Raises `ConfigError` when the base has fewer layers.
    """
    with _quiet_transformers():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        base = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        base_layers = base.config.num_hidden_layers
        if layers > base_layers:
            raise ConfigError(
                f"student.layers = {layers}, but {gguf.name} has {base_layers}", fix=f"choose at most {base_layers}"
            )
        config = type(base.config).from_dict({**base.config.to_dict(), "num_hidden_layers": layers})
        if hasattr(config, "quantization_config"):
            del config.quantization_config  # a de-quantised copy; transformers refuses to save it otherwise
        student = type(base)(config)
        kept = {name: value for name, value in base.state_dict().items() if name in student.state_dict()}
        student.load_state_dict(kept)
        tokenizer.chat_template = template or CHATML
        base_parameters = sum(parameter.numel() for parameter in base.parameters())
        shutil.rmtree(out, ignore_errors=True)
        student.save_pretrained(out)
        tokenizer.save_pretrained(out)
    return {
        "base_layers": base_layers,
        "layers": layers,
        "base_parameters": base_parameters,
        "parameters": sum(parameter.numel() for parameter in student.parameters()),
    }


@contextlib.contextmanager
def _quiet_transformers() -> Any:
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()


def load_student(folder: Path, weights: Path | None = None) -> tuple[Any, Any]:
    """Model (float32) and tokenizer of a student folder, with other trained weights put in when given."""
    with _quiet_transformers():
        import torch
        from safetensors.torch import load_file
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if weights is not None:
        own = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in load_file(weights).items():
                own[name].copy_(value)
    return model, tokenizer
