"""Cutting layers, channels, neurons and heads, held against the whole model with the same parts silenced."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.students import student
from tutelage.errors import ConfigError
from tutelage.train.prune import Cut, choose_cut, importance, narrowed, require_llama_like

DOCUMENTS = [
    tuple(torch.randint(0, 61, (20,), generator=torch.Generator().manual_seed(at)).tolist()) for at in range(3)
]
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}
DEPTH: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "qwen2": {
        "layer_types": ["full_attention", "sliding_attention"] * 2,
        "use_sliding_window": True,
        "sliding_window": 4,
    },
    "qwen3": {},
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "smollm3": {"no_rope_layers": [1, 1, 1, 0]},
    "olmo2": {"num_key_value_heads": 4},
    "granite": {"logits_scaling": 2.0},
    "cohere": {},
    "stablelm": {},
}


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=torch.tensor([DOCUMENTS[0]]), use_cache=False).logits[0]


def keeping(model: Any, **kept: Any) -> Cut:
    config = model.config
    layers = kept.get("layers", tuple(range(config.num_hidden_layers)))
    hidden = kept.get("hidden", range(config.hidden_size))
    neurons = kept.get("neurons", [range(config.intermediate_size)] * len(layers))
    groups = kept.get("groups", [range(config.num_key_value_heads)] * len(layers))
    return Cut(
        layers, torch.tensor(list(hidden)), *(tuple(torch.tensor(list(p)) for p in part) for part in (neurons, groups))
    )


@pytest.mark.parametrize("family", DEPTH)
def test_layers_that_stay_do_as_they_did(family: str) -> None:
    """The last two and the first of four, against the four with the second passed by: each keeps the kind it had."""
    model = student(family, num_hidden_layers=4, **DEPTH[family])
    shorter = narrowed(model, keeping(model, layers=(0, 2, 3)))
    model.model.layers[1].register_forward_hook(
        lambda module, given, made: (given[0], *made[1:]) if isinstance(made, tuple) else given[0]
    )
    assert shorter.config.num_hidden_layers == 3
    assert torch.allclose(logits(shorter), logits(model), atol=1e-5)


@settings(max_examples=12, deadline=None)
@given(data=st.data(), family=st.sampled_from(("llama", "qwen3", "gemma2")))
def test_any_neurons_and_heads_cut_are_as_if_they_said_nothing(data: st.DataObject, family: str) -> None:
    model = student(family, intermediate_size=12, **(GEMMA if family == "gemma2" else {}))
    count = data.draw(st.integers(1, 12))
    neurons = [sorted(data.draw(st.permutations(range(12)))[:count]) for _ in range(2)]
    groups = [[data.draw(st.integers(0, 1))] for _ in range(2)]
    smaller = narrowed(model, keeping(model, neurons=neurons, groups=groups))
    silent = copy.deepcopy(model)
    with torch.no_grad():
        for layer, stay, (group,) in zip(silent.model.layers, neurons, groups, strict=True):
            layer.mlp.down_proj.weight[:, [at for at in range(12) if at not in stay]] = 0
            layer.self_attn.o_proj.weight.unflatten(1, (2, -1))[:, 1 - group] = 0
    # in float64, since a norm behind one neuron alone blows up rounding
    assert torch.allclose(logits(smaller.double()), logits(silent.double()), atol=1e-5)


@pytest.mark.parametrize(
    ("family", "changes"),
    [("llama", {"rms_norm_eps": 0.5}), ("olmo2", {"num_key_value_heads": 4}), ("smollm3", {}), ("qwen3", {})],
)
def test_channels_that_are_always_0_go_without_a_trace(family: str, changes: dict[str, Any]) -> None:
    """In families that norm queries and keys as well, alone or all heads together: those norms stay as they are."""
    model, dead = student(family, **changes), [11, 30, 40, 50]
    with torch.no_grad():
        model.model.embed_tokens.weight[:, dead] = 0
        for layer in model.model.layers:
            for projection in (layer.mlp.down_proj, layer.self_attn.o_proj):
                projection.weight[dead] = 0
    smaller = narrowed(model, keeping(model, hidden=[at for at in range(64) if at not in dead]))
    assert smaller.config.hidden_size == 60
    assert torch.allclose(logits(smaller), logits(model), atol=1e-4)


def test_importance_is_the_mean_over_tokens_and_the_norm_over_documents() -> None:
    """Against plain loops over what each part received (Minitron, §3.1; ShortGPT, eq. 1)."""
    model = student("llama")
    found = importance(model, DOCUMENTS)
    layer, seen = model.model.layers[0], dict[str, list[list[list[float]]]](down=[], o=[], before=[], after=[])
    hooks = [
        layer.mlp.down_proj.register_forward_pre_hook(lambda _, given: seen["down"].append(given[0][0].tolist())),
        layer.self_attn.o_proj.register_forward_pre_hook(lambda _, given: seen["o"].append(given[0][0].tolist())),
        layer.register_forward_pre_hook(lambda _, given: seen["before"].append(given[0][0].tolist())),
        model.model.layers[1].register_forward_pre_hook(lambda _, given: seen["after"].append(given[0][0].tolist())),
    ]
    with torch.no_grad():
        for document in DOCUMENTS:
            model.model(input_ids=torch.tensor([document]), use_cache=False)
    for hook in hooks:
        hook.remove()

    def over_documents(means: Sequence[float]) -> float:
        return math.sqrt(sum(mean**2 for mean in means))

    neuron = over_documents([sum(abs(row[7]) for row in rows) / len(rows) for rows in seen["down"]])
    heads = [
        over_documents(
            [sum(math.hypot(*row[16 * head : 16 * head + 16]) for row in rows) / len(rows) for rows in seen["o"]]
        )
        for head in (2, 3)
    ]
    turns = [
        1 - sum(x * y for x, y in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))
        for rows, others in zip(seen["before"], seen["after"], strict=True)
        for one, other in zip(rows, others, strict=True)
    ]
    assert found.neurons_LI[0, 7] == pytest.approx(neuron, rel=1e-5)
    assert found.groups_LG[0, 1] == pytest.approx(math.hypot(*heads), rel=1e-5)
    assert found.blocks_L[0] == pytest.approx(sum(turns) / len(turns), rel=1e-4)


def test_calibration_text_is_read_as_far_as_the_context_reaches() -> None:
    model = student("llama", max_position_embeddings=16)
    long = importance(model, DOCUMENTS)
    cut = importance(model, [document[:16] for document in DOCUMENTS])
    assert torch.equal(long.neurons_LI, cut.neurons_LI)


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        (
            "helium",
            {"head_dim": 32},
            r"HeliumForCausalLM has a parameter model\.layers\.0\.self_attn\.o_proj\.weight \(64, 64\)",
        ),
        ("phi3", {}, r"Phi3ForCausalLM has a parameter model\.layers\.0\.self_attn\.qkv_proj\.weight"),
        ("glm4", {}, r"Glm4ForCausalLM has a parameter model\.layers\.0\.mlp\.gate_up_proj\.weight"),
        (
            "qwen2_moe",
            {"mlp_only_layers": [0], "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8},
            r"Qwen2MoeForCausalLM has a parameter model\.layers\.1\.mlp\.",
        ),
    ],
)
def test_other_layouts_are_refused_by_name(family: str, changes: dict[str, Any], named: str) -> None:
    """Parts fused into one matrix, and layers that differ from the first."""
    with pytest.raises(ConfigError, match=named):
        require_llama_like(student(family, **changes), "pruning")


def test_heads_normed_together_are_not_cut() -> None:
    model = student("olmo2", num_key_value_heads=4)
    with pytest.raises(ConfigError, match="norms all its heads together"):
        narrowed(model, choose_cut(model, importance(model, DOCUMENTS), (0, 1), None, None, 2))


def test_whether_channels_fit_on_heads_is_the_familys_own_rule() -> None:
    llama, qwen = student("llama"), student("qwen3")
    with pytest.raises(ConfigError, match=r"LlamaConfig takes no hidden_size = 62.*not a multiple"):
        choose_cut(llama, importance(llama, DOCUMENTS), (0, 1), 62, None, None)
    cut = choose_cut(qwen, importance(qwen, DOCUMENTS), (0, 1), 62, None, None)
    assert narrowed(qwen, cut).config.hidden_size == 62
