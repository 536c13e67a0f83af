"""Random LoRA adapters of a few layers in PEFT's format, and some that must be refused; the same bytes from the same number."""

import array
import json
import random
import struct

RANK, ALPHA = 4, 8
TARGETS = ("self_attn.q_proj", "self_attn.v_proj")
# So large that versions answer differently; of two that do not, one could stand in for the other unseen.
B_DEVIATION = 0.3


def shapes_of(weights):
    """(inputs, outputs) of each module of an adapter, from its safetensors file, and how many layers there are."""
    with open(weights, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    modules = {}
    for name, entry in header.items():
        module, _, end = name.removeprefix("base_model.model.").rpartition(".lora_")
        if end == "A.weight":
            modules.setdefault(module, [0, 0])[0] = entry["shape"][1]
        elif end == "B.weight":
            modules.setdefault(module, [0, 0])[1] = entry["shape"][0]
    return modules, 1 + max(int(module.split(".")[2]) for module in modules)


def small_adapter(shapes, number, layers=3):
    """The bytes of adapter_config.json and adapter_model.safetensors: queries and values of some layers, spread over all."""
    modules, count = shapes
    source = random.Random(number)
    chosen = [f"model.layers.{index * count // layers}.{name}" for index in range(layers) for name in TARGETS]
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False}
    config |= {"inference_mode": True, "target_modules": chosen}
    tensors = {}
    for module in chosen:
        inputs, outputs = modules[module]
        prefix = f"base_model.model.{module}"
        tensors[f"{prefix}.lora_A.weight"] = ([RANK, inputs], [source.gauss(0, inputs**-0.5) for _ in range(RANK * inputs)])
        tensors[f"{prefix}.lora_B.weight"] = ([outputs, RANK], [source.gauss(0, B_DEVIATION) for _ in range(outputs * RANK)])
    return json.dumps(config).encode(), safetensors(tensors)


def safetensors(tensors):
    """A file of f32 tensors, {name: (shape, values)}."""
    header, data = {}, bytearray()
    for name, (shape, values) in tensors.items():
        begin = len(data)
        data += array.array("f", values).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(data)


def unservable(config, weights):
    """Variants of an adapter that must be refused: {what is wrong: (config, weights)}."""
    not_a_number = weights[:-4] + struct.pack("<f", float("nan"))
    unsupported = json.dumps(json.loads(config) | {"use_dora": True}).encode()
    larger = json.dumps(json.loads(config) | {"r": RANK + 1}).encode()
    unknown = json.dumps(json.loads(config) | {"target_modules": ["no_such_projection"]}).encode()
    return {
        "a value that is not a number": (config, not_a_number),
        "DoRA": (unsupported, weights),
        "another rank than the tensors have": (larger, weights),
        "an unknown target": (unknown, weights),
        "weights that end too soon": (config, weights[: len(weights) // 2]),
        "weights that are no safetensors": (config, b"\x80\x04not safetensors at all"),
    }
