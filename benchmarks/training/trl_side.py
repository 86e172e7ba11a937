"""TRL's side: `python -m benchmarks.training.trl_side live|onpolicy`, its trainers as they are but for the order of rows."""

import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from benchmarks.training.common import (
    BATCH,
    LEARNING_RATE,
    LIMIT_TOKENS,
    NEW_TOKENS,
    Clock,
    arguments,
    conversations,
    peak_gb,
    said,
    weights,
)


def main() -> None:
    chosen = arguments()
    with peak_gb() as peak, tempfile.TemporaryDirectory() as out:
        teacher_folder, student_folder = weights(chosen.cache)
        tokenizer = AutoTokenizer.from_pretrained(student_folder)
        talks = conversations(chosen.data, 20 * BATCH * chosen.steps)
        sizes = [len(tokenizer.apply_chat_template(talk, return_dict=False)) for talk in talks]
        talks = [talk for talk, size in zip(talks, sizes, strict=True) if size <= LIMIT_TOKENS]
        student, teacher = (
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            for folder in (student_folder, teacher_folder)
        )
        common: dict[str, Any] = {
            "output_dir": out, "per_device_train_batch_size": BATCH, "max_steps": chosen.steps + 1, "use_cpu": True,
            "bf16": chosen.precision == "bfloat16", "report_to": [], "logging_steps": 1, "save_strategy": "no",
            "learning_rate": LEARNING_RATE, "gradient_checkpointing": False, "lr_scheduler_type": "constant", "weight_decay": 0.0,
        }  # fmt: skip
        make = live if chosen.what == "live" else onpolicy
        trainer = make(common, student, teacher, tokenizer, talks[: BATCH * (chosen.steps + 1)])
        clock, tokens = Clock(), list[int]()
        watch(trainer, clock, tokens)
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    said(rates=clock.rates(), peak_gb=round(peak[0], 2), first_loss=losses[0])


def live(common: dict[str, Any], student: Any, teacher: Any, tokenizer: Any, talks: list[Any]) -> Any:
    """GKDTrainer off-policy with forward KL (its β = 0)."""
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    class InOrder(GKDTrainer):
        def _get_train_sampler(self, *given: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    settings = GKDConfig(**common, lmbda=0.0, beta=0.0, temperature=1.0, max_length=LIMIT_TOKENS, disable_dropout=True)
    rows = Dataset.from_list([{"messages": talk} for talk in talks])
    return InOrder(model=student, teacher_model=teacher, args=settings, train_dataset=rows, processing_class=tokenizer)


def onpolicy(common: dict[str, Any], student: Any, teacher: Any, tokenizer: Any, talks: list[Any]) -> Any:
    """DistillationTrainer, which is always on-policy, with reverse KL (its β = 1)."""
    from trl import DistillationConfig, DistillationTrainer

    settings = DistillationConfig(**common, beta=1.0, temperature=1.0, max_completion_length=NEW_TOKENS)
    rows = Dataset.from_list([{"prompt": talk[:1]} for talk in talks])
    return DistillationTrainer(
        model=student, teacher_model=teacher, args=settings, train_dataset=rows, processing_class=tokenizer
    )


def watch(trainer: Any, clock: Clock, tokens: list[int]) -> None:
    """Times whole steps and counts the tokens that are not padding."""
    compute, inside = trainer.compute_loss, {}

    def counted(model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
        if "attention_mask" in inputs:
            tokens.append(int(inputs["attention_mask"].sum()))
        else:
            tokens.append(int(inputs["prompt_mask"].sum() + inputs["completion_mask"].sum()))
        return compute(model, inputs, *given, **named)

    class Steps(TrainerCallback):
        def on_step_begin(self, *given: Any, **named: Any) -> None:
            tokens.clear()
            inside["step"] = clock.step(tokens)
            inside["step"].__enter__()

        def on_step_end(self, *given: Any, **named: Any) -> None:
            inside.pop("step").__exit__(None, None, None)

    trainer.compute_loss = counted
    trainer.add_callback(Steps())


if __name__ == "__main__":
    main()
