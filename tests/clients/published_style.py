"""Hugging Face directories as most published ones are: written before transformers 5 moved rotary settings into `rope_parameters` and chat
templates into files of their own. What is in them stays the same."""

import json
import pathlib


def rewrite(folder):
    """Rewrites `config.json` and `tokenizer_config.json` in the older style."""
    folder = pathlib.Path(folder)
    config = edit(folder / "config.json", older_config)
    template = (folder / "chat_template.jinja").read_text()
    edit(folder / "tokenizer_config.json", lambda settings: older_tokenizer(settings, template))
    (folder / "chat_template.jinja").unlink()
    if config.get("eos_token_id") is not None:
        edit(folder / "generation_config.json", lambda settings: settings | {"eos_token_id": [config["eos_token_id"]]})


def edit(path, change):
    values = change(json.loads(path.read_text()))
    path.write_text(json.dumps(values, indent=2))
    return values


def older_config(config):
    """The keys that transformers still reads for older files."""
    config["torch_dtype"] = config.pop("dtype")
    if config["hidden_size"] // config["num_attention_heads"] == config.get("head_dim") and config["model_type"] != "qwen3":
        del config["head_dim"]
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        config["sliding_window_pattern"] = config.pop("_sliding_window_pattern")
        del config["layer_types"]
        rope = rope["full_attention"]
    elif "layer_types" in config:
        del config["layer_types"]
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in rope:
            config[key] = rope.pop(key)
    if rope["rope_type"] == "longrope":
        rope["type"] = rope.pop("rope_type")
        config["original_max_position_embeddings"] = rope.pop("original_max_position_embeddings")
    config["rope_scaling"] = None if rope.get("rope_type") == "default" else rope
    return config


def older_tokenizer(settings, template):
    del settings["backend"]
    for mark in ("bos_token", "eos_token"):
        if settings.get(mark):
            added = {"content": settings[mark], "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
            settings[mark] = added | {"__type": "AddedToken"}
    return settings | {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
