"""Adapters made by PEFT serve here, and ours load in PEFT, with the same logits: python peft_parity.py ADDRESS MODEL.gguf PRETRAINED

The reference runs the dequantised GGUF in f32; the server computes with quantised weights and, as tests/clients/run starts it, 16-bit activations. The reference's five
likeliest tokens must be served within 0.05 of its log-probability, and the likeliest token must be the same wherever the reference is
sure of it by 0.3.
"""

import pathlib
import sys
import tempfile

import peft
import requests
import torch
import transformers

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village",
    "### Input:\nThe battery died after two days.\n### Sentiment:",
    "### Input:\nGreat sound, and it fits. I would buy it again.\n### Sentiment:",
]
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load_base(path):
    path = pathlib.Path(path).resolve()
    return transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()


def random_adapter(base, folder):
    """Saves an adapter of rank 5 and scale 3 whose A and B are both random."""
    torch.manual_seed(17)
    config = peft.LoraConfig(r=5, lora_alpha=15, target_modules=TARGETS, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.02)
    model.save_pretrained(folder)
    model.unload()


def next_token(model, ids):
    """Log-probabilities of the token behind a prompt."""
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0, -1], dim=-1)


def compare(address, name, model):
    worst, prompts = 0.0, []
    for prompt in PROMPTS:
        ids = requests.post(address + "/tokenize", json={"prompt": prompt}).json()["tokens"]
        prompts.append(ids)
        expected = next_token(model, ids)
        values, tokens = expected.topk(5)
        body = {"model": name, "prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": 20, "ignore_eos": True}
        answer = requests.post(address + "/v1/completions", json=body).json()["choices"][0]["logprobs"]
        for rank, (value, token) in enumerate(zip(values.tolist(), tokens.tolist())):
            text = requests.post(address + "/detokenize", json={"tokens": [token]}).json()["prompt"]
            got = answer["top_logprobs"][0][text]
            worst = max(worst, abs(got - value))
            assert abs(got - value) <= 0.05, f"{name}, {prompt!r}, {text!r}: served {got:.3f}, PEFT {value:.3f}"
            if rank == 0 and value - values[1].item() > 0.3:
                assert answer["tokens"][0] == text, f"{name}, {prompt!r}: served {answer['tokens'][0]!r}, PEFT {text!r}"
    print(f"{name}: largest difference of a log-probability {worst:.3f}")
    if name:
        cost_of_f16(name, model, prompts)


def cost_of_f16(name, model, ids):
    """Prints what keeping an adapter in f16, as the server does, costs by itself: PEFT against PEFT, all else in f32."""
    before = [next_token(model, prompt) for prompt in ids]
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_" in parameter_name:
                parameter.copy_(parameter.half().float())
    worst = max((a[a.topk(5).indices] - b[a.topk(5).indices]).abs().max().item() for a, b in zip(before, [next_token(model, prompt) for prompt in ids]))
    print(f"{name}: its weights in f16 move PEFT's own log-probabilities by up to {worst:.5f}")
    assert worst <= 0.01, f"{name}: f16 is not enough for this adapter"


def upload(address, name, folder):
    folder = pathlib.Path(folder)
    files = {
        "config": (folder / "adapter_config.json").read_bytes(),
        "weights": (folder / "adapter_model.safetensors").read_bytes(),
    }
    answer = requests.post(address + "/v1/adapters", data={"name": name}, files=files)
    assert answer.status_code == 201, answer.text


def main():
    address, gguf, pretrained = sys.argv[1:]
    compared = 1
    compare(address, "", load_base(gguf))
    with tempfile.TemporaryDirectory() as folder:
        random_adapter(load_base(gguf), folder)
        upload(address, "made-by-peft", folder)
        compare(address, "made-by-peft", peft.PeftModel.from_pretrained(load_base(gguf), folder).eval())
        compared += 1
    for folder in sorted(path for path in pathlib.Path(pretrained).iterdir() if (path / "adapter_config.json").is_file()):
        compare(address, folder.name, peft.PeftModel.from_pretrained(load_base(gguf), folder).eval())
        compared += 1
    print(f"PEFT parity: {compared} passed, 0 failed")


if __name__ == "__main__":
    main()
