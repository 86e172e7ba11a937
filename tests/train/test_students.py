"""Students of every kind: what is cut away where nothing was lost, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, processors
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tests.models.tiny import CORPUS, save_tiny
from tests.train.students import student
from tutelage.config import TrainTable
from tutelage.errors import ConfigError, ResourceError
from tutelage.losses.catalogue import make as loss_named
from tutelage.models.causal import Causal
from tutelage.train.examples import Example
from tutelage.train.loop import choose_trainable, precision, take
from tutelage.train.lora import add_lora, load_lora, merge, save_lora
from tutelage.train.memory import Fit
from tutelage.train.offpolicy import DataSource
from tutelage.train.prune import Cut, choose_cut, choose_layers, importance, narrowed
from tutelage.train.students import StudentSpec, make, shaped
from tutelage.train.teaching import LiveTeacher, Words
from tutelage.train.trim import kept_ids, trim

DOCUMENTS = [
    tuple(torch.randint(0, 61, (20,), generator=torch.Generator().manual_seed(at)).tolist()) for at in range(4)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def logits(model: Any, ids: tuple[int, ...] = DOCUMENTS[0]) -> torch.Tensor:
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def all_of(model: Any) -> Cut:
    config = model.config
    layers = tuple(range(config.num_hidden_layers))
    return Cut(
        layers,
        torch.arange(config.hidden_size),
        tuple(torch.arange(config.intermediate_size) for _ in layers),
        tuple(torch.arange(config.num_key_value_heads) for _ in layers),
    )


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_cutting_nothing_changes_nothing(family: str) -> None:
    model = student(family)
    assert torch.allclose(logits(narrowed(model, all_of(model))), logits(model), atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_dead_neurons_heads_and_channels_are_found_and_go_without_a_trace(family: str, tied: bool) -> None:
    """Planted in each layer: a neuron and a group of heads that reach nothing, two hidden channels that are always 0."""
    model, channel = student(family, tie_word_embeddings=tied), [11, 30]
    with torch.no_grad():
        model.model.embed_tokens.weight[:, channel] = 0
        model.lm_head.weight[:, channel] = 0
        for at, layer in enumerate(model.model.layers):
            layer.mlp.down_proj.weight[channel] = 0
            layer.self_attn.o_proj.weight[channel] = 0
            layer.mlp.up_proj.weight[5 + at] = 0
            width = layer.self_attn.v_proj.weight.shape[0] // 2
            layer.self_attn.v_proj.weight[at * width : (at + 1) * width] = 0
            if layer.self_attn.v_proj.bias is not None:
                layer.self_attn.v_proj.bias[at * width : (at + 1) * width] = 0
    found = importance(model, DOCUMENTS)
    cut = choose_cut(model, found, (0, 1), 62, 95, 2)
    assert not {11, 30} & set(cut.hidden.tolist())
    assert [5 + at in cut.neurons[at].tolist() for at in range(2)] == [False, False]
    assert [groups.tolist() for groups in cut.groups] == [[1], [0]]
    smaller = narrowed(model, cut)
    assert torch.allclose(logits(smaller), logits(model), atol=1e-5)
    assert smaller.config.num_attention_heads == 2 and smaller.config.hidden_size == 62


def test_a_layer_that_does_nothing_goes_first() -> None:
    model = student("llama", num_hidden_layers=4)
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight.zero_()
        model.model.layers[2].self_attn.o_proj.weight.zero_()
    found = importance(model, DOCUMENTS)
    assert found.blocks_L.argmin() == 2
    layers = choose_layers(4, 3, "importance", found.blocks_L)
    assert layers == (0, 1, 3)
    assert torch.allclose(logits(narrowed(model, all_of(model)._replace(layers=layers))), logits(model), atol=1e-5)


def test_layers_are_chosen_as_said() -> None:
    assert choose_layers(30, 3, "first") == (0, 1, 2)
    assert choose_layers(30, 4, "even") == (0, 10, 19, 29)
    assert choose_layers(30, 1, "even") == (0,)
    assert len(set(choose_layers(30, 29, "even"))) == 29
    for count in (0, 31):
        with pytest.raises(ConfigError, match=f"{count} layers of a model that has 30"):
            choose_layers(30, count, "first")


def test_sizes_that_do_not_fit_and_unknown_layouts_are_refused() -> None:
    model = student("llama")
    found = importance(model, DOCUMENTS)
    with pytest.raises(ConfigError, match="3 heads, of 4 in groups of 2"):
        choose_cut(model, found, (0, 1), None, None, 3)
    with pytest.raises(ConfigError, match="hidden = 65"):
        choose_cut(model, found, (0, 1), 65, None, None)
    with pytest.raises(ConfigError, match="no calibration text"):
        importance(model, [])
    gpt2 = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", n_embd=16, n_layer=1, n_head=2, vocab_size=61))
    with pytest.raises(ConfigError, match=r"GPT2LMHeadModel has no model\.layers"):
        importance(gpt2, DOCUMENTS)
    gemma = student("gemma", head_dim=16)
    with pytest.raises(ConfigError, match="norms its hidden state in a way of its own"):
        narrowed(gemma, choose_cut(gemma, importance(gemma, DOCUMENTS), (0, 1), 32, None, None))
    with pytest.raises(ConfigError, match='init = "whole" with layers = 3'):
        StudentSpec(layers=3)


def test_a_trimmed_vocabulary_cuts_the_corpus_as_before_and_scores_it_alike(folder: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    kept = kept_ids(tokenizer, CORPUS[:1])
    found = trim(model, tokenizer, kept)
    assert len(kept) < len(tokenizer)
    assert found.model.get_input_embeddings().weight.shape[0] == len(kept) == len(found.tokenizer)
    text = CORPUS[0]
    before, after = (one(text)["input_ids"] for one in (tokenizer, found.tokenizer))
    assert [found.new_ids[number] for number in before] == after
    expected = logits(model, tuple(before))[:, list(kept)]
    assert torch.allclose(logits(found.model, tuple(after)), expected, atol=1e-5)
    strange = "Ωunseen 🙂 text"
    assert found.tokenizer.decode(found.tokenizer(strange)["input_ids"]) == strange, "every text can still be written"
    talk = [{"role": "user", "content": text}]
    one, other = (
        tok.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
        for tok in (tokenizer, found.tokenizer)
    )
    assert found.tokenizer.decode(other) == tokenizer.decode(one)
    assert found.model.generation_config.eos_token_id == [found.new_ids[0], found.new_ids[2]]
    assert found.tokenizer.eos_token_id == found.new_ids[tokenizer.eos_token_id]


@settings(max_examples=15, deadline=None)
@given(
    words=st.lists(st.sampled_from([*" ".join(CORPUS).split(), " ", "<|im_end|>", "é", "\n"]), min_size=1, max_size=8)
)
def test_any_text_that_was_kept_is_cut_as_before(loaded: tuple[Any, Any], words: list[str]) -> None:
    model, tokenizer = loaded
    text = " ".join(words)
    found = trim(model, tokenizer, kept_ids(tokenizer, [text]))
    before, after = (one(text)["input_ids"] for one in (tokenizer, found.tokenizer))
    assert [found.new_ids[number] for number in before] == after
    assert found.tokenizer.decode(after) == tokenizer.decode(before)


@pytest.mark.parametrize("around", ["roberta", "template"])
def test_trap_c6_a_trimmed_student_keeps_every_end_and_the_tokenizers_settings(folder: Path, around: str) -> None:
    """Ends that are ordinary tokens and in no text; what a template writes around text; and what the last call left."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    model.generation_config.eos_token_id = [0, 300, 2]
    model.config.eos_token_id, model.config.bos_token_id = 310, 2
    tokenizer.model_max_length, tokenizer.padding_side = 77, "left"
    tokenizer.add_tokens(["<|sep|>"], special_tokens=True)
    marks = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<|sep|>", "<|im_start|>")]
    tokenizer.backend_tokenizer.post_processor = (
        processors.RobertaProcessing(*marks, add_prefix_space=False)
        if around == "roberta"
        else processors.Sequence([processors.TemplateProcessing("<|im_start|> $A <|sep|>", special_tokens=marks)])
    )
    kept = kept_ids(tokenizer, ["the"])
    assert not {300, 310} & set(kept)
    tokenizer(["a", "the film"], padding=True, truncation=True, max_length=4)
    left = json.loads(tokenizer.backend_tokenizer.to_str())
    assert left["padding"] and left["truncation"]
    found = trim(model, tokenizer, kept)
    said = json.loads(found.tokenizer.backend_tokenizer.to_str())
    assert said["padding"] is None and said["truncation"] is None
    ends = found.model.generation_config.eos_token_id
    assert ends == [found.new_ids[number] for number in (0, 300, 2)]
    assert found.model.config.eos_token_id == found.new_ids[310] != 310
    assert found.model.config.bos_token_id == found.new_ids[2] and not found.model.training
    words = (tokenizer.convert_ids_to_tokens([0, 300, 2]), found.tokenizer.convert_ids_to_tokens(ends))
    assert words[0] == words[1]
    assert (found.tokenizer.model_max_length, found.tokenizer.padding_side) == (77, "left")
    one, other = (tok("the", add_special_tokens=True)["input_ids"] for tok in (tokenizer, found.tokenizer))
    assert [found.new_ids[number] for number in one] == other


def test_a_tokenizer_of_another_model_is_not_trimmed(loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    with pytest.raises(ConfigError, match=r"the tokenizer knows id 2\d\d, the model only 61"):
        trim(student("llama"), tokenizer, kept_ids(tokenizer, ["the"]))


def test_a_base_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="none cannot be loaded"):
        make(StudentSpec(), tmp_path / "none", tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "decoder"),
    [
        (models.WordLevel({"a": 0, "b": 1}, unk_token="a"), decoders.ByteLevel()),
        (models.BPE({"a": 0, "b": 1}, []), decoders.BPEDecoder()),
        (models.BPE({"a": 0, "b": 1}, [], byte_fallback=True), decoders.ByteLevel()),
    ],
    ids=("words", "characters", "fallback"),
)
def test_another_kind_of_tokenizer_is_not_trimmed(kind: Any, decoder: Any) -> None:
    inner = Tokenizer(kind)
    inner.decoder = decoder
    with pytest.raises(ConfigError, match=f"the tokenizer is {type(kind).__name__}, not byte-level BPE"):
        kept_ids(PreTrainedTokenizerFast(tokenizer_object=inner), ["a"])


@pytest.mark.parametrize(
    "spec",
    [
        StudentSpec(),
        StudentSpec("pruned", layers=1),
        StudentSpec("pruned", layers=1, keep="importance", hidden=24, neurons=40, heads=2),
        StudentSpec("random", layers=3, hidden=16, neurons=20, heads=2),
        StudentSpec("pruned", layers=1, trim_vocabulary=True),
    ],
    ids=("whole", "depth", "width", "random", "trimmed"),
)
def test_trap_c6_every_student_ends_as_its_base_did(folder: Path, tmp_path: Path, spec: StudentSpec) -> None:
    facts = make(spec, folder, tmp_path / "out", CORPUS)
    read = Causal.load(tmp_path / "out")
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert facts["parameters"] == sum(p.numel() for p in read.model.parameters())
    assert facts["layers"] == read.model.config.num_hidden_layers
    ends = read.model.generation_config.eos_token_id
    assert tokenizer.convert_ids_to_tokens(ends) == ["<|endoftext|>", "<|im_end|>"]
    assert tokenizer.chat_template
    ids = torch.tensor(tokenizer("the film")["input_ids"])
    assert torch.isfinite(read.head().logits(read.hidden(ids, (len(ids),)))).all()


def test_random_starts_are_the_seeds(folder: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    before = torch.get_rng_state()
    one, same, other = (shaped(StudentSpec("random", seed=seed), model, tokenizer).model for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(logits(one), logits(same))
    assert not torch.equal(logits(one), logits(other))
    with pytest.raises(ConfigError, match="30 channels on 4 heads"):
        shaped(StudentSpec("random", hidden=30), model, tokenizer)
    with pytest.raises(ConfigError, match="3 heads in groups of 2"):
        shaped(StudentSpec("random", heads=3), model, tokenizer)
    assert shaped(StudentSpec("random", heads=2), model, tokenizer).model.config.num_key_value_heads == 1


@pytest.mark.parametrize(
    "spec",
    [
        StudentSpec("pruned", layers=1, keep="importance"),
        StudentSpec("pruned", neurons=8),
        StudentSpec(trim_vocabulary=True),
    ],
    ids=("importance", "width", "trimmed"),
)
def test_what_is_judged_by_text_needs_some(loaded: tuple[Any, Any], spec: StudentSpec) -> None:
    with pytest.raises(ConfigError, match="no text to judge"):
        shaped(spec, *loaded)


def test_layers_are_kept_as_asked_and_a_template_is_written(folder: Path, tmp_path: Path) -> None:
    asked = StudentSpec("pruned", layers=1, keep="importance")
    base = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        base.model.layers[0].mlp.down_proj.weight.zero_()
        base.model.layers[0].self_attn.o_proj.weight.zero_()
    base.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "base")
    make(asked, tmp_path / "base", tmp_path / "out", CORPUS, template="{{ messages[0].content }}")
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(made.model.layers[0].mlp.up_proj.weight, base.model.layers[1].mlp.up_proj.weight)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == "{{ messages[0].content }}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"init": "depth"}, "init = 'depth'"),
        ({"init": "pruned", "keep": "last"}, "keep = 'last'"),
        ({"init": "pruned", "layers": 0}, "layers = 0"),
        ({"init": "random", "neurons": -4}, "neurons = -4"),
    ],
)
def test_a_student_of_no_known_kind_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StudentSpec(**given)


@pytest.mark.parametrize(
    "spec",
    [
        StudentSpec("random", trim_vocabulary=True),
        StudentSpec("pruned", keep="importance"),
        StudentSpec("pruned", heads=2),
    ],
)
@pytest.mark.parametrize("texts", [(), ("", "")])
def test_what_is_judged_on_text_needs_some(loaded: tuple[Any, Any], spec: StudentSpec, texts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="no text to judge"):
        shaped(spec, *loaded, texts)


def test_a_random_start_of_another_layout_keeps_its_widths(loaded: tuple[Any, Any]) -> None:
    gpt2 = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", n_embd=16, n_layer=2, n_head=2, vocab_size=61))
    facts = shaped(StudentSpec("random", layers=1), gpt2, loaded[1]).facts
    assert facts["layers"] == 1 and facts["parameters"] < facts["base_parameters"]
    with pytest.raises(ConfigError, match="GPT2Config names its sizes in a way of its own"):
        shaped(StudentSpec("random", hidden=8), gpt2, loaded[1])
    with pytest.raises(ConfigError, match=r"LlamaConfig takes no .*hidden_size = 33"):
        shaped(StudentSpec("random", hidden=33), *loaded)


def source_for(model: Any, teaching: Any) -> DataSource:
    ids = DOCUMENTS[0]
    return DataSource([Example(ids, tuple(range(8, 20)), "a")], teaching, TrainTable(epochs=1.0, batch_size=1), 0)


def test_traps_b2_b10_f6_adapters_learn_from_the_teacher_and_merge_without_loss(tmp_path: Path) -> None:
    base = student("llama")
    before = logits(base)
    model = add_lora(student("llama"), 4, 8.0)
    learner = Causal(model)
    choose_trainable(learner, TrainTable(epochs=1.0))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    assert torch.allclose(logits(model), before, atol=1e-6), "adapters begin as nothing"
    gradients = []
    for teaching in (
        Words(loss_named("cross-entropy")),
        LiveTeacher(Causal(student("llama", seed=5)), loss_named("forward-kl")),
    ):
        model.zero_grad()
        take(learner, source_for(model, teaching), (0,), Fit(None), 1e9, precision("float32"))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert gradients[0].norm() > 0
    assert not torch.allclose(*gradients)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
    changed = logits(model)
    assert not torch.allclose(changed, before, atol=1e-3)
    with model.disable_adapter():
        assert torch.allclose(logits(model), before, atol=1e-6)
    save_lora(model, tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    again = load_lora(student("llama"), tmp_path)
    assert torch.allclose(logits(again), changed, atol=1e-6)
    assert torch.allclose(logits(merge(model)), changed, atol=1e-4)


def test_adapters_nobody_can_place_are_refused() -> None:
    with pytest.raises(ConfigError, match="takes no adapter on c_attn"):
        add_lora(student("llama"), 4, 8.0, ("q_proj", "c_attn"))
    with pytest.raises(ConfigError, match="takes no adapter on lm_head"):
        add_lora(student("llama"), 4, 8.0, ("lm_head",))
    with pytest.raises(ConfigError, match="rank = 0"):
        add_lora(student("llama"), 0, 8.0)
