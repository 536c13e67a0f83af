"""Random LoRA adapters in PEFT's format, the same bytes from the same number, and how they become GGUF for llama.cpp."""

import json
import pathlib

import gguf
import numpy
import safetensors.numpy

RANK = 8
ALPHA = 16
# Large enough that an adapter left out, or queries and keys in the wrong order, stand out from llama.cpp's rounding: with this value the mean
# difference of a log-probability is 0.1 when all is right, 0.4 to 0.6 when the order is wrong, above 1 without the adapter.
B_DEVIATION = 0.08
# PEFT's name of a projection and the tensor it becomes in a GGUF file.
PROJECTIONS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


class Shapes:
    """Sizes of a base model of the Llama family, read from its GGUF file."""

    def __init__(self, model):
        reader = gguf.GGUFReader(model)
        self.architecture = reader.fields["general.architecture"].contents()
        number = lambda key: int(reader.fields[f"{self.architecture}.{key}"].contents())  # noqa: E731
        self.layers = number("block_count")
        self.heads = number("attention.head_count")
        self.key_heads = number("attention.head_count_kv")
        # GGUF gives (columns, rows) of a matrix that has rows outputs.
        self.matrices = {name: tuple(int(size) for size in tensor.shape) for tensor in reader.tensors for name in [tensor.name] if len(tensor.shape) == 2}
        self.words = whole_words(reader.fields["tokenizer.ggml.tokens"].contents())

    def projection(self, name):
        """(inputs, outputs) of a projection, by PEFT's name."""
        return self.matrices[f"blk.0.{PROJECTIONS[name]}.weight"]


def whole_words(tokens):
    """Ids of the tokens that are a space and a lower-case word. "Ġ" is how byte-level BPE writes the space."""
    return [index for index, token in enumerate(tokens) if len(token) > 3 and token[0] == "Ġ" and token[1:].isascii() and token[1:].islower() and token[1:].isalpha()]


def matrices(shapes, number):
    """A and B of each module of adapter `number`, both random: a row of A has about the length 1, B is what B_DEVIATION says."""
    source = numpy.random.default_rng(number)
    found = {}
    for layer in range(shapes.layers):
        for name in PROJECTIONS:
            inputs, outputs = shapes.projection(name)
            a = source.standard_normal((RANK, inputs), dtype=numpy.float32) / numpy.float32(inputs**0.5)
            b = source.standard_normal((outputs, RANK), dtype=numpy.float32) * numpy.float32(B_DEVIATION)
            found[(layer, name)] = (a, b)
    return found


def peft_files(shapes, number):
    """The bytes of adapter_config.json and adapter_model.safetensors."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": [name.rsplit(".", 1)[1] for name in PROJECTIONS],
    }
    tensors = {}
    for (layer, name), (a, b) in matrices(shapes, number).items():
        prefix = f"base_model.model.model.layers.{layer}.{name}"
        tensors[f"{prefix}.lora_A.weight"] = a
        tensors[f"{prefix}.lora_B.weight"] = b
    return json.dumps(config).encode(), safetensors.numpy.save(tensors)


def write(folder, shapes, number):
    """Puts adapter `number` under `folder` as PEFT files and as adapter.gguf, unless it is there; gives its directory."""
    place = pathlib.Path(folder) / f"random-{number:03}"
    finished = place / "adapter.gguf"
    if not finished.exists():
        place.mkdir(parents=True, exist_ok=True)
        config, weights = peft_files(shapes, number)
        (place / "adapter_config.json").write_bytes(config)
        (place / "adapter_model.safetensors").write_bytes(weights)
        aside = place / "adapter.gguf.part"
        write_gguf(aside, shapes, matrices(shapes, number))
        aside.rename(finished)
    return str(place)


def write_gguf(path, shapes, modules):
    """An adapter as llama.cpp loads it. Its queries and keys are stored with the two halves of each head interleaved, so the rows of
    their B are put in the same order."""
    writer = gguf.GGUFWriter(path, shapes.architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(ALPHA))
    for (layer, name), (a, b) in modules.items():
        heads = {"self_attn.q_proj": shapes.heads, "self_attn.k_proj": shapes.key_heads}.get(name)
        tensor = f"blk.{layer}.{PROJECTIONS[name]}.weight"
        writer.add_tensor(f"{tensor}.lora_a", a)
        writer.add_tensor(f"{tensor}.lora_b", interleaved(b, heads) if heads else b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleaved(rows, heads):
    """Row i of a head's first half, then row i of its second half, for each head."""
    size = rows.shape[0] // heads
    order = [head * size + half * (size // 2) + index for head in range(heads) for index in range(size // 2) for half in (0, 1)]
    return numpy.ascontiguousarray(rows[order])
