"""Adapters where they may be placed, and as files."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from tests.train.students import student
from tutelage.errors import ConfigError, ResourceError
from tutelage.train.lora import TARGETS, add_lora, load_lora, merge, save_lora


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=torch.arange(20)[None], use_cache=False).logits[0]


@torch.no_grad()
def trained(model: Any, targets: tuple[str, ...] = ("q_proj", "down_proj")) -> Any:
    """Adapters that do something."""
    adapted = add_lora(model, 2, 4.0, targets)
    draw = torch.Generator().manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draw))
    return adapted.eval()


@pytest.mark.parametrize(
    ("targets", "alpha", "message"),
    [
        (("embed_tokens",), 4.0, "takes no adapter on embed_tokens"),
        (("q_proj", "mlp"), 4.0, "takes no adapter on mlp"),
        ((), 4.0, "takes no adapter on nothing"),
        (("q_proj",), 0.0, "alpha = 0.0"),
        (("q_proj",), float("nan"), "alpha = nan"),
    ],
)
def test_adapters_go_on_linear_layers_and_do_something(targets: tuple[str, ...], alpha: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        add_lora(student("llama"), 2, alpha, targets)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_trap_f6_transposed_layers_and_tied_heads_merge_without_loss() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model("gpt2", n_embd=16, n_layer=2, n_head=2, vocab_size=61, initializer_range=0.3)
        gpt2 = AutoModelForCausalLM.from_config(config).eval()
    for model, targets in ((gpt2, ("c_attn",)), (student("gemma", head_dim=16), ("o_proj", "up_proj"))):
        before = logits(model)
        adapted = trained(model, targets)
        changed = logits(adapted)
        assert not torch.allclose(changed, before, atol=1e-2)
        plain = merge(adapted)
        assert torch.allclose(logits(plain), changed, atol=1e-4)
        assert plain.get_output_embeddings().weight is plain.get_input_embeddings().weight


def test_the_files_say_nothing_of_the_base_and_ask_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **_: asked.append(given) or [])
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    model = student("llama")
    model.name_or_path = model.config._name_or_path = "somebody/elsewhere"
    adapted = trained(model, TARGETS)
    for name in ("one", "two"):
        save_lora(adapted, tmp_path / name)
    assert asked == []
    files = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert set(files) == {"adapter_model.safetensors", "adapter_config.json"}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}
    assert b"elsewhere" not in b"".join(files.values())
    assert json.loads(files["adapter_config.json"])["target_modules"] == sorted(TARGETS)
    again = load_lora(student("llama"), tmp_path / "one")
    assert torch.equal(logits(again.eval()), logits(adapted))
    assert any(parameter.requires_grad for parameter in again.parameters())


def test_a_pickle_in_the_place_of_safetensors_is_not_read(tmp_path: Path) -> None:
    save_lora(trained(student("llama")), tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    torch.save(load_file(weights), tmp_path / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(ResourceError, match=r"has no adapter_model\.safetensors"):
        load_lora(student("llama"), tmp_path)


@pytest.mark.parametrize("other", [{"hidden_size": 32}, {"num_hidden_layers": 3}, {"num_hidden_layers": 1}])
def test_adapters_of_another_model_are_refused_and_leave_it_alone(tmp_path: Path, other: dict[str, int]) -> None:
    save_lora(trained(student("llama")), tmp_path)
    model = student("llama", **other)
    before, names = logits(model), set(model.state_dict())
    with pytest.raises(ResourceError, match="holds no adapters for this LlamaForCausalLM"):
        load_lora(model, tmp_path)
    assert torch.equal(logits(model), before) and set(model.state_dict()) == names


def test_damaged_adapters_are_refused(tmp_path: Path) -> None:
    save_lora(trained(student("llama")), tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\x08")
    with pytest.raises(ResourceError, match="holds no adapters"):
        load_lora(student("llama"), tmp_path)
