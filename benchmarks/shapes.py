"""The published shapes that the benchmarks measure, as the config.json of each model says them."""

from __future__ import annotations

from typing import Any

COMMON: dict[str, Any] = {"dtype": "bfloat16", "max_position_embeddings": 32768, "hidden_act": "silu"}
LLAMA: dict[str, Any] = COMMON | {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
}
QWEN2: dict[str, Any] = COMMON | {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "rope_theta": 1000000.0,
    "use_sliding_window": False,
}
QWEN3: dict[str, Any] = QWEN2 | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 128}


def _shape(base: dict[str, Any], sizes: tuple[int, ...], tied: bool = False, **more: Any) -> dict[str, Any]:
    hidden, layers, heads, kv_heads, ffn, vocabulary = sizes
    return base | {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": ffn,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        **more,
    }


SHAPES: dict[str, dict[str, Any]] = {
    "qwen2.5-0.5b": _shape(QWEN2, (896, 24, 14, 2, 4864, 151936), tied=True),
    "llama-3.2-1b": _shape(LLAMA, (2048, 16, 32, 8, 8192, 128256), tied=True, head_dim=64),
    "smollm2-1.7b": _shape(LLAMA, (2048, 24, 32, 32, 8192, 49152), tied=True),
    "granite-3.1-2b": _shape(
        COMMON, (2048, 40, 32, 8, 8192, 49155), tied=True,
        model_type="granite", architectures=["GraniteForCausalLM"],
        attention_multiplier=0.015625, embedding_multiplier=12.0, logits_scaling=8.0, residual_multiplier=0.22,
    ),
    "gemma-2-2b": _shape(
        COMMON, (2304, 26, 8, 4, 9216, 256000), tied=True,
        model_type="gemma2", architectures=["Gemma2ForCausalLM"], head_dim=256, hidden_activation="gelu_pytorch_tanh",
        hidden_act="gelu_pytorch_tanh", query_pre_attn_scalar=256, sliding_window=4096,
        attn_logit_softcapping=50.0, final_logit_softcapping=30.0,
    ),
    "llama-3.2-3b": _shape(LLAMA, (3072, 28, 24, 8, 8192, 128256), tied=True, head_dim=128),
    "starcoder2-3b": _shape(
        COMMON, (3072, 30, 24, 2, 12288, 49152), tied=True,
        model_type="starcoder2", architectures=["Starcoder2ForCausalLM"], hidden_act="gelu_pytorch_tanh",
        use_bias=True, sliding_window=4096, residual_dropout=0.0, embedding_dropout=0.0, attention_dropout=0.0,
    ),
    "phi-3-mini": _shape(
        COMMON, (3072, 32, 32, 32, 8192, 32064),
        model_type="phi3", architectures=["Phi3ForCausalLM"], pad_token_id=32000, sliding_window=None,
    ),
    "qwen3-4b": _shape(QWEN3, (2560, 36, 32, 8, 9728, 151936), tied=True),
    "olmo2-7b": _shape(
        COMMON, (4096, 32, 32, 32, 11008, 100352),
        model_type="olmo2", architectures=["Olmo2ForCausalLM"], rms_norm_eps=1e-6, pad_token_id=1,
    ),
    "mistral-7b": _shape(
        COMMON, (4096, 32, 32, 8, 14336, 32768),
        model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=None, head_dim=128,
    ),
    "qwen2.5-7b": _shape(QWEN2, (3584, 28, 28, 4, 18944, 152064)),
    "llama-3.1-8b": _shape(LLAMA, (4096, 32, 32, 8, 14336, 128256)),
    "phi-4": _shape(
        COMMON, (5120, 40, 40, 10, 17920, 100352),
        model_type="phi3", architectures=["Phi3ForCausalLM"], pad_token_id=100349, sliding_window=None,
    ),
    "qwen3-14b": _shape(QWEN3, (5120, 40, 40, 8, 17408, 151936)),
    "qwen2.5-1.5b": _shape(QWEN2, (1536, 28, 12, 2, 8960, 151936), tied=True),
    "smollm3-3b": _shape(
        COMMON, (2048, 36, 16, 4, 11008, 128256), tied=True,
        model_type="smollm3", architectures=["SmolLM3ForCausalLM"], pad_token_id=128004, no_rope_layer_interval=4,
    ),
    "falcon3-7b": _shape(LLAMA, (3072, 28, 12, 4, 23040, 131072), head_dim=256),
    "qwen3-8b": _shape(QWEN3, (4096, 36, 32, 8, 12288, 151936)),
    "llama-3.1-70b": _shape(LLAMA, (8192, 80, 64, 8, 28672, 128256)),
}  # fmt: skip
