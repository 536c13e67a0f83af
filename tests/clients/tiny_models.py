"""Random weights that make every part of a model matter, and PEFT adapters for them, by way of transformers and peft."""

import peft
import torch
import transformers

import published_style


def tiny_model(case, tokenizer, seed=11):
    """The case's model in f32 and evaluation mode. No norm is one, no bias is zero, and attention is far from uniform."""
    ids = tokenizer.fast
    config = case.config(
        vocab_size=len(tokenizer.tokens) + case.padding_rows,
        bos_token_id=ids.bos_token_id,
        eos_token_id=ids.eos_token_id,
        pad_token_id=ids.pad_token_id,
    )
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(random_values(name, parameter, config))
    model.generation_config.eos_token_id = ids.eos_token_id
    return model


def random_values(name, parameter, config):
    noise = torch.randn_like(parameter)
    if "norm" in name:
        # Gemma's norms scale by one more than their weight.
        return (0.0 if config.model_type.startswith("gemma") else 1.0) + 0.2 * noise
    if name.endswith("bias"):
        return 0.4 * noise
    scale = parameter.shape[-1] ** -0.5
    if any(part in name for part in ("q_proj", "k_proj", "qkv_proj")):
        return 1.2 * scale * noise
    return scale * noise


def with_weights(model, weights):
    """The same model with other weights, named as its own are; a tied head follows the embedding."""
    copy = transformers.AutoModelForCausalLM.from_config(model.config, dtype=torch.float32).eval()
    missing, unexpected = copy.load_state_dict(weights, strict=False)
    tied = ["lm_head.weight"] if model.config.tie_word_embeddings else []
    assert missing in ([], tied) and not unexpected, f"missing {missing}, unexpected {unexpected}"
    copy.tie_weights()
    return copy


def save_directory(model, tokenizer, folder, kind):
    """Writes a Hugging Face directory; `kind` is what follows "directory" in a format. Returns what transformers reads from it, in f32."""
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[kind.split()[0]]
    limit = {"max_shard_size": "400KB"} if kind.endswith("sharded") else {}
    with_weights(model, model.state_dict()).to(dtype).save_pretrained(folder, **limit)
    tokenizer.fast.save_pretrained(folder)
    if kind.endswith("published"):
        published_style.rewrite(folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def save_adapter(model, targets, folder, spread=0.06):
    """Saves an adapter of rank 5 and scale 3 whose A and B are both random; `spread` is the standard deviation of B."""
    torch.manual_seed(17)
    config = peft.LoraConfig(r=5, lora_alpha=15, target_modules=list(targets), task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_A" in name:
                parameter.normal_(0, parameter.shape[1] ** -0.5)
            elif "lora_B" in name:
                parameter.normal_(0, spread)
    adapted.save_pretrained(folder)
    adapted.unload()


def adapted(model, folder):
    """A copy of `model` with the adapter in `folder` upon it."""
    return peft.PeftModel.from_pretrained(with_weights(model, model.state_dict()), folder).eval()


def use_long_factors(model):
    """Makes longrope take its long factors for short prompts too, as a server does whose context is long."""
    for part in model.modules():
        if hasattr(part, "original_inv_freq") and getattr(part, "rope_type", None) == "longrope":
            trained = part.config.rope_parameters["original_max_position_embeddings"]
            make = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["longrope"]
            part.original_inv_freq.copy_(make(part.config, None, seq_len=trained + 1)[0])
            part.inv_freq.copy_(part.original_inv_freq)


def logprobs(model, ids):
    """Log-probabilities after each of `ids`: a matrix of positions by tokens."""
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), dim=-1)


def continuation(model, ids):
    """Log-probabilities after `ids`, then after each likeliest next token in turn, without end."""
    cache, new = None, list(ids)
    while True:
        with torch.no_grad():
            answer = model(torch.tensor([new]), past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = answer.past_key_values
        row = torch.log_softmax(answer.logits[0, -1].float(), dim=-1)
        yield row
        new = [row.argmax().item()]
