"""The student writing through a real llama.cpp server: same weights, same log-probabilities, refreshed when told."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.students import VOCABULARY, scored, student
from tutelage.errors import ConfigError, DataError
from tutelage.train.rollout_llamacpp import LlamaCppRoller, WeightFile

pytest.importorskip("xllamacpp")
gguf = pytest.importorskip("gguf")
PROMPTS = [(1, 2, 3, 4, 5, 6, 7, 8), (9, 10), (11, 12, 13, 14, 15)]
CLOSE = 2e-2  # nats: llama.cpp keeps keys and values in float16
NEVER = frozenset([VOCABULARY - 1])


def agrees(model: Any, found: Any, atol: float) -> bool:
    own = scored(model, found.prompt_ids, found.ids)
    return torch.allclose(torch.tensor(found.logp), own, atol=atol, rtol=0)


@torch.no_grad()
def likeliest(model: Any, found: Any) -> list[float]:
    logits_TV = model(input_ids=torch.tensor([found.prompt_ids + found.ids])).logits[0]
    return logits_TV.log_softmax(-1).amax(-1)[len(found.prompt_ids) - 1 : -1].tolist()


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_traps_c15_c16_d10_what_it_writes_is_what_the_model_says(family: str) -> None:
    model = student(family, tie_word_embeddings=family != "qwen2", **({} if family == "qwen2" else {"head_dim": 32}))
    roller = LlamaCppRoller(model, slots=2, tokens_per_slot=64, kind="F32", ends=NEVER)
    try:
        found = roller.write(PROMPTS, 12, 1.0, [1, 2, 3])
        assert [one.prompt_ids for one in found] == PROMPTS  # traps C15, C16: ids there and back
        assert all(agrees(model, one, CLOSE) for one in found)
        again = roller.write(PROMPTS, 12, 1.0, [1, 2, 3])
        assert [one.ids for one in again] == [one.ids for one in found]
        if family != "llama":
            return
        # trap D10: nothing is cut away by default, so that a token far below the likeliest is drawn now and then, and
        # what is reported is the whole distribution at temperature 1, whatever is drawn from
        (long,) = roller.write(PROMPTS[:1], 50, 1.0, [4])
        assert any(value < best + math.log(0.05) for value, best in zip(long.logp, likeliest(model, long), strict=True))
        for temperature in (0.0, 2.0):
            assert all(agrees(model, one, CLOSE) for one in roller.write(PROMPTS, 6, temperature, [1, 2, 3]))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.7)
        assert not all(agrees(model, one, CLOSE) for one in roller.write(PROMPTS, 6, 1.0, [1, 2, 3]))
        roller.refresh(model)
        assert all(agrees(model, one, CLOSE) for one in roller.write(PROMPTS, 6, 1.0, [1, 2, 3]))
        with pytest.raises(DataError):
            roller.write([(1,) * 60], 6, 1.0, [1])
    finally:
        roller.close()


def test_trap_c6_an_answer_ends_at_any_of_its_end_tokens() -> None:
    model = student()
    free = LlamaCppRoller(model, slots=1, tokens_per_slot=64, kind="F32", ends=NEVER)
    try:
        (whole,) = free.write(PROMPTS[:1], 20, 1.0, [5])
    finally:
        free.close()
    seen = list(dict.fromkeys(whole.ids))
    ends = frozenset(seen[2:5])
    roller = LlamaCppRoller(model, slots=1, tokens_per_slot=64, kind="F32", ends=ends)
    try:
        (found,) = roller.write(PROMPTS[:1], 20, 1.0, [5])
    finally:
        roller.close()
    assert found.finished
    assert found.ids == whole.ids[: whole.ids.index(seen[2]) + 1]


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
def test_the_file_holds_the_weights_and_can_be_written_over(kind: Any, tmp_path: Path) -> None:
    from gguf.quants import dequantize

    model = student("qwen2", hidden_size=64)
    file = WeightFile(tmp_path / "student.gguf", model, NEVER, kind)
    for factor in (1.0, 0.5):
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight.mul_(factor)
            model.model.layers[0].self_attn.q_proj.bias.mul_(factor)
        if factor != 1.0:
            file.rewrite(model)
        held = {tensor.name: tensor for tensor in gguf.GGUFReader(file.path).tensors}
        for name, values in (
            ("blk.1.ffn_up.weight", model.model.layers[1].mlp.up_proj.weight),
            ("blk.0.attn_q.bias", model.model.layers[0].self_attn.q_proj.bias),
        ):
            read = torch.tensor(dequantize(held[name].data, held[name].tensor_type)).view(values.shape)
            step = {"F32": 0.0, "F16": 1e-3, "BF16": 8e-3, "Q8_0": 8e-3}[kind] * float(values.detach().abs().max())
            assert (read - values.detach()).abs().max() <= step


def test_what_llamacpp_has_no_names_for_is_refused(tmp_path: Path) -> None:
    for family, changes in (
        ("gpt_neox", {}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
    ):
        with pytest.raises(ConfigError, match=family):
            WeightFile(tmp_path / "x.gguf", student(family, **changes), NEVER, "F32")
