"""Cutting a smaller model out of a larger one: layers in depth; hidden channels, neurons and heads in width.

What goes is chosen by how much it does on calibration text (Muralidharan et al. 2024, Minitron, arXiv 2407.14679, §3.1:
activations, mean over a sequence's tokens, L2 over sequences); layers by how little they turn the hidden state (Men et al.
2024, ShortGPT, arXiv 2403.03853, eq. 1: 1 − cosine similarity of a block's input and output). Legend: L layers, D hidden
channels, I neurons, H heads, G groups of heads that share keys and values, E width of a head, T tokens.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError

from tutelage.errors import ConfigError

_OUTSIDE = ("model.embed_tokens.weight", "model.norm.weight", "model.norm.bias", "lm_head.weight", "lm_head.bias")
_HEAD_NORMS = ("q_norm", "k_norm")


class Importance(NamedTuple):
    """How much each part does: `blocks_L` in 0 to 2, the others in the units of activations."""

    blocks_L: torch.Tensor
    hidden_D: torch.Tensor
    neurons_LI: torch.Tensor
    groups_LG: torch.Tensor


class Cut(NamedTuple):
    """What is kept, ascending: layers; hidden channels; per kept layer neurons and groups of heads."""

    layers: tuple[int, ...]
    hidden: torch.Tensor
    neurons: tuple[torch.Tensor, ...]
    groups: tuple[torch.Tensor, ...]


def require_llama_like(model: Any, what: str) -> None:
    """Raises `ConfigError` when a model is not laid out as the cuts need it: naming the parameter that is unknown.

    Every layer is looked at, since later layers may differ from the first (experts after dense ones), and every shape, since
    parts that are one matrix in some families (queries and their gates, gate and up) go by the same name.
    """
    layers = getattr(getattr(model, "model", None), "layers", None)
    name = type(model).__name__
    fix = 'start from a Llama-like model, or use init = "whole" or "random"'
    if not isinstance(layers, torch.nn.ModuleList) or not hasattr(model, "lm_head"):
        raise ConfigError(f"{name} has no model.layers and lm_head: {what} is not known for it", fix=fix)
    shapes = _shapes(model.config)
    for key, value in model.named_parameters():
        part, kind = key.rsplit(".", 2)[-2:]
        shape = tuple(value.shape)
        if not key.startswith("model.layers."):
            known = key in _OUTSIDE
        elif part in shapes:
            known = shape == (shapes[part] if kind == "weight" else shapes[part][:1])
        elif part in _HEAD_NORMS:
            known = shape in ((head_width(model.config),), shapes[part[0] + "_proj"][:1])
        else:
            known = part.endswith("norm") and shape == (model.config.hidden_size,)
        if not known:
            raise ConfigError(f"{name} has a parameter {key} {shape}: {what} is not known for it", fix=fix)


def _shapes(config: Any) -> dict[str, tuple[int, int]]:
    """Rows and columns of a layer's matrices."""
    if not all(hasattr(config, name) for name in ("num_key_value_heads", "intermediate_size")):
        return {}
    head, wide, neurons = head_width(config), config.hidden_size, config.intermediate_size
    queries, shared = config.num_attention_heads * head, config.num_key_value_heads * head
    return {
        "q_proj": (queries, wide), "k_proj": (shared, wide), "v_proj": (shared, wide), "o_proj": (wide, queries),
        "gate_proj": (neurons, wide), "up_proj": (neurons, wide), "down_proj": (wide, neurons),
    }  # fmt: skip


def head_width(config: Any) -> int:
    """E of a configuration, said or worked out."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def resized(config: Any, sizes: Mapping[str, int], layers: Sequence[int] | None = None) -> Any:
    """A configuration with other sizes; what it lists layer by layer (kinds of attention, which layers rotate) follows the
    `layers` that are kept, or is repeated as often as it takes. Raises `ConfigError` for sizes the family does not allow."""
    settings = config.to_dict() | dict(sizes)
    settings.pop("quantization_config", None)
    count, base = settings["num_hidden_layers"], config.num_hidden_layers
    for key, value in settings.items():
        if "layer" in key and isinstance(value, list) and len(value) == base:
            settings[key] = [value[at % base] for at in (range(count) if layers is None else layers)]
    try:
        return type(config).from_dict(settings)
    except StrictDataclassError as error:
        said = ", ".join(f"{name} = {value}" for name, value in sizes.items())
        raise ConfigError(
            f"{type(config).__name__} takes no {said}: {str(error).splitlines()[-1].strip()}",
            fix="choose a hidden size that is a multiple of the heads",
        ) from error


@torch.no_grad()
def importance(model: Any, documents: Sequence[Sequence[int]]) -> Importance:
    """Over calibration documents of token ids, each as far as the model's context reaches. Raises `ConfigError` without any."""
    require_llama_like(model, "importance")
    if not documents:
        raise ConfigError("no calibration text to judge importance by", fix="give some of the training text")
    config, layers = model.config, model.model.layers
    groups, head = config.num_key_value_heads, head_width(config)
    limit = getattr(config, "max_position_embeddings", None)
    blocks_L = torch.zeros(len(layers))
    hidden_D = torch.zeros(config.hidden_size)
    neurons_LI = torch.zeros(len(layers), config.intermediate_size)
    groups_LG = torch.zeros(len(layers), groups)

    def neurons(at: int) -> Any:
        def hook(module: Any, given: tuple[torch.Tensor, ...]) -> None:
            neurons_LI[at] += given[0][0].abs().mean(0).square()

        return hook

    def heads(at: int) -> Any:
        def hook(module: Any, given: tuple[torch.Tensor, ...]) -> None:
            norms_TH = given[0][0].unflatten(-1, (-1, head)).norm(dim=-1)
            groups_LG[at] += norms_TH.mean(0).square().unflatten(0, (groups, -1)).sum(-1)

        return hook

    def block(at: int) -> Any:
        def hook(module: Any, given: tuple[torch.Tensor, ...], named: Any, made: Any) -> None:
            before_TD, after_TD = given[0][0], (made[0] if isinstance(made, tuple) else made)[0]
            blocks_L[at] += 1 - torch.cosine_similarity(before_TD, after_TD, dim=-1).mean()

        return hook

    def channels(module: Any, given: Any, made: torch.Tensor) -> None:
        if made.shape[-1] == config.hidden_size:
            hidden_D.add_(made[0].abs().mean(0).square())

    training = model.training
    model.eval()
    with ExitStack() as hooks:
        for at, layer in enumerate(layers):
            hooks.callback(layer.mlp.down_proj.register_forward_pre_hook(neurons(at)).remove)
            hooks.callback(layer.self_attn.o_proj.register_forward_pre_hook(heads(at)).remove)
            hooks.callback(layer.register_forward_hook(block(at), with_kwargs=True).remove)
        for module in model.modules():
            if type(module).__name__.endswith("Norm"):
                hooks.callback(module.register_forward_hook(channels).remove)
        for document in documents:
            model.model(input_ids=torch.tensor([list(document)[:limit]]), use_cache=False)
    model.train(training)
    return Importance(blocks_L / len(documents), hidden_D.sqrt(), neurons_LI.sqrt(), groups_LG.sqrt())


def choose_layers(base: int, count: int, keep: str, blocks_L: torch.Tensor | None = None) -> tuple[int, ...]:
    """Which `count` of `base` layers stay: the "first", "even"ly spaced (the first and the last among them), or those of most
    "importance". Raises `ConfigError`."""
    if not 1 <= count <= base:
        raise ConfigError(f"{count} layers of a model that has {base}", fix=f"choose from 1 to {base}")
    if keep == "first":
        return tuple(range(count))
    if keep == "even":
        return tuple(round(at * (base - 1) / max(1, count - 1)) for at in range(count))
    if keep != "importance" or blocks_L is None:
        raise ConfigError(f"keep = {keep!r}", fix='use "first", "even", or "importance" with calibration text')
    return tuple(sorted(blocks_L.topk(count).indices.tolist()))


def choose_cut(
    model: Any, found: Importance, layers: tuple[int, ...], hidden: int | None, neurons: int | None, heads: int | None
) -> Cut:
    """The most important channels, neurons and groups; None keeps all. Raises `ConfigError` for sizes that do not fit."""
    config = model.config
    shared = config.num_attention_heads // config.num_key_value_heads
    if heads is not None and (heads % shared or not 0 < heads <= config.num_attention_heads):
        raise ConfigError(
            f"{heads} heads, of {config.num_attention_heads} in groups of {shared} that share keys and values",
            fix=f"choose a multiple of {shared} up to {config.num_attention_heads}",
        )
    for name, wanted, most in (("hidden", hidden, config.hidden_size), ("neurons", neurons, config.intermediate_size)):
        if wanted is not None and not 0 < wanted <= most:
            raise ConfigError(f"{name} = {wanted} of a model that has {most}", fix=f"choose from 1 to {most}")
    if hidden is not None or heads is not None:
        resized(
            config,
            {"hidden_size": hidden or config.hidden_size, "num_attention_heads": heads or config.num_attention_heads},
        )

    def best(scores: torch.Tensor, count: int | None) -> torch.Tensor:
        return scores.topk(count or len(scores)).indices.sort().values

    groups = None if heads is None else heads // shared
    return Cut(
        layers,
        best(found.hidden_D, hidden),
        tuple(best(found.neurons_LI[at], neurons) for at in layers),
        tuple(best(found.groups_LG[at], groups) for at in layers),
    )


@torch.no_grad()
def narrowed(model: Any, cut: Cut) -> Any:
    """A new model of the same class that has what `cut` keeps. Raises `ConfigError` for what its family cannot lose.

    Root-mean-square norms divide by the number of channels: their weights and ε are scaled for the fewer ones, so that
    a channel that was always 0 may go without any change. Norms of heads get that ε too, which their squares outweigh.
    """
    require_llama_like(model, "pruning")
    old, name = model.config, type(model).__name__
    wide, fewer = old.hidden_size, len(cut.hidden)
    if fewer < wide and not (hasattr(old, "rms_norm_eps") and _plain_norm(model.model.norm)):
        raise ConfigError(
            f"{name} norms its hidden state in a way of its own: its hidden channels are not cut",
            fix="leave student.hidden unset, and cut layers, neurons or heads",
        )
    if len(cut.groups[0]) < old.num_key_value_heads and _norms_all_heads(model):
        raise ConfigError(
            f"{name} norms all its heads together: none of them is cut",
            fix="leave student.heads unset, and cut layers, channels or neurons",
        )
    sizes = {
        "num_hidden_layers": len(cut.layers),
        "hidden_size": fewer,
        "intermediate_size": len(cut.neurons[0]),
        "num_key_value_heads": len(cut.groups[0]),
        "num_attention_heads": len(cut.groups[0]) * (old.num_attention_heads // old.num_key_value_heads),
        "head_dim": head_width(old),
    }
    config = resized(old, sizes, cut.layers)
    if fewer < wide:
        config.rms_norm_eps = old.rms_norm_eps * wide / fewer
    new = type(model)(config)
    try:
        missing, unknown = new.load_state_dict(_kept(model, cut), strict=False)
    except RuntimeError as error:
        raise ConfigError(
            f"{name} works out its shapes in a way that is not known here: {str(error).splitlines()[-1].strip()}",
            fix="cut layers alone, or start from a Llama-like model",
        ) from error
    assert not unknown and all("inv_freq" in name for name in missing), (missing, unknown)
    new.generation_config = model.generation_config
    return new.train(model.training)


def _norms_all_heads(model: Any) -> bool:
    """Whether queries or keys are normed across heads, so that every head depends on the others."""
    head = head_width(model.config)
    return any(
        key.rsplit(".", 2)[-2] in _HEAD_NORMS and len(value) != head
        for key, value in model.model.layers.named_parameters()
    )


def _kept(model: Any, cut: Cut) -> dict[str, torch.Tensor]:
    """The parameters of the smaller model."""
    config, head = model.config, head_width(model.config)
    shared = config.num_attention_heads // config.num_key_value_heads
    scale = (config.hidden_size / len(cut.hidden)) ** 0.5
    kept = dict[str, torch.Tensor]()
    for key, value in model.named_parameters(remove_duplicate=False):
        if key.startswith("model.layers."):
            continue
        norm = key.startswith("model.norm.")
        kept[key] = value[cut.hidden] * scale if norm else value[:, cut.hidden] if value.ndim == 2 else value
    for place, at in enumerate(cut.layers):
        for key, value in model.model.layers[at].named_parameters():
            part = _sliced(key, value, cut.hidden, cut.neurons[place], cut.groups[place], head, shared)
            name = key.rsplit(".", 2)[-2]
            norm = name.endswith("norm") and name not in _HEAD_NORMS
            kept[f"model.layers.{place}.{key}"] = part * scale if norm else part
    return kept


def _sliced(
    key: str,
    value: torch.Tensor,
    hidden: torch.Tensor,
    neurons: torch.Tensor,
    groups: torch.Tensor,
    head: int,
    shared: int,
) -> torch.Tensor:
    """The part of one of a layer's parameters that stays."""
    name, kind = key.rsplit(".", 2)[-2:]
    heads = (groups[:, None] * shared + torch.arange(shared)).flatten()
    rows = {
        "q_proj": _spread(heads, head), "k_proj": _spread(groups, head), "v_proj": _spread(groups, head), "o_proj": hidden,
        "gate_proj": neurons, "up_proj": neurons, "down_proj": hidden,
    }  # fmt: skip
    columns = {"o_proj": _spread(heads, head), "down_proj": neurons}
    if name not in rows:
        return value if name in _HEAD_NORMS else value[hidden]
    return value[rows[name]] if kind == "bias" else value[rows[name]][:, columns.get(name, hidden)]


def _spread(groups: torch.Tensor, width: int) -> torch.Tensor:
    """Rows of these blocks of `width` rows each."""
    return (groups[:, None] * width + torch.arange(width)).flatten()


def _plain_norm(module: Any) -> bool:
    """Whether a norm is x · w / √(mean(x²) + ε) and nothing else."""
    weight = getattr(module, "weight", None)
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if weight is None or epsilon is None or getattr(module, "bias", None) is not None:
        return False
    trial = torch.linspace(-2, 3, len(weight))
    return torch.allclose(
        module(trial), trial * weight / (trial.square().mean() + epsilon).sqrt(), rtol=1e-5, atol=1e-6
    )
