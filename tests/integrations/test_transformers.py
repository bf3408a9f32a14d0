"""NeuronHealthCallback against the real Trainer: the numbers of a Recorder around a hand-written loop."""

from __future__ import annotations

import doctest
import json
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from pandas.testing import assert_frame_equal
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import harness
from harness.integrations.transformers import FILE, NeuronHealthCallback

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}") for message in (r".*pin_memory.*", r".*use_reentrant.*")
]

BATCH, BATCHES = 8, 12
EXACT = ["evidence", "step", "site", "unit", "n", "active", "silent_for", "state"]


class Plain(nn.Module):
    """A module of one's own, with the loss inside."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.act, self.two, self.three = (
            nn.Linear(6, 16),
            nn.ReLU(),
            nn.Linear(16, 8),
            nn.Linear(8, 1),
        )
        with torch.no_grad():
            self.one.bias[:4] = -50  # born dead

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        out = self.three(F.relu(self.two(self.act(self.one(x)))))
        return {"loss": (out.squeeze(1) - labels).square().mean(), "logits": out}


def plain_data() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    return [{"x": torch.randn(6, generator=generator), "labels": 1.0} for _ in range(BATCH * BATCHES)]


def bert() -> nn.Module:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
            hidden_act="relu", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip


def bert_data() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 50, (BATCH * BATCHES, 7), generator=generator)
    return [{"input_ids": row, "labels": int(row[0]) % 2} for row in ids]


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def gpt2_data() -> list[dict[str, Any]]:
    return [{"input_ids": row["input_ids"], "labels": row["input_ids"]} for row in bert_data()]


def host(
    path: Path, *callbacks: Any, model: nn.Module | None = None, data: Any = None, **options: Any
) -> Trainer:
    chosen: dict[str, Any] = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": BATCH,
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "logging_steps": 1000,
    }
    args = TrainingArguments(str(path), **(chosen | options))
    data = data or plain_data()
    return Trainer(
        model=model or Plain(),
        args=args,
        train_dataset=data,  # type: ignore[arg-type]
        eval_dataset=data[:16],  # type: ignore[arg-type]
        callbacks=list(callbacks),
    )


def by_hand(
    model: nn.Module, data: list[dict[str, Any]], *, every: int = 5, accumulate: int = 1, **options: Any
) -> pd.DataFrame:
    """The same training in an ordinary loop."""
    from torch.utils.data import default_collate

    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model.train()
    with harness.Recorder(model, optimizer=optimizer, census_every=every, **options) as recorder:
        for _ in range(2):
            for index in range(BATCHES):
                batch = default_collate(data[index * BATCH : (index + 1) * BATCH])
                batch = {k: v.float() if v.is_floating_point() else v for k, v in batch.items()}
                if isinstance(model, GPT2LMHeadModel):  # the Trainer's normalisation of the loss
                    batch["num_items_in_batch"] = torch.tensor(batch["labels"].numel())
                (model(**batch)["loss"] / accumulate).backward()
                if (index + 1) % accumulate == 0:
                    optimizer.step()
                    optimizer.zero_grad()
                    recorder.step()
    return recorder.history()


def untouched(model: nn.Module) -> None:
    for module in model.modules():
        assert not module._forward_hooks, module
        assert not module._forward_pre_hooks, module


@pytest.mark.parametrize(
    ("make", "data"),
    [(Plain, plain_data), (bert, bert_data), (gpt2, gpt2_data)],
    ids=["plain", "bert", "gpt2"],
)
def test_numbers_are_those_of_a_recorder(make: Any, data: Any, tmp_path: Path) -> None:
    health, model = NeuronHealthCallback(census_every=5), make()
    host(tmp_path, health, model=model, data=data()).train()
    expected = by_hand(make(), data())
    assert expected["step"].unique().tolist() == [5, 10, 15, 20, 24]
    assert (expected["grad_norm"] > 0).any()
    assert_frame_equal(health.history()[EXACT], expected[EXACT])
    assert_frame_equal(health.history(), expected, rtol=1e-5, atol=1e-7)
    untouched(model)


def test_training_is_bit_identical(tmp_path: Path) -> None:
    models = []
    for callbacks in (
        [],
        [NeuronHealthCallback(census_every=3, probe=[{"input_ids": torch.arange(7)[None]}])],
    ):
        model = bert()
        options = {"eval_strategy": "steps", "eval_steps": 7, "train_sampling_strategy": "random"}
        host(tmp_path, *callbacks, model=model, data=bert_data(), optim="adamw_torch", **options).train()
        models.append(model.state_dict())
    for name, value in models[0].items():
        assert torch.equal(value, models[1][name]), name


def test_accumulated_batches_are_one_window(tmp_path: Path) -> None:
    health = NeuronHealthCallback(census_every=2)
    host(tmp_path, health, gradient_accumulation_steps=3).train()
    expected = by_hand(Plain(), plain_data(), every=2, accumulate=3)
    assert expected["n"].unique().tolist() == [2 * 3 * BATCH]
    assert_frame_equal(health.history()[EXACT], expected[EXACT])
    assert_frame_equal(health.history(), expected, rtol=1e-4, atol=1e-6)


def test_evaluation_is_not_counted(tmp_path: Path) -> None:
    health = NeuronHealthCallback(census_every=5)
    trainer = host(tmp_path, health, eval_strategy="steps", eval_steps=3, eval_on_start=True)
    trainer.train()
    trainer.evaluate()
    trainer.predict(trainer.eval_dataset)  # type: ignore[arg-type]
    assert_frame_equal(health.history()[EXACT], by_hand(Plain(), plain_data())[EXACT])


def test_a_probe(tmp_path: Path) -> None:
    probe = [{"x": torch.stack([row["x"] for row in plain_data()[:32]]), "labels": torch.ones(32)}]
    health = NeuronHealthCallback(census_every=10, probe=probe)
    trainer = host(tmp_path, health)
    trainer.train()
    assert_frame_equal(health.history()[EXACT], by_hand(Plain(), plain_data(), every=10, probe=probe)[EXACT])
    logged = [row["step"] for row in trainer.state.log_history if "dead_fraction" in row]
    assert logged == [0, 10, 20, 24]


def test_metrics_reach_history_and_reporters(tmp_path: Path) -> None:
    class Listens(TrainerCallback):
        heard: list[int]

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "dead_fraction" in logs:
                self.heard.append(state.global_step)

    first = Listens()
    first.heard = []
    health = NeuronHealthCallback(census_every=5, per_site=True)
    trainer = host(tmp_path, first, health, logging_steps=10, report_to=["tensorboard"])
    trainer.train()
    census = health.history()
    dead = census.assign(dead=census["state"] == "dead").groupby("step")["dead"].mean().to_dict()
    logged = {
        row["step"]: row["dead_fraction"] for row in trainer.state.log_history if "dead_fraction" in row
    }
    assert logged == pytest.approx(dead)
    assert first.heard == [5, 10, 15, 20, 24]
    assert [row["step"] for row in trainer.state.log_history if "loss" in row] == [10, 20]  # its own entries
    events = EventAccumulator(str(next(tmp_path.rglob("events.*")).parent)).Reload()
    written = {event.step: event.value for event in events.Scalars("train/dead_fraction")}
    assert written == pytest.approx(dead)
    assert [event.step for event in events.Scalars("train/loss")] == [10, 20]
    assert {"train/dead_fraction/act", "train/dead_fraction/:relu"} <= set(events.Tags()["scalars"])


@pytest.mark.parametrize("moved", [False, True], ids=["in place", "moved"])
def test_a_checkpoint_goes_on_in_the_middle_of_a_window(tmp_path: Path, moved: bool) -> None:
    saving = {"save_strategy": "steps", "save_steps": 12}
    whole = NeuronHealthCallback(census_every=5)
    uninterrupted = host(tmp_path / "a", whole, **saving)
    uninterrupted.train()
    folder = tmp_path / "a" / "checkpoint-12"
    assert (folder / FILE).is_file()
    json.loads((folder / "trainer_state.json").read_text())
    if moved:
        folder = Path(shutil.move(folder, tmp_path / "elsewhere"))
    health = NeuronHealthCallback(census_every=5)
    resumed = host(tmp_path / ("b" if moved else "a"), health, **saving)
    resumed.train(resume_from_checkpoint=str(folder))
    assert_frame_equal(health.history(), whole.history())
    assert health.verdict == whole.verdict
    assert (
        resumed.state.log_history[-1]["dead_fraction"] == uninterrupted.state.log_history[-1]["dead_fraction"]
    )


def test_the_last_checkpoint_by_true(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 12}
    host(tmp_path, NeuronHealthCallback(census_every=5), max_steps=12, **saving).train()
    health = NeuronHealthCallback(census_every=5)
    host(tmp_path, health, **saving).train(resume_from_checkpoint=True)
    assert health.history()["step"].unique().tolist() == [5, 10, 15, 20, 24]


def test_a_second_training_begins_anew(tmp_path: Path) -> None:
    health = NeuronHealthCallback(census_every=5)
    trainer = host(tmp_path, health)
    trainer.train()
    trainer.train()
    assert health.history()["step"].unique().tolist() == [5, 10, 15, 20, 24]
    untouched(trainer.model)  # type: ignore[arg-type]


class Breaks(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 7:
            raise KeyboardInterrupt


def test_an_exception_leaves_nothing_behind(tmp_path: Path) -> None:
    health = NeuronHealthCallback(census_every=5)
    trainer = host(tmp_path, health, Breaks())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    untouched(trainer.model)  # type: ignore[arg-type]
    assert health.history()["step"].unique().tolist() == [5, 7]


def test_a_callback_that_was_added_later_is_closed_by_hand(tmp_path: Path) -> None:
    health = NeuronHealthCallback(census_every=5)
    trainer = host(tmp_path, Breaks())
    trainer.add_callback(health)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    health.close()
    untouched(trainer.model)  # type: ignore[arg-type]


def test_mixed_precision_and_activation_checkpointing(tmp_path: Path) -> None:
    counts = []
    known = {field.name for field in fields(TrainingArguments)}
    checkpointing = next(n for n in ("activation_checkpointing", "gradient_checkpointing") if n in known)
    for options in ({}, {"bf16": True}, {checkpointing: True}):
        health = NeuronHealthCallback(census_every=5)
        host(tmp_path, health, model=bert(), data=bert_data(), **options).train()
        counts.append(health.history()[["step", "site", "unit", "n"]])
    for other in counts[1:]:
        assert_frame_equal(other, counts[0])


def test_the_verdict_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    health = NeuronHealthCallback(census_every=5)
    host(tmp_path, health).train()
    assert health.verdict is not None
    assert capsys.readouterr().out.endswith(f"Neuron health at step 24. {health.verdict.text}\n")
    assert "4 were born dead" in health.verdict.text or health.verdict.born_dead > 4


def test_the_examples_in_the_docstrings() -> None:
    import harness.integrations.transformers as module

    failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert tried
    assert not failed


def test_without_the_library_the_message_names_the_extra() -> None:
    code = "import sys; sys.modules['transformers'] = None\nimport harness.integrations.transformers"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'dying-relu-harness[transformers]'" in done.stderr


def test_the_loss_scale_is_accelerates(tmp_path: Path) -> None:
    """A scaler as `fp16=True` makes one; on a CPU the Trainer makes none by itself."""
    scaled, plain = NeuronHealthCallback(census_every=24), NeuronHealthCallback(census_every=24)
    trainer = host(tmp_path / "scaled", scaled)
    trainer.accelerator.scaler = scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=5)
    trainer.train()
    host(tmp_path / "plain", plain).train()
    assert scaler.get_scale() > 256
    got, want = scaled.history(), plain.history()
    assert got.grad_rms.tolist() == pytest.approx(want.grad_rms.tolist(), rel=1e-4)
    assert (want.grad_rms > 1e-4).any()
