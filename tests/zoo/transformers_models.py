"""Transformers from tiny configurations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo.models import Animal, AxisRule, any_loss, by_caller, channels, image, last, own_loss

WIDTHS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TINY = WIDTHS | {"vocab_size": 50, "max_position_embeddings": 32}
GROUPED = TINY | {"num_key_value_heads": 1, "head_dim": 8}  # Llama and its kin
EXPERTS = GROUPED | {"num_experts_per_tok": 1}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 50}
T5 = SPECIAL | {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 2,
}
BART = SPECIAL | {"d_model": 16, "decoder_start_token_id": 1, "max_position_embeddings": 32}
for _side in ("encoder", "decoder"):
    BART |= {f"{_side}_layers": 1, f"{_side}_attention_heads": 2, f"{_side}_ffn_dim": 32}


def make(config: str, model: str, options: dict[str, Any]) -> nn.Module:
    import transformers

    return getattr(transformers, model)(getattr(transformers, config)(**options)).train()


def tokens() -> dict[str, Tensor]:
    ids = torch.randint(3, 50, (2, 7))
    return {"input_ids": ids, "labels": ids}


def language(name: str, model: str, base: dict[str, Any], *, axis: AxisRule = last, **options: Any) -> Animal:
    """A model of text, whose class begins as its configuration's does: OPTForCausalLM, OPTConfig."""
    config = model.split("For")[0].removesuffix("LMHeadModel") + "Config"
    return Animal(f"hf/{name}", lambda: make(config, model, base | options), tokens, own_loss, axis)


def vision(name: str, model: str, size: int, axis: AxisRule, options: dict[str, Any]) -> Animal:
    config = model.split("For")[0] + "Config"

    def pixels() -> dict[str, Tensor]:
        return {"pixel_values": image(size)()}

    return Animal(f"hf/{name}", lambda: make(config, model, options), pixels, any_loss, axis)


def decoders() -> Iterator[Animal]:
    yield language("opt", "OPTForCausalLM", TINY, ffn_dim=32, word_embed_proj_dim=16)
    yield language("gpt2", "GPT2LMHeadModel", SPECIAL, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    yield language("llama", "LlamaForCausalLM", GROUPED)
    yield language("gemma", "GemmaForCausalLM", GROUPED, hidden_activation="gelu_pytorch_tanh")
    yield language("phi", "PhiForCausalLM", SPECIAL | TINY)
    yield language("gpt_neox", "GPTNeoXForCausalLM", TINY)
    # Each token chooses its part of one weight: units cannot be told apart, and are unobserved.
    chosen = ("*.mlp.experts.act_fn:silu",)
    mixtral = language("mixtral", "MixtralForCausalLM", EXPERTS, num_local_experts=2)
    yield replace(mixtral, exempt=chosen)
    widths = {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 40}
    qwen = language("qwen2_moe", "Qwen2MoeForCausalLM", EXPERTS | widths, num_experts=2)
    yield replace(qwen, exempt=chosen)
    # A selective state space works on (batch, channels, time).
    small = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    yield language("mamba", "MambaForCausalLM", SPECIAL | small, axis=lambda caller, z: 1)


def encoders() -> Iterator[Animal]:
    for name, family in {"bert": "Bert", "roberta": "Roberta"}.items():
        yield language(name, f"{family}ForMaskedLM", TINY)
    for name, family in {"electra": "Electra", "albert": "Albert"}.items():
        yield language(name, f"{family}ForMaskedLM", TINY, embedding_size=16)
    bottleneck = {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16}
    yield language("mobilebert", "MobileBertForMaskedLM", TINY | bottleneck, hidden_act="relu")
    yield language("deberta_v2", "DebertaV2ForMaskedLM", TINY, pos_att_type=["p2c", "c2p"])
    yield language(
        "distilbert", "DistilBertForMaskedLM", SPECIAL, dim=16, hidden_dim=32, n_layers=2, n_heads=2
    )


def both() -> Iterator[Animal]:
    start = {"decoder_start_token_id": 0}
    yield language("t5", "T5ForConditionalGeneration", T5 | start)
    yield language("t5_gated", "T5ForConditionalGeneration", T5 | start, feed_forward_proj="gated-gelu")
    sparse = {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "expert_capacity": 16}
    yield language("switch", "SwitchTransformersForConditionalGeneration", T5 | start | sparse, num_experts=2)
    yield language("bart", "BartForConditionalGeneration", BART)
    yield language("pegasus", "PegasusForConditionalGeneration", BART)


def seeing() -> Iterator[Animal]:
    yield vision("vit", "ViTForImageClassification", 32, last, WIDTHS | {"image_size": 32, "patch_size": 8})
    stages: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2]}
    yield vision(
        "resnet", "ResNetForImageClassification", 32, channels, stages | {"layer_type": "bottleneck"}
    )
    yield vision("regnet", "RegNetForImageClassification", 32, channels, stages | {"groups_width": 4})
    stages = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
    yield vision("convnext", "ConvNextForImageClassification", 32, last, stages)
    yield vision("mobilenet_v2", "MobileNetV2ForImageClassification", 32, channels, {"image_size": 32})
    stages = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "image_size": 32}
    yield vision("swin", "SwinForImageClassification", 32, last, stages | {"window_size": 4})
    stages = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
    head = by_caller(last, {"decode_head*": channels})
    yield vision(
        "segformer", "SegformerForSemanticSegmentation", 64, head, stages | {"decoder_hidden_size": 16}
    )


def hearing() -> Iterator[Animal]:
    whisper = BART | {"num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 16}
    yield Animal(
        "hf/whisper",
        lambda: make("WhisperConfig", "WhisperForConditionalGeneration", whisper),
        lambda: {"input_features": torch.randn(2, 8, 40), "labels": torch.randint(3, 50, (2, 5))},
        own_loss,
        by_caller(last, {"model.encoder": 1}),  # GELUs after the convolutions over time
    )
    convolutions = {
        "conv_dim": [8, 8],
        "conv_stride": [4, 2],
        "conv_kernel": [8, 4],
        "num_feat_extract_layers": 2,
    }
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0}
    yield Animal(
        "hf/wav2vec2",
        lambda: make("Wav2Vec2Config", "Wav2Vec2Model", WIDTHS | convolutions | positions),
        lambda: {"input_values": torch.randn(2, 400)},
        any_loss,
        by_caller(last, {"feature_extractor*": 1, "encoder.pos_conv_embed*": 1}),
    )
    filters = {"num_filters": 4, "hidden_size": 8, "upsampling_ratios": [4, 2], "num_lstm_layers": 1}
    codes = {"codebook_dim": 8, "codebook_size": 16, "sampling_rate": 800, "target_bandwidths": [1.5]}
    yield Animal(
        "hf/encodec",
        lambda: make("EncodecConfig", "EncodecModel", filters | codes),
        lambda: {"input_values": torch.randn(1, 1, 320)},
        any_loss,
        lambda caller, z: 1,
    )


def animals() -> list[Animal]:
    if find_spec("transformers") is None:
        return []
    return [*decoders(), *encoders(), *both(), *seeing(), *hearing()]
