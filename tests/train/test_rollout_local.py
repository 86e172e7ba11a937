"""The student writing with its own weights: the short way equals the model's own, and what is drawn is what the model says."""

from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from tests.reference import rollout_naive
from tests.train.students import END, FAMILIES, VOCABULARY, scored, student
from tutelage.errors import ConfigError, DataError, SignalError
from tutelage.models.causal import Causal
from tutelage.train import rollout_local
from tutelage.train.rollout_fast import FastDecoder, Weights, laid_out
from tutelage.train.rollout_local import LocalRoller, PlainDecoder, choose

PROMPTS = [(1, 2, 3, 4, 5, 6, 7, 8), (9, 10), (11, 12, 13, 14, 15), (9, 10)]
SEEDS = [3, 1, 4, 1]


def write(
    roller: LocalRoller, new: int = 20, temperature: float = 1.0, prompts: Any = PROMPTS, seeds: Any = SEEDS
) -> list:
    return roller.write(prompts, new, temperature, seeds)


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_the_short_way_equals_the_models_own(family: str) -> None:
    model = student(family, tie_word_embeddings=family != "qwen2")
    decoders = FastDecoder(Weights.of(model)), PlainDecoder(model)
    logits = [decoder.start(PROMPTS, 12) for decoder in decoders]
    draw = torch.Generator().manual_seed(0)
    for at in range(12):
        logp = [value.log_softmax(-1) for value in logits]
        assert (logp[0] - logp[1]).abs().max() < 1e-4
        ids_B = torch.randint(0, VOCABULARY, (len(logp[0]),), generator=draw)
        if at in (3, 7):
            rows = [0, 2, 3] if at == 3 else [1, 2]
            ids_B = ids_B[rows]
            for decoder in decoders:
                decoder.keep(rows)
        logits = [decoder.step(ids_B) for decoder in decoders]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_short_way_is_taken_where_it_can_be(family: str) -> None:
    assert LocalRoller(student(family)).fast


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gemma2", {"head_dim": 16, "query_pre_attn_scalar": 16}),
        ("granite", {"embedding_multiplier": 3.0}),
        ("mistral", {"sliding_window": 40}),  # longer than what is tried
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
        ("gpt_neox", {}),
    ],
)
def test_what_is_laid_out_otherwise_is_run_by_its_own_code(family: str, changes: dict) -> None:
    model = student(family, **changes)
    roller = LocalRoller(model)
    assert not roller.fast
    for found in write(roller, 6):
        torch.testing.assert_close(
            torch.tensor(found.logp), scored(model, found.prompt_ids, found.ids), atol=1e-4, rtol=0
        )
    with pytest.raises(ConfigError, match="cannot write with int8"):
        LocalRoller(model, precision="int8")


SMALL_STATE = {
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
EXPERTS = {
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("mamba", {}),
        ("mamba2", {"num_heads": 8, "head_dim": 16, "n_groups": 1, "state_size": 16}),
        (
            "falcon_h1",
            {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_chunk_size": 16},
        ),
        ("qwen3_next", {"layer_types": ["linear_attention", "full_attention"], "head_dim": 16} | SMALL_STATE | EXPERTS),
    ],
)
@torch.inference_mode()
def test_models_with_a_state_go_on_when_some_answers_have_ended(family: str, changes: dict) -> None:
    """Their caches cannot select rows, or select a part of what they hold alone."""
    model = student(family, **changes)
    free = write(LocalRoller(model, frozenset([VOCABULARY])), 12)
    ends = frozenset([free[0].ids[2], free[1].ids[5]])
    found = write(LocalRoller(model, ends), 12)
    assert len({len(one.ids) for one in found}) > 1, "some answers end before others"
    for own, whole in zip(found, free, strict=True):
        assert own.ids == whole.ids[: len(own.ids)]
        torch.testing.assert_close(torch.tensor(own.logp), scored(model, own.prompt_ids, own.ids), atol=1e-4, rtol=0)


def test_names_alone_are_not_believed() -> None:
    model = student()
    half = model.model.layers[1].mlp
    half.forward = lambda x: half.down_proj(half.act_fn(half.gate_proj(x)) * half.up_proj(x)) / 2
    assert laid_out(model)
    assert not LocalRoller(model).fast


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
def test_trap_d10_log_probabilities_are_the_models_own_whatever_the_temperature(fast: bool, temperature: float) -> None:
    model = student()
    roller = LocalRoller(model)
    roller.fast = fast
    for found in write(roller, temperature=temperature):
        own = scored(model, found.prompt_ids, found.ids)
        torch.testing.assert_close(torch.tensor(found.logp), own, atol=1e-4, rtol=0)


def test_trap_d10_nothing_of_generation_config_is_used() -> None:
    model = student()
    plain = write(LocalRoller(model))
    hidden = model.generation_config
    hidden.top_k, hidden.top_p, hidden.temperature, hidden.repetition_penalty, hidden.do_sample = (
        1,
        0.1,
        0.1,
        3.0,
        False,
    )
    assert write(LocalRoller(model)) == plain


def test_trap_c6_each_of_several_end_tokens_ends_an_answer() -> None:
    model = student()
    free = write(LocalRoller(model, frozenset([VOCABULARY])))
    assert not any(found.finished for found in free)
    ends = frozenset([free[0].ids[2], free[1].ids[5]])
    found = write(LocalRoller(model, ends))
    for own, whole in zip(found, free, strict=True):
        at = next((at for at, token in enumerate(whole.ids) if token in ends), None)
        assert own.finished == (at is not None)
        assert own.ids == whole.ids[: None if at is None else at + 1]
    assert {own.ids[-1] for own in found if own.finished} == ends and len(ends) == 2


def test_trap_c9_a_cut_answer_has_no_end_token_made_up() -> None:
    for found in write(LocalRoller(student(), frozenset([VOCABULARY])), 5):
        assert len(found.ids) == len(found.logp) == 5
        assert not found.finished


def test_trap_c9_an_end_token_at_the_limit_is_an_end() -> None:
    model = student()
    first = write(LocalRoller(model, frozenset([VOCABULARY])), 1)
    for found, again in zip(first, write(LocalRoller(model, frozenset([first[0].ids[0]])), 1), strict=True):
        assert again.ids == found.ids
        assert again.finished == (found.ids == first[0].ids)


def test_trap_c16_prompts_come_back_as_they_were_sent() -> None:
    assert [found.prompt_ids for found in write(LocalRoller(student()), 2)] == PROMPTS


@pytest.mark.parametrize("fast", [True, False])
def test_the_same_seeds_give_the_same_answers_bit_for_bit(fast: bool) -> None:
    roller = LocalRoller(student())
    roller.fast = fast
    assert write(roller) == write(roller)
    assert write(roller, seeds=[5, 6, 7, 8]) != write(roller)


def test_an_answer_depends_on_its_seed_and_not_on_its_neighbours() -> None:
    roller = LocalRoller(student())
    together = write(roller)
    alone = [write(roller, prompts=[prompt], seeds=[seed])[0] for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    assert [found.ids for found in together] == [found.ids for found in alone]
    assert together[1] == together[3]  # the same prompt and seed
    assert write(LocalRoller(student(), rows=3))[3].ids == together[3].ids


def test_the_generators_of_training_are_left_alone() -> None:
    before = torch.get_rng_state()
    write(LocalRoller(student()))
    assert torch.equal(before, torch.get_rng_state())


def test_the_next_answers_are_the_trained_weights() -> None:
    model = student()
    roller = LocalRoller(model)
    before = write(roller)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(0.5)
        model.model.embed_tokens.weight.add_(0.05)
    roller.refresh(model)
    after = write(roller)
    assert after != before
    assert after == write(LocalRoller(model))
    other = student(seed=1)
    roller.refresh(other)
    assert write(roller) == write(LocalRoller(other))


def test_a_model_in_training_is_given_back_as_it_was() -> None:
    model = student(attention_dropout=0.5).train()
    causal = Causal(model)
    attention = model.config._attn_implementation
    assert attention not in ("sdpa", "eager")
    for fast in (True, False):
        roller = LocalRoller(model)
        roller.fast = fast
        found = write(roller, 4)
        assert model.training
        assert model.config._attn_implementation == attention
        with torch.no_grad():
            ids_T = torch.tensor(found[0].prompt_ids + found[0].ids)
            model.eval()
            logp_TV = causal.head().logits(causal.hidden(ids_T, (len(ids_T),))).log_softmax(-1)
            model.train()
        own = logp_TV[len(found[0].prompt_ids) - 1 : -1].gather(1, torch.tensor(found[0].ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(found[0].logp), own, atol=1e-4, rtol=0)
        loss = causal.hidden(ids_T, (len(ids_T),)).square().mean()  # gradients flow after writing
        loss.backward()


def test_training_mode_is_restored_after_an_error() -> None:
    model = student().train()
    roller = LocalRoller(model)
    with pytest.raises(IndexError):
        roller.write([(1, VOCABULARY + 5)], 3, 1.0, [0])
    assert model.training


def test_adapters_are_written_with() -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(student(), LoraConfig(r=4, target_modules=["q_proj", "up_proj", "o_proj"]))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.1)
    roller = LocalRoller(adapted)
    assert roller.fast
    for found in write(roller):
        own = scored(adapted, found.prompt_ids, found.ids)
        torch.testing.assert_close(torch.tensor(found.logp), own, atol=1e-4, rtol=0)
        with adapted.disable_adapter():
            assert not torch.allclose(own, scored(adapted, found.prompt_ids, found.ids), atol=1e-2)


def test_columns_beyond_the_tokenizer_are_never_drawn() -> None:
    model = student()
    narrow = write(LocalRoller(model, columns=8))
    assert max(token for found in narrow for token in found.ids) < 8
    for found in narrow:
        with torch.no_grad():
            logits_TV = model(input_ids=torch.tensor([found.prompt_ids + found.ids])).logits[0, :, :8]
        own = logits_TV.log_softmax(-1)[len(found.prompt_ids) - 1 : -1].gather(1, torch.tensor(found.ids)[:, None])
        torch.testing.assert_close(torch.tensor(found.logp), own[:, 0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("precision", "off"), [("int8", 0.1), ("bfloat16", 0.1)])
def test_a_rounded_writer_reports_its_own_log_probabilities(precision: Any, off: float) -> None:
    model = student()
    apart = []
    for found in write(LocalRoller(model, precision=precision)):
        apart.append((torch.tensor(found.logp) - scored(model, found.prompt_ids, found.ids)).abs())
    assert 1e-4 < torch.cat(apart).mean() < off


def test_half_precision_weights_are_written_with() -> None:
    model = student().bfloat16()
    roller = LocalRoller(model)
    assert roller.fast
    assert all(len(found.ids) for found in write(roller))


def test_bad_requests_are_refused_before_anything_is_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    roller = LocalRoller(student())
    monkeypatch.setattr(rollout_local, "_writing", None)  # would fail, were it reached
    for prompts, new in (([()], 3), ([(1,) * 95], 3)):
        with pytest.raises(DataError):
            roller.write(prompts, new, 1.0, [0])
    with pytest.raises(ConfigError, match="rollout precision 'int4'"):
        LocalRoller(student(), precision="int4")  # type: ignore[arg-type]


@example([-1.7393939487078587e-39, 0.0], 0.0, 0.0)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=12),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    st.floats(0, 1, exclude_max=True),
)
def test_a_token_is_drawn_as_the_naive_twin_draws_it(logits: list[float], temperature: float, uniform: float) -> None:
    chosen = choose(torch.tensor([logits, logits]), temperature, torch.tensor([uniform, 0.5], dtype=torch.float64))
    token = int(chosen.ids_B[0])
    expected = rollout_naive.draw(logits, temperature, uniform)
    if token != expected and temperature == 0:  # only between logits that float32's log-probabilities cannot tell apart
        assert logits[token] == pytest.approx(logits[expected], abs=1e-6)
    elif token != expected:  # only where the number falls on the border between the two
        near = [rollout_naive.draw(logits, temperature, min(max(uniform + by, 0), 1 - 1e-9)) for by in (-1e-6, 1e-6)]
        assert token in near
    assert float(chosen.logp_B[0]) == pytest.approx(rollout_naive.logp(logits, token), abs=1e-5)


def test_the_last_number_below_one_draws_no_impossible_token() -> None:
    logits = torch.tensor([[1.0, 2.0, float("-inf"), float("-inf")]])
    almost = torch.tensor([1 - 2**-53], dtype=torch.float64)
    assert int(choose(logits, 1.0, almost).ids_B) == 1
    assert int(choose(logits.roll(2, 1), 1.0, torch.zeros(1, dtype=torch.float64)).ids_B) == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_named(value: float) -> None:
    with pytest.raises(SignalError, match="not finite"):
        choose(torch.tensor([[1.0, value, 0.0]]), 1.0, torch.zeros(1, dtype=torch.float64))


def test_tokens_come_as_often_as_the_model_says() -> None:
    model = student()
    drawn = LocalRoller(model, rows=4096).write([(1, 2, 3)] * 4096, 1, 1.0, range(4096))
    counts = torch.bincount(torch.tensor([found.ids[0] for found in drawn]), minlength=VOCABULARY).double()
    with torch.no_grad():
        p_V = model(input_ids=torch.tensor([[1, 2, 3]])).logits[0, -1].double().softmax(-1)
    deviance = float((counts - 4096 * p_V).square().div(4096 * p_V + 1).sum())
    assert deviance < VOCABULARY + 5 * (2 * VOCABULARY) ** 0.5


def test_end_token_of_the_model_is_the_default() -> None:
    assert LocalRoller(student())._ends == {END}
