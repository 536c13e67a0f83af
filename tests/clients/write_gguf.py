"""GGUF files of transformers' models, with the keys and names that llama.cpp's converter gives each architecture, and their weights
read back for reference. Quantisation to K-quants is llama.cpp's own, in `llama_cpp_reference`."""

import gguf
import numpy
import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "phi3": gguf.MODEL_ARCH.PHI3,
}
# What the general table of names gets wrong: Gemma has a norm after attention where others have one before the feed-forward part.
GEMMA_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def tensor_name(name, config):
    """The GGUF name of a transformers parameter."""
    stem, _, suffix = name.rpartition(".")
    parts = stem.split(".")
    if config.model_type == "gemma3_text" and parts[-1] in GEMMA_NORMS:
        return f"blk.{parts[2]}.{GEMMA_NORMS[parts[-1]]}.{suffix}"
    names = gguf.get_tensor_name_map(ARCHITECTURES[config.model_type], config.num_hidden_layers)
    return f"{names.get_name(stem)}.{suffix}"


def head_dimension(config):
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def permuted_heads(name, config):
    """How many heads of rows are reordered in a tensor of llama files, whose rotary pairs are neighbours."""
    if config.model_type in ("llama", "mistral"):
        return {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    return None


def to_gguf(name, value, config):
    if heads := permuted_heads(name, config):
        halves = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
        return halves.swapaxes(1, 2).reshape(value.shape)
    return value + 1 if config.model_type == "gemma3_text" and "norm" in name else value


def from_gguf(name, value, config):
    if heads := permuted_heads(name, config):
        pairs = value.reshape(heads, value.shape[0] // heads // 2, 2, *value.shape[1:])
        return pairs.swapaxes(1, 2).reshape(value.shape)
    return value - 1 if config.model_type == "gemma3_text" and "norm" in name else value


def parameters(model):
    """The parameters a file holds: a tied head is left to the embedding."""
    tied = model.config.tie_word_embeddings
    return {name: value for name, value in model.state_dict().items() if not (tied and name == "lm_head.weight")}


def write(path, model, tokenizer, kind, name):
    """Writes `model` with matrices of the GGML type named `kind`; a matrix whose rows do not fit its blocks stays f16."""
    config = model.config
    architecture = ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}" if kind != "F32" else "ALL_F32"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_hyperparameters(writer, config)
    add_tokenizer(writer, tokenizer, config)
    for parameter, value in parameters(model).items():
        value = to_gguf(parameter, value.float().numpy(), config)
        add_tensor(writer, tensor_name(parameter, config), numpy.ascontiguousarray(value), gguf.GGMLQuantizationType[kind])
    for factors, value in rotary_factors(config).items():
        writer.add_tensor(factors, value.numpy().astype(numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tensor(writer, name, value, kind):
    if value.ndim == 1:
        kind = gguf.GGMLQuantizationType.F32
    elif value.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] != 0:
        kind = gguf.GGMLQuantizationType.F16
    writer.add_tensor(name, gguf.quants.quantize(value.astype(numpy.float32), kind), raw_dtype=kind)


def add_hyperparameters(writer, config):
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type not in ("qwen2", "phi3"):
        writer.add_key_length(head_dimension(config))
        writer.add_value_length(head_dimension(config))
    if config.model_type in ("llama", "mistral", "phi3"):
        writer.add_rope_dimension_count(int(head_dimension(config) * config.rope_parameters.get("partial_rotary_factor", 1.0)))
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if config.model_type == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
    if rope["rope_type"] == "longrope":
        writer.add_rope_scaling_attn_factors(ROPE_INIT_FUNCTIONS["longrope"](config, None)[1])


def rotary_factors(config):
    """The tensors of divisors of the rotary frequencies: those of Llama 3, or the two sets of longrope."""
    rope = config.rope_parameters
    match rope.get("rope_type"):
        case "llama3":
            width = head_dimension(config)
            plain = rope["rope_theta"] ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
            return {"rope_freqs.weight": plain / ROPE_INIT_FUNCTIONS["llama3"](config, None)[0]}
        case "longrope":
            return {f"rope_factors_{length}.weight": torch.tensor(rope[f"{length}_factor"]) for length in ("long", "short")}
    return {}


def add_tokenizer(writer, tokenizer, config):
    padding = config.vocab_size - len(tokenizer.tokens)
    writer.add_tokenizer_model(tokenizer.model)
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(tokenizer.tokens + [f"[PAD{len(tokenizer.tokens) + index}]" for index in range(padding)])
    writer.add_token_types(tokenizer.types + [gguf.TokenType.UNUSED] * padding)
    if tokenizer.scores is not None:
        writer.add_token_scores(tokenizer.scores + [-1000.0] * padding)
        writer.add_add_space_prefix(tokenizer.adds_space)
    if tokenizer.merges is not None:
        writer.add_token_merges(tokenizer.merges)
    fast = tokenizer.fast
    if fast.bos_token_id is not None:
        writer.add_bos_token_id(fast.bos_token_id)
    writer.add_eos_token_id(fast.eos_token_id)
    if fast.unk_token_id is not None:
        writer.add_unk_token_id(fast.unk_token_id)
    if fast.pad_token_id is not None:
        writer.add_pad_token_id(fast.pad_token_id)
    writer.add_add_bos_token(tokenizer.adds_beginning)
    writer.add_chat_template(fast.chat_template)


def read_weights(path, model):
    """The weights of a file, dequantised to f32, under transformers' names and in its order of rows."""
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    weights = {}
    for name, like in parameters(model).items():
        tensor = tensors[tensor_name(name, model.config)]
        value = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(like.shape).astype(numpy.float32)
        weights[name] = torch.from_numpy(numpy.ascontiguousarray(from_gguf(name, value, model.config)))
    return weights
