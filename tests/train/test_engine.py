"""Packing, the fused modules, the chunked head and memory: each against the plain way of computing the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from tests.train.conftest import data, school
from tests.train.students import student as small_student
from tutelage.config import TrainTable
from tutelage.errors import ConfigError, ResourceError, SignalError
from tutelage.hardware import free_memory
from tutelage.losses.base import Loss
from tutelage.losses.catalogue import make
from tutelage.losses.chunked import Part, head_gradients, values
from tutelage.losses.supervised import cross_entropy
from tutelage.losses.topk import forward_kl_top_k
from tutelage.models.causal import Causal
from tutelage.models.kernels import economical
from tutelage.signals import Head, Hidden, Text, TopK
from tutelage.train import memory
from tutelage.train.batch import split, starts
from tutelage.train.memory import Fit, is_out_of_memory, kept_bytes, kept_room, room_in, room_tokens

TEXT = Loss("cross-entropy", Text, cross_entropy)
TOP_K = Loss("top-k-forward-kl", TopK, forward_kl_top_k)
SIZES: dict[str, Any] = {
    "vocab_size": 120, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip


def llama(**changes: Any) -> Any:
    torch.manual_seed(3)
    return LlamaForCausalLM(LlamaConfig(**(SIZES | changes))).eval()


def mistral() -> Any:
    torch.manual_seed(3)
    return MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4)).eval()


def gemma() -> Any:
    torch.manual_seed(3)
    sizes = SIZES | {"head_dim": 8, "final_logit_softcapping": 5.0, "attn_logit_softcapping": 20.0, "sliding_window": 4}
    return Gemma2ForCausalLM(Gemma2Config(**sizes)).eval()


LENGTHS = (5, 1, 11, 7)


@pytest.mark.parametrize(
    ("make", "packs"), [(llama, True), (mistral, True), (gemma, False)], ids=("llama", "mistral", "gemma")
)
def test_trap_c18_packed_documents_answer_as_they_do_alone(make: Callable[[], Any], packs: bool) -> None:
    """A window is honoured, and what cannot be packed (Gemma 2 bounds its attention scores) is padded instead."""
    ids = torch.randint(1, 120, (sum(LENGTHS),), generator=torch.Generator().manual_seed(1))
    plain = make()
    with torch.no_grad():
        alone = torch.cat([plain(input_ids=part[None]).logits[0] for part in ids.split(LENGTHS)])
        student = Causal(make())
        assert student.packs is packs
        found = student.head().logits(student.hidden(ids, LENGTHS))
        usual = student.model(input_ids=ids[None]).logits
        expected = plain(input_ids=ids[None]).logits
        written = student.model.generate(ids[None, :6], max_new_tokens=5, do_sample=False)
        assert torch.equal(written, plain.generate(ids[None, :6], max_new_tokens=5, do_sample=False))
    assert torch.allclose(found, alone, atol=1e-4)
    assert torch.allclose(usual, expected, atol=1e-4), "the model can still be used as usual"


@pytest.mark.parametrize("make", [llama, mistral])
def test_trap_c18_the_gradient_of_packed_documents_is_that_of_each(make: Callable[[], Any]) -> None:
    """Each by transformers' own forward pass."""
    student, plain = Causal(make()), make()
    ids = torch.randint(1, 120, (sum(LENGTHS),), generator=torch.Generator().manual_seed(6))
    student.hidden(ids, LENGTHS).square().sum().backward()
    for part in ids.split(LENGTHS):
        plain.model(input_ids=part[None]).last_hidden_state.square().sum().backward()
    for (name, found), expected in zip(student.model.named_parameters(), plain.parameters(), strict=True):
        assert (found.grad is None) == (expected.grad is None)
        if found.grad is not None:
            assert torch.allclose(found.grad, expected.grad, rtol=1e-3, atol=1e-3), name


def test_a_model_whose_logits_are_made_otherwise_is_refused() -> None:
    model = llama()
    model.lm_head.register_forward_hook(lambda module, given, made: made * 1.5)
    with pytest.raises(ConfigError, match="not known here"):
        Causal(model)


@pytest.mark.parametrize("tied", [True, False])
def test_fused_modules_give_the_same_outputs_and_gradients(tied: bool) -> None:
    ids = torch.randint(1, 120, (2, 13), generator=torch.Generator().manual_seed(2))

    def gradients(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits = model(input_ids=ids).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
        return logits.detach(), {name: p.grad for name, p in model.named_parameters()}

    plain, expected = gradients(llama(tie_word_embeddings=tied))
    model = llama(tie_word_embeddings=tied)
    assert economical(model) == 2 * 2 + 1 + 1  # two norms a layer, the last one, the embedding
    fused, found = gradients(model)
    assert torch.allclose(fused, plain, atol=1e-5)
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-6), name


def test_a_norm_of_another_formula_is_left_alone() -> None:
    """Gemma multiplies by 1 + weight."""
    model = gemma()
    assert economical(model) == 0 or all(
        "RMSNorm" not in type(m).__name__ or "forward" not in vars(m) for m in model.modules()
    )


def case(head: Head, rows: int = 23) -> tuple[torch.Tensor, tuple[Part, ...]]:
    draw = torch.Generator().manual_seed(4)
    hidden = torch.randn(rows, 8, generator=draw, dtype=torch.float64)
    p = torch.randn(rows, 40, generator=draw).log_softmax(-1)
    top = p.topk(5)
    tail = torch.log1p(-top.values.exp().sum(-1))
    parts = (
        Part(TOP_K, TopK(top.indices, top.values, tail), 0.7),
        Part(TEXT, Text(torch.randint(0, 40, (rows,), generator=draw)), 0.3),
    )
    return hidden, parts


HEADS = {
    "plain": Head(torch.randn(40, 8, dtype=torch.float64)),
    "bias": Head(torch.randn(40, 8, dtype=torch.float64), torch.randn(40, dtype=torch.float64)),
    "scaled": Head(torch.randn(40, 8, dtype=torch.float64), None, 0.3),
    "capped": Head(torch.randn(40, 8, dtype=torch.float64), None, 1.7, 2.5),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("rows", [1, 7, 100])
def test_trap_b7_chunked_equals_whole_for_every_kind_of_head(name: str, rows: int) -> None:
    head = HEADS[name]
    hidden, parts = case(head)
    weight, bias = torch.zeros_like(head.weight_VD), None if head.bias_V is None else torch.zeros_like(head.bias_V)
    found = head_gradients(hidden, head, parts, 0.25, weight_gradient_VD=weight, bias_gradient_V=bias, rows=rows)
    leaf, w = hidden.clone().requires_grad_(), head.weight_VD.clone().requires_grad_()
    logits = Head(w, head.bias_V, head.scale, head.softcap).logits(leaf)
    soft, text = (part.loss(logits, part.signal) for part in parts)
    (0.25 * (0.7 * soft.sum() + 0.3 * text.sum())).backward()
    assert leaf.grad is not None and w.grad is not None
    assert torch.allclose(found.gradient_ND, leaf.grad, atol=1e-7)
    assert torch.allclose(weight, w.grad, atol=1e-6)
    assert found.nats == pytest.approx((soft.sum().item(), text.sum().item()), rel=1e-6)
    alone = values(hidden, head, parts, rows)
    assert torch.allclose(alone[1], text.detach())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_fresh_buffer_is_written_over(dtype: torch.dtype) -> None:
    """Also where it is of another type than the product."""
    hidden, parts = case(HEADS["plain"])
    zeros = torch.zeros(40, 8, dtype=dtype)
    junk = torch.full((40, 8), float("nan"), dtype=dtype)
    for buffer, fresh in ((zeros, False), (junk, True)):
        head_gradients(hidden, HEADS["plain"], parts, 1.0, weight_gradient_VD=buffer, fresh=fresh, rows=7)
    assert torch.allclose(zeros, junk, atol=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_a_student_is_loaded_without_dropout(family: str, tmp_path: Path) -> None:
    """In training mode it answers as it does when it writes; the weights are as they were."""
    changes: dict = {
        "gpt2": {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 96, "resid_pdrop": 0.5, "attn_pdrop": 0.5},
        "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64, "dropout": 0.5, "layerdrop": 0.5},
        "llama": {"attention_dropout": 0.5},
    }[family]
    model = small_student(family, **changes)
    model.save_pretrained(tmp_path)
    ids_T = torch.arange(20) % 61
    expected_TV = model(input_ids=ids_T[None]).logits[0]
    learner = Causal.load(tmp_path)
    learner.model.train()
    for packs in {learner.packs, False}:
        learner.packs = packs
        found_TV = learner.head().logits(learner.hidden(ids_T, (20,)))
        assert torch.allclose(found_TV, expected_TV, atol=1e-4)


def test_heads_of_another_width_are_refused_with_the_fix() -> None:
    head, hidden = Head(torch.randn(38, 8)), torch.randn(3, 8)
    for signal in (Hidden(hidden, head), Hidden(hidden, head).dense()):
        with pytest.raises(SignalError, match="has 40 columns, and the teacher's distribution 38") as caught:
            make("forward-kl")(torch.zeros(3, 40), signal)
        assert "resize_token_embeddings" in caught.value.fix


def test_a_loss_refuses_another_type_of_signal() -> None:
    with pytest.raises(SignalError, match="takes TopK signals, not Text"):
        TOP_K(torch.zeros(1, 4), Text(torch.zeros(1, dtype=torch.long)))


def test_trap_d7_columns_beyond_the_tokenizer_are_no_tokens() -> None:
    """Trap D7: models of one family are padded to different widths."""
    head, hidden = HEADS["bias"], torch.ones(1, 8, dtype=torch.float64)
    torch.testing.assert_close(head.narrow(33).logits(hidden), head.logits(hidden)[:, :33])


def test_rows_are_split_by_tokens_in_their_order() -> None:
    tokens = {0: 5, 1: 5, 2: 9, 3: 1, 4: 30}
    assert list(split([0, 1, 2, 3, 4], tokens, 10)) == [(0, 1), (2, 3), (4,)]
    assert list(split([0, 1, 2], tokens, None)) == [(0, 1, 2)]
    assert starts((3, 1, 4)) == [0, 3, 4]


def test_a_step_that_does_not_fit_is_taken_again_in_halves() -> None:
    tried: list[int | None] = []
    undone: list[int] = []

    def attempt(limit: int | None) -> str:
        tried.append(limit)
        if limit is None or limit > 30:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    fit = Fit(None)
    assert fit.run(attempt, lambda: undone.append(1), [10, 20, 30, 30, 30]) == "done"
    assert tried[-1] == fit.limit == 30
    assert undone


def test_one_row_that_does_not_fit_alone_is_said() -> None:
    def attempt(limit: int | None) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    with pytest.raises(ResourceError, match="one row of 40 tokens"):
        Fit(None).run(attempt, lambda: None, [40])
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_a_step_in_smaller_passes_has_the_same_gradient(folder: Path) -> None:
    from tutelage.train.loop import precision, take

    found = []
    for limit in (None, 12):
        student, source = school(folder, data(8), TrainTable(epochs=1.0))
        result = take(student, source, range(8), Fit(limit), 1e9, precision("float32"))
        found.append((result.objective_nats, [p.grad for p in student.model.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, atol=1e-6)


def test_a_step_is_split_beforehand_where_memory_would_not_do() -> None:
    tried: list[int | None] = []
    fit = Fit(None, room=50)
    fit.run(tried.append, lambda: None, [20, 20])
    fit.run(tried.append, lambda: None, [20, 20, 20])
    assert tried == [None, 50] and fit.limit == 50
    Fit(None, room=5).run(tried.append, lambda: None, [20, 20])
    assert tried[-1] == 20, "one row is taken whole"


def test_what_a_token_keeps_is_counted(folder: Path) -> None:
    student = Causal.load(folder)
    kept, width = kept_bytes(student), student.model.config.hidden_size
    layers = student.model.config.num_hidden_layers
    assert 4 * 4 * width * layers < kept < 100 * 4 * width * layers
    weights = sum(parameter.numel() for parameter in student.model.parameters())
    assert 0 < room_tokens(student) < free_memory() / kept - 12 * weights / kept


def test_the_room_is_that_of_the_first_start_unless_it_is_gone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, path = Causal.load(folder), tmp_path / "work" / "room-0"
    for free, room, told in ((100, 100, 100), (90, 100, 100), (1000, 100, 100), (69, 69, 0), (100, 100, 0)):
        monkeypatch.setattr(memory, "room_tokens", lambda _, free=free: free)
        assert kept_room(path, student) == room
        assert room_in(tmp_path / "work") == told, "0 where steps were split in two ways"
    assert room_in(tmp_path) == 0
