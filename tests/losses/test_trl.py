"""TRL's losses on equal inputs. Its generalized JSD takes (student, teacher) and, like the paper, weighs the teacher by β; its
ends 0 and 1 are forward and reverse KL."""

import pytest
import torch

from tests.losses.cases import draw_logits, draw_matched, seeded
from tutelage.losses.catalogue import make
from tutelage.signals import Dense, Head, Hidden, Text

trl_gkd = pytest.importorskip("trl.experimental.gkd")

NAMES = {0.0: ("forward-kl", {}), 1.0: ("reverse-kl", {})}


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_generalized_jsd_value_and_gradient(beta: float) -> None:
    """Masked positions are left out, and the sum is divided by their number."""
    student = 3 * torch.randn(2, 5, 64, generator=seeded(1))
    teacher = 3 * torch.randn(2, 5, 64, generator=seeded(2))
    labels = torch.tensor([[-100, 3, 4, 5, 6], [-100, -100, 1, 2, -100]])
    kept = labels.flatten() != -100
    theirs = student.clone().requires_grad_()
    expected = trl_gkd.GKDTrainer.generalized_jsd_loss(theirs, teacher, labels=labels, beta=beta)
    expected.backward()
    name, parameters = NAMES.get(beta, ("jsd", {"beta": beta}))
    found = make(name, **parameters).gradient(
        student.flatten(0, 1)[kept], Dense(teacher.flatten(0, 1)[kept].log_softmax(-1))
    )
    assert found.nats_N.mean().item() == pytest.approx(expected.item(), rel=1e-5)
    assert theirs.grad is not None
    torch.testing.assert_close(found.gradient_NV / kept.sum(), theirs.grad.flatten(0, 1)[kept], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_chunked_divergence_from_hidden_states(beta: float) -> None:
    """The same from TRL's DistillationTrainer, with heads of different widths and a bounded one."""
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    hidden, teacher_hidden = torch.randn(1, 6, 8, generator=seeded(3)), torch.randn(1, 6, 12, generator=seeded(4))
    head, teacher_head = torch.randn(64, 8, generator=seeded(5)), torch.randn(64, 12, generator=seeded(6))
    mask = torch.tensor([[1, 1, 0, 1, 1, 0]])
    expected, *_ = _chunked_divergence_loss(
        hidden, teacher_hidden, head, teacher_head, mask, beta, teacher_final_logit_softcapping=5.0
    )
    name, parameters = NAMES.get(beta, ("jsd", {"beta": beta}))
    kept = mask[0].bool()
    signal = Hidden(teacher_hidden[0, kept], Head(teacher_head, softcap=5.0))
    found = make(name, **parameters)(Head(head).logits(hidden[0, kept]), signal)
    assert found.mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_supervised_fine_tuning() -> None:
    """The two losses of TRL's SFTTrainer: the model's own, and the fused head that never forms all logits."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, initializer_range=0.5
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    ids = torch.randint(0, 97, (2, 9), generator=seeded(7))
    labels = ids.clone()
    labels[0, :4], labels[1, :2], labels[1, -2:] = -100, -100, -100
    targets = labels[:, 1:].flatten()
    kept = targets != -100
    with torch.no_grad():
        output = model(input_ids=ids, labels=labels)
        found = make("cross-entropy")(output.logits[:, :-1].flatten(0, 1)[kept], Text(targets[kept]))
        add_fused_lm_head(model)
        fused = model(input_ids=ids, labels=labels, fused_lm_head=True)
    assert found.mean().item() == pytest.approx(output.loss.item(), rel=1e-5)
    assert found.sum().item() == pytest.approx(-fused.log_probs.sum().item(), rel=1e-5)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_the_hybrid_of_tokens_that_match_and_ranks_is_golds(beta: float) -> None:
    from trl.experimental.gold.gold_trainer import ULDLoss

    signal, ours = draw_matched(3), draw_logits(3)
    there, ids = signal.there_N, signal.overlap.ids_M
    p = torch.cat([signal.p_NM, signal.rest_NK], -1)[there]
    theirs = ULDLoss.__new__(ULDLoss)
    torch.nn.Module.__init__(theirs)
    theirs.beta, theirs.hybrid_matched_weight, theirs.hybrid_unmatched_weight = beta, None, None
    theirs._teacher_matched_ids, theirs.mapping_tensor = set(range(len(ids))), ids
    expected = theirs._compute_hybrid_uld_loss(ours.softmax(-1)[there], p)
    found = make("gold", beta=beta)(ours, signal)
    torch.testing.assert_close(found[there].mean(), expected, rtol=1e-5, atol=1e-7)
    assert found[~there].tolist() == [0.0]
