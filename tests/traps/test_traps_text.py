"""Traps between a conversation and what is learnt of it: templates, masks, start and end tokens. Ids as in docs/traps.md."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import processors
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests.models.tiny import save_tiny
from tests.train.students import student as small_student
from tutelage.collect.conversations import stored_talks
from tutelage.collect.importing import Declared, import_file
from tutelage.config import TrainTable
from tutelage.errors import ConfigError, SignalError
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.models.hf import HFModel
from tutelage.records import Message
from tutelage.redact import Secrets
from tutelage.signals import Dense
from tutelage.store.store import Store
from tutelage.train.examples import Example, render
from tutelage.train.loop import precision, take
from tutelage.train.memory import Fit
from tutelage.train.offpolicy import DataSource, batch_of, passage_of
from tutelage.train.onpolicy import RolloutSource
from tutelage.train.preflight import Rendering, choose_rendering, nats_a_token
from tutelage.train.rollout_local import LocalRoller
from tutelage.train.student import load_student, make_student
from tutelage.train.teaching import LiveTeacher, Words
from tutelage.training_config import ConversationsTable

PLAIN = precision("float32")
ASKED = {"role": "user", "content": "the film"}
THINKING = (  # as Qwen3's: an answer without a thought is written with an empty one
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and '</think>' not in m.content %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FAMILIES = {
    "ChatML": (
        None,
        "<|im_start|>user\nthe film<|im_end|>\n<|im_start|>assistant\nbad and slow<|im_end|>",
    ),
    "Llama 3": (
        "{{ '<|begin_of_text|>' }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' "
        "+ m.content|trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nthe film<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nbad and slow<|eot_id|>",
    ),
    "Gemma": (
        "{{ '<bos>' }}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
        "{{ '<start_of_turn>' + role + '\n' + m.content|trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        "<bos><start_of_turn>user\nthe film<end_of_turn>\n<start_of_turn>model\nbad and slow<end_of_turn>",
    ),
    "Mistral": (
        "{{ '<s>' }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content + '</s>' }}{% endif %}{% endfor %}",
        "<s>[INST] the film [/INST] bad and slow</s>",
    ),
}  # fmt: skip
ENDS = {"ChatML": "<|im_end|>", "Llama 3": "<|eot_id|>", "Gemma": "<end_of_turn>", "Mistral": "</s>"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def tokenizer_of(folder: Path, template: str | None = None, special: tuple[str, ...] = ()) -> Any:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def answered(*contents: str) -> list[tuple[str, list[dict[str, str]]]]:
    return [(str(at), [ASKED, {"role": "assistant", "content": content}]) for at, content in enumerate(contents)]


def learnt(tokenizer: Any, example: Example) -> str:
    return tokenizer.decode([example.ids[at] for at in example.targets])


@pytest.fixture(scope="module")
def examples(folder: Path) -> tuple[Example, ...]:
    return render(answered("good", "bad and slow", "is the plot"), tokenizer_of(folder), 64).examples


def step(student: Causal, source: DataSource, rows: range) -> tuple[float, torch.Tensor]:
    """Mean nats of a step and its gradient as one vector."""
    result = take(student, source, rows, Fit(None), 1e9, PLAIN)
    slopes = [p.grad.flatten() for p in student.model.parameters() if p.grad is not None]
    return result.objective_nats / result.loss_tokens, torch.cat(slopes)


def bigrams(tokens: int) -> Any:
    """A model that knows the next token from the last one alone: 7 · token + 3. Its layers add nothing."""
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=tokens, hidden_size=tokens, intermediate_size=8, num_hidden_layers=1, num_attention_heads=4,
                    tie_word_embeddings=False)
    )  # fmt: skip
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(tokens))
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()
        model.lm_head.weight[[(7 * at + 3) % tokens for at in range(tokens)], range(tokens)] = 4.0
    return model


def test_trap_c2_a_model_of_bigrams_has_nothing_to_learn_from_its_own_text() -> None:
    """With the right shift the loss is 0 from text and from a teacher alike; one place off, it would be above 10 nats."""
    ids = [5]
    while len(ids) < 20:
        ids.append((7 * ids[-1] + 3) % 64)
    some = [Example(tuple(ids), tuple(range(8, 20)), "a"), Example(tuple(ids[3:12]), (1, 2, 8), "b")]
    table = TrainTable(epochs=1.0, batch_size=2)
    loss, _ = step(Causal(bigrams(64)), DataSource(some, Words(make("cross-entropy")), table, 0), range(2))
    assert loss == pytest.approx(0, abs=1e-5)
    other = LiveTeacher(Causal(small_student(vocab_size=64)), make("forward-kl"))
    assert step(Causal(bigrams(64)), DataSource(some, other, table, 0), range(2))[0] > 1
    own = LiveTeacher(Causal(bigrams(64)), make("reverse-kl"))
    assert step(Causal(bigrams(64)), DataSource(some, own, table, 0), range(2))[0] == pytest.approx(0, abs=1e-5)
    passage = passage_of(some)
    assert [(7 * int(token) + 3) % 64 for token in passage.ids_T[passage.positions_N]] == passage.target_ids_N.tolist()


def test_trap_c1_a_rendering_that_surprises_the_teacher_is_refused() -> None:
    """The same answer under two prompts; the teacher of bigrams was made for the first."""
    ids = [5]
    while len(ids) < 12:
        ids.append((7 * ids[-1] + 3) % 64)
    teacher = Causal(bigrams(64))
    own, other = (Example((*prompt, *ids), tuple(range(4, 16)), "a") for prompt in ((0, 3, 24, 46), (0, 3, 24, 9)))
    nats = [nats_a_token(teacher, [example], "teacher") for example in (own, other)]
    assert nats[0] == pytest.approx(0, abs=1e-5) and nats[1] > 0.5
    found = [Rendering("its own", nats[0]), Rendering("the student's", nats[1])]
    assert choose_rendering(found, "its own").teacher_nats == nats[0]
    with pytest.raises(ConfigError, match=r"nats a token as the student's writes them, and 0\.000 as its own does"):
        choose_rendering(found, "the student's")


def test_trap_c4_a_teacher_that_differs_on_prompts_alone_teaches_the_same(
    folder: Path, examples: tuple[Example, ...]
) -> None:
    """Its hidden states are spoilt everywhere but where a loss stands."""
    found = []
    for spoils in (False, True):
        teacher = Causal.load(folder)
        whole, learnt_T = teacher.hidden, passage_of(examples).positions_N

        def hidden(ids_T: Any, lengths: Any, whole: Any = whole, kept: Any = learnt_T, spoils: bool = spoils) -> Any:
            hidden_TD = whole(ids_T, lengths)
            other = torch.ones(len(hidden_TD), dtype=torch.bool).index_fill(0, kept, False)
            return torch.where(other[:, None], 99.0, hidden_TD) if spoils else hidden_TD

        teacher.hidden = hidden  # type: ignore[method-assign]
        student = Causal.load(folder)
        with torch.no_grad():
            student.head().weight_VD.mul_(0.5)
        source = DataSource(examples, LiveTeacher(teacher, make("forward-kl")), TrainTable(epochs=1.0, batch_size=3), 0)
        found.append(step(student, source, range(3)))
    assert found[0][0] == found[1][0] > 0.01
    assert torch.equal(found[0][1], found[1][1])
    prompt = tokenizer_of(folder).apply_chat_template([ASKED], add_generation_prompt=True, return_dict=False)
    assert all(example.targets[0] == len(prompt) for example in examples)


@pytest.fixture(scope="module")
def starting(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a tokenizer that puts a start token before every text, as Llama's does."""
    out = tmp_path_factory.mktemp("starting")
    model, tokenizer = load_student(folder)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    start = [("<s>", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=start)
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def test_trap_c12_one_start_token_in_training_and_serving(starting: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(starting)
    start = tokenizer.bos_token_id
    assert tokenizer("the film")["input_ids"].count(start) == 1, "it adds one by itself"
    (example,) = render(answered("good"), tokenizer, 64).examples
    served = HFModel.load(starting, "float32").render([Message("user", "the film")])
    assert (example.ids.count(start), served.count(start)) == (1, 1)
    assert example.ids[0] == served[0] == start
    assert served == example.ids[: example.targets[0]]
    make_student(starting, 1, None, ("good", "bad"), tmp_path / "own")
    own = HFModel.load(tmp_path / "own", "float32").render([Message("user", "the film")])
    assert own.count(start) == 1 and own[0] == start


@pytest.mark.parametrize("family", FAMILIES)
def test_trap_c13_what_is_read_and_learnt_is_written_down(folder: Path, family: str) -> None:
    """Golden strings: no second assistant header at the end, nothing after the end of turn, no thought nobody had."""
    template, golden = FAMILIES[family]
    marks = {mark for mark in ("<|begin_of_text|>", "<bos>", "<s>", ENDS[family]) if mark in golden}
    tokenizer = tokenizer_of(folder, template, tuple(marks))
    (example,) = render(answered("bad and slow"), tokenizer, 200).examples
    assert tokenizer.decode(example.ids) == golden
    assert learnt(tokenizer, example).strip() == "bad and slow" + ENDS[family]


def test_trap_c13_an_empty_thought_is_not_learnt_and_a_thought_stays_as_it_is(folder: Path) -> None:
    tokenizer = tokenizer_of(folder, THINKING)
    with pytest.raises(ConfigError, match="puts text of its own before the answer of 0: '<think>"):
        render(answered("good"), tokenizer, 64)
    thought = "<think>\nslow\n</think>\n\nbad"
    (example,) = render(answered(thought), tokenizer, 64).examples
    assert learnt(tokenizer, example) == thought + "<|im_end|>"


@pytest.mark.parametrize("fast", [True, False])
def test_trap_c16_what_was_drawn_is_what_is_learnt(folder: Path, examples: tuple[Example, ...], fast: bool) -> None:
    """Ids and their log-probabilities stay together, also where the text would be split into other tokens."""
    student, tokenizer = Causal.load(folder), tokenizer_of(folder)
    roller = LocalRoller(student.model)
    roller.fast = fast
    teaching = LiveTeacher(Causal.load(folder), make("reverse-kl"))
    source = RolloutSource(
        examples, student, roller, teaching, TrainTable(epochs=1.0, batch_size=3), 0, max_new_tokens=9
    )
    rows = source.rows(0)
    batch = source.batch(rows)
    (term,) = batch.terms
    following = torch.cat([batch.ids_T[1:], torch.tensor([-1])])[term.positions_N].tolist()
    drawn = [token for rollout in source._rollouts for token in rollout.ids]
    assert len(following) == len(drawn)
    lasts = {
        sum(len(r.ids) for r in source._rollouts[: at + 1]) - 1 for at in range(len(rows))
    }  # predicted, never read
    assert all(one == other for at, (one, other) in enumerate(zip(following, drawn, strict=True)) if at not in lasts)
    split_again = [tokenizer(tokenizer.decode(r.ids), add_special_tokens=False)["input_ids"] for r in source._rollouts]
    assert any(tuple(ids) != rollout.ids for ids, rollout in zip(split_again, source._rollouts, strict=True))
    for rollout in source._rollouts:
        logp_TV = student.model(input_ids=torch.tensor([rollout.prompt_ids + rollout.ids])).logits[0].log_softmax(-1)
        own = logp_TV[len(rollout.prompt_ids) - 1 : -1].gather(1, torch.tensor(rollout.ids)[:, None])[:, 0]
        assert torch.allclose(own, torch.tensor(rollout.logp), atol=1e-4)


def test_trap_c17_examples_without_a_loss_are_no_nan(folder: Path, examples: tuple[Example, ...]) -> None:
    silent = examples[1]._replace(targets=())
    teaching = LiveTeacher(Causal.load(folder), make("jsd"))
    table = TrainTable(epochs=1.0, batch_size=2)

    def fresh() -> Causal:
        student = Causal.load(folder)
        with torch.no_grad():
            student.head().weight_VD.mul_(0.5)
        return student

    alone = step(fresh(), DataSource(examples[:1], teaching, table, 0), range(1))
    beside = step(fresh(), DataSource((examples[0], silent), teaching, table, 0), range(2))
    assert beside[0] == pytest.approx(alone[0], rel=1e-6) and math.isfinite(alone[0])
    assert torch.allclose(alone[1], beside[1], atol=1e-6)
    with pytest.raises(SignalError, match="no position of this step"):
        step(fresh(), DataSource((silent,), teaching, table, 0), range(1))


def test_trap_c19_a_dialogue_with_tools_is_read_whole_and_its_answers_are_learnt(folder: Path) -> None:
    dialogue = [
        {"role": "system", "content": "love"},
        ASKED,
        {"role": "assistant", "content": "the plot"},
        {"role": "tool", "content": "is slow"},
        {"role": "assistant", "content": "bad"},
    ]
    tokenizer = tokenizer_of(folder)
    (every,) = render([("a", dialogue)], tokenizer, 99, last_turn_only=False).examples
    assert learnt(tokenizer, every) == "the plot<|im_end|>bad<|im_end|>"
    whole = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in dialogue)
    assert tokenizer.decode(every.ids) == whole.removesuffix("\n")
    (last,) = render([("a", dialogue)], tokenizer, 99).examples
    assert (last.ids, learnt(tokenizer, last)) == (every.ids, "bad<|im_end|>")
    for role in ("tool", "system"):
        deaf = tokenizer_of(folder)
        deaf.chat_template = deaf.chat_template.replace("in messages", f"in messages if m.role != '{role}'")
        with pytest.raises(ConfigError, match=f"leaves out a message of role '{role}' of a"):
            render([("a", dialogue)], deaf, 99)


@pytest.mark.parametrize("has_system", [True, False])
def test_trap_e7_the_prompt_that_was_asked_is_the_one_trained_and_served(
    folder: Path, tmp_path: Path, has_system: bool
) -> None:
    """From an answer in a store, its system message with it, to the ids that are trained on and those that a server reads."""
    asked = [{"role": "system", "content": "love"}, ASKED] if has_system else [ASKED]
    row = {"messages": [*asked, {"role": "assistant", "content": "good"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    with Store(tmp_path / "store") as store:
        import_file(tmp_path / "rows.jsonl", store, Declared("m", "p", "own"), Secrets({}))
        addresses = [line.digest for line in store.records("request")]
        table = ConversationsTable(collected=str(tmp_path))
        (talk,) = stored_talks(store.pairs(addresses), table).talks
    (example,) = render([(talk.id, talk.messages)], tokenizer_of(folder), 64).examples
    served = HFModel.load(folder, "float32").render([Message(m["role"], m["content"]) for m in asked])
    assert example.ids[: example.targets[0]] == served
    assert ("love" in tokenizer_of(folder).decode(served)) is has_system


def test_batches_of_words_and_of_a_teacher_stand_at_the_same_places(
    folder: Path, examples: tuple[Example, ...]
) -> None:
    words = batch_of(examples, Words(make("cross-entropy")), range(3), "cpu")
    full = batch_of(examples, LiveTeacher(Causal.load(folder), make("forward-kl")), range(3), "cpu")
    assert torch.equal(words.terms[0].positions_N, full.terms[0].positions_N)
    assert full.terms[0].parts[0].loss.takes is Dense
