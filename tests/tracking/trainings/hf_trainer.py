"""Transformers' Trainer: a callback."""

import sys
import tempfile
from typing import Any

import torch
from transformers import OPTConfig, OPTForCausalLM, Trainer, TrainingArguments

from harness.integrations.transformers import NeuronHealthCallback

output, lr = sys.argv[1], float(sys.argv[2])
torch.manual_seed(0)
small: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "ffn_dim": 32,
    "num_attention_heads": 2,
    "word_embed_proj_dim": 16,
}
model = OPTForCausalLM(OPTConfig(vocab_size=32, max_position_embeddings=16, **small))
tokens = torch.randint(2, 32, (240, 8))
data = [{"input_ids": row, "labels": row} for row in tokens]
health = NeuronHealthCallback(10, output=output, config={"lr": lr}, evidence=True, say=False)
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder,
        max_steps=30,
        per_device_train_batch_size=8,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        learning_rate=lr,
    )
    Trainer(model, arguments, train_dataset=data, callbacks=[health]).train()
