"""The architectures that are compared, each as a tiny configuration with the traits that set it apart. How they are made into files
belongs to `tiny_models` and `write_gguf`, how they are compared to `architectures`."""

import dataclasses
import functools
from collections.abc import Callable

import transformers

import chat_templates
import tiny_tokenizers

PLAIN_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FUSED_TARGETS = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
LLAMA_MARKS = {"unk": (0, "<unk>"), "bos": (1, "<s>"), "eos": (2, "</s>")}
GEMMA_MARKS = {"pad": (0, "<pad>"), "eos": (1, "<eos>"), "bos": (2, "<bos>"), "unk": (3, "<unk>")}

# Which types can be read does not depend on the architecture, so one of them is served in all.
FORMATS = ("directory f32", "directory bf16 published", "F32", "F16", "Q8_0")
WITH_K_QUANT = (*FORMATS, "Q4_K_M")
ALL_FORMATS = (*WITH_K_QUANT, "directory bf16", "directory f16 sharded", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_K_M", "Q6_K")
K_QUANTS = ("Q4_K_M", "Q5_K_M", "Q6_K")


@dataclasses.dataclass
class Case:
    """`window` is the sliding window in tokens, if any, and `llama_cpp_window` whether llama.cpp applies it to this architecture.
    `served_length` limits the server's context, `padding_rows` adds embeddings beyond the tokenizer's vocabulary, `long_prompt` is the
    length of the longest prompt in tokens."""

    name: str
    config: Callable[..., transformers.PreTrainedConfig]
    tokenizer: Callable[[], tiny_tokenizers.SpelledTokenizer]
    formats: tuple[str, ...]
    targets: tuple[str, ...] = PLAIN_TARGETS
    window: int | None = None
    llama_cpp_window: bool = True
    served_length: int | None = None
    padding_rows: int = 0
    long_prompt: int = 150


def llama3_tokenizer():
    marks = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    return tiny_tokenizers.byte_level(
        pre="llama-bpe",
        words=tiny_tokenizers.LLAMA3_WORDS,
        template=chat_templates.LLAMA3,
        specials=marks,
        beginning=marks[0],
        end=marks[4],
        whole_words_first=True,
    )


def qwen_tokenizer(template, plain_marks=()):
    return tiny_tokenizers.byte_level(
        pre="qwen2",
        words=tiny_tokenizers.QWEN2_WORDS,
        template=template,
        specials=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        plain_marks=plain_marks,
        end="<|im_end|>",
        padding="<|endoftext|>",
        nfc=True,
    )


def llama_tokenizer(template):
    return tiny_tokenizers.sentence_pieces(template=template, adds_space=True, marks=LLAMA_MARKS)


def phi3_tokenizer():
    # The end of text and the marks of turns swallow the white space after them, in the published tokenizer as well.
    turns = ["<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
    return tiny_tokenizers.sentence_pieces(
        template=chat_templates.PHI3,
        adds_space=True,
        marks=LLAMA_MARKS,
        added=["<|endoftext|>", *turns],
        strips_right=["</s>", *turns],
    )


def gemma_tokenizer():
    return tiny_tokenizers.sentence_pieces(
        template=chat_templates.GEMMA3,
        adds_space=False,
        marks=GEMMA_MARKS,
        controls=["<start_of_turn>", "<end_of_turn>"],
        user_defined=["\n", "\n\n", "▁▁"],
    )


def sizes(hidden, heads, key_heads, inner, layers, **others):
    return {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "max_position_embeddings": 512,
    } | others


def configured(kind, **values):
    return functools.partial(kind, **values)


def phi3(name, *, rope=None, window=None, longest=512, trained=512, **traits):
    shape = sizes(256, 4, 2, 512, 2, max_position_embeddings=longest, original_max_position_embeddings=trained)
    rope = {"rope_type": "default", "rope_theta": 10000.0} | (rope or {})
    return Case(
        name,
        configured(transformers.Phi3Config, **shape, rope_parameters=rope, sliding_window=window),
        phi3_tokenizer,
        WITH_K_QUANT,
        targets=FUSED_TARGETS,
        window=window,
        llama_cpp_window=False,
        **traits,
    )


def longrope(trained, width=64):
    """`width` of each head's 64 values are rotated."""
    return {
        "rope_type": "longrope",
        "short_factor": [1.0 + 0.02 * index for index in range(width // 2)],
        "long_factor": [1.1 + 0.09 * index**1.2 for index in range(width // 2)],
        "original_max_position_embeddings": trained,
        "partial_rotary_factor": width / 64,
    }


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
GEMMA3_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
}
GEMMA3 = sizes(256, 2, 1, 512, 7, head_dim=256, sliding_window=24, rope_parameters=GEMMA3_ROPE)

CASES = [
    Case(
        "llama3",
        configured(transformers.LlamaConfig, **sizes(256, 4, 2, 512, 3, rope_parameters=LLAMA3_ROPE)),
        llama3_tokenizer,
        ALL_FORMATS,
        long_prompt=400,
    ),
    Case(
        "llama3-tied",
        configured(transformers.LlamaConfig, **sizes(192, 3, 3, 320, 2, tie_word_embeddings=True)),
        llama3_tokenizer,
        ("directory bf16", "F16", "Q8_0"),
    ),
    Case(
        "llama2",
        configured(
            transformers.LlamaConfig,
            **sizes(128, 4, 4, 320, 2, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}),
        ),
        functools.partial(llama_tokenizer, chat_templates.LLAMA2),
        FORMATS,
    ),
    Case(
        "mistral",
        configured(transformers.MistralConfig, **sizes(256, 8, 2, 512, 2, sliding_window=24)),
        functools.partial(llama_tokenizer, chat_templates.MISTRAL),
        WITH_K_QUANT,
        window=24,
        llama_cpp_window=False,
    ),
    Case(
        "qwen2",
        configured(transformers.Qwen2Config, **sizes(128, 4, 2, 192, 2, tie_word_embeddings=True)),
        functools.partial(qwen_tokenizer, chat_templates.QWEN2),
        FORMATS,
        padding_rows=7,
    ),
    Case(
        "qwen3",
        configured(transformers.Qwen3Config, **sizes(256, 4, 2, 768, 2, head_dim=128)),
        functools.partial(qwen_tokenizer, chat_templates.QWEN3, ("<think>", "</think>")),
        WITH_K_QUANT,
    ),
    Case(
        "gemma3",
        configured(transformers.Gemma3TextConfig, **GEMMA3, query_pre_attn_scalar=256),
        gemma_tokenizer,
        WITH_K_QUANT,
        window=24,
    ),
    # GGUF has no key for the scale of queries, so only a directory can ask for another one than the head's width.
    Case(
        "gemma3-scaled-queries",
        configured(transformers.Gemma3TextConfig, **GEMMA3, query_pre_attn_scalar=168),
        gemma_tokenizer,
        ("directory bf16", "directory bf16 published"),
        window=24,
    ),
    phi3("phi3", window=24),
    phi3("phi3-longrope-long", rope=longrope(64), trained=64),
    phi3("phi3-longrope-short", rope=longrope(1024, width=48), trained=1024, longest=4096, served_length=1024),
]
