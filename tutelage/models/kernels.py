"""Parts of a transformer computed in fewer passes over memory, in place of the modules' own, with the same results.

On a CPU a training step is matrix products and, beside them, many small passes that each read and write every activation.
Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv 1910.07467, eq. 4) is a third of those passes as it is usually
written. A module is taken over only if its own output on random input is reproduced.
"""

from typing import Any

import torch


class _RMSNorm(torch.autograd.Function):
    """y = w · x / √(mean(x²) + ε), computed in float32 at least."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:  # pyrefly: ignore
        exact = x if x.dtype == torch.float64 else x.float()
        inverse = exact.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (exact * inverse).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # pyrefly: ignore
        x, weight, inverse = ctx.saved_tensors
        exact = x.to(inverse.dtype)
        gradient = gradient.to(inverse.dtype)
        unit = exact * inverse
        by_weight = None
        if ctx.needs_input_grad[1]:
            by_weight = (gradient * unit).flatten(0, -2).sum(0).to(weight.dtype)
        weighted = gradient * weight
        mean = torch.linalg.vecdot(weighted, unit).unsqueeze(-1).div_(x.shape[-1])
        by_x = weighted.addcmul_(unit, mean, value=-1).mul_(inverse)
        return by_x.to(x.dtype), by_weight, None


class _Embedding(torch.autograd.Function):
    """A look-up whose gradient is added to the rows of `weight.grad` that were used, instead of a table of zeros."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:  # pyrefly: ignore
        ctx.weight, ctx.ids = weight, ids
        return torch.nn.functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # pyrefly: ignore
        weight = ctx.weight
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        rows = gradient.reshape(-1, gradient.shape[-1]).to(weight.dtype)
        weight.grad.index_add_(0, ctx.ids.reshape(-1), rows)
        return None, None


def economical(model: torch.nn.Module) -> int:
    """Takes over what can be; returns how many modules were."""
    taken = 0
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and isinstance(
            getattr(module, "weight", None), torch.nn.Parameter
        ):
            taken += _take_norm(module)
        elif type(module) is torch.nn.Embedding and module.max_norm is None and not module.scale_grad_by_freq:
            module.forward = _embedding(module)  # pyrefly: ignore
            taken += 1
    return taken


def _embedding(module: torch.nn.Embedding) -> Any:
    padding = module.padding_idx

    def forward(ids: torch.Tensor) -> torch.Tensor:
        if padding is None and torch.is_grad_enabled() and module.weight.requires_grad:
            return _Embedding.apply(module.weight, ids)
        return torch.nn.functional.embedding(ids, module.weight, padding)

    return forward


def _take_norm(module: Any) -> int:
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(epsilon, float):
        return 0
    weight = module.weight

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        return _RMSNorm.apply(hidden, module.weight, epsilon)

    trial = torch.linspace(-2, 3, 2 * weight.shape[0], device=weight.device).reshape(2, -1).to(weight.dtype)
    with torch.no_grad():
        same = torch.allclose(module(trial).float(), forward(trial).float(), rtol=1e-5, atol=1e-5)
    if same:
        module.forward = forward
    return int(same)
