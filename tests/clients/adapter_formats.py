"""What `trainer merge` and `trainer export` write works where it is meant to: python adapter_formats.py TRAINER MODEL.gguf ADAPTER...

A merged model is loaded by transformers, its logits equal PEFT's over the dequantised GGUF and its tokenizer gives the ids of the GGUF's. An
exported adapter is loaded by llama.cpp over the GGUF and moves it as PEFT moves the dequantised weights; skipped without llama-cpp-python.
"""

import pathlib
import subprocess
import sys
import tempfile

import llama_cpp_reference
import peft
import torch
import transformers

from peft_parity import PROMPTS, TARGETS, load_base, next_token

TEXTS = [*PROMPTS, "Numbers: 12345, naïve café, 東京\n\n  indented", "<|im_start|>user\nHi<|im_end|>\n"]
# llama.cpp rounds activations to eight bits; without the adapter, or with the rows of queries and keys in the wrong order, it is off by much more.
LLAMA_CPP_GATE = 0.6


def uneven_adapter(base, folder):
    """An adapter whose projections have different ranks and a rank-stabilised scale, A and B both random."""
    torch.manual_seed(23)
    config = peft.LoraConfig(
        r=6, lora_alpha=5, use_rslora=True, rank_pattern={"q_proj": 3, "down_proj": 9}, target_modules=TARGETS, task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.06)
    model.save_pretrained(folder)
    model.unload()


def check_merged(folder, ids, expected, model_file):
    merged = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    worst = max((next_token(merged, own) - other).abs().max().item() for own, other in zip(ids, expected))
    assert worst <= 1e-3, f"{folder}: transformers is off PEFT by {worst}"
    merged_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    original = transformers.AutoTokenizer.from_pretrained(model_file.parent, gguf_file=model_file.name)
    for text in TEXTS:
        got, wanted = merged_tokenizer(text)["input_ids"], original(text)["input_ids"]
        assert got == wanted, f"ids of {text!r}: {got}, expected {wanted}"
    rendered = merged_tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    assert "Hi" in rendered and rendered.endswith("assistant\n"), rendered
    return worst


def check_exported(path, model_file, ids, expected, base):
    """Over the five likeliest tokens of each prompt: (largest difference with the adapter, mean difference without it)."""
    import llama_cpp

    llama_cpp_reference.silence()
    model = llama_cpp.Llama(str(model_file), lora_path=str(path), n_ctx=256, logits_all=True, verbose=False, n_threads=2)
    worst, without = 0.0, []
    for own, other, alone in zip(ids, expected, base):
        got = llama_cpp_reference.logprobs(model, own)[-1]
        likeliest = other.topk(5).indices
        worst = max(worst, (got[likeliest] - other[likeliest]).abs().max().item())
        without.append((got[likeliest] - alone[likeliest]).abs().mean().item())
    assert worst <= LLAMA_CPP_GATE, f"{path}: llama.cpp is off PEFT by {worst}"
    return worst, sum(without) / len(without)


def check(trainer, model_file, adapter, base, work):
    name = pathlib.Path(adapter).name
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_file.parent, gguf_file=model_file.name)
    ids = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    alone = [next_token(base, own) for own in ids]
    model = peft.PeftModel.from_pretrained(base, adapter).eval()
    expected = [next_token(model, own) for own in ids]
    model.unload()
    merged, exported = work / f"{name}-merged", work / f"{name}.gguf"
    for command, out in (("merge", merged), ("export", exported)):
        subprocess.run([trainer, command, str(adapter), "--model", str(model_file), "--out", str(out)], check=True)
    print(f"{name}: merged, transformers is off PEFT by at most {check_merged(merged, ids, expected, model_file):.6f}")
    if llama_cpp_reference.available:
        worst, without = check_exported(exported, model_file, ids, expected, alone)
        print(f"{name}: exported, llama.cpp is off PEFT by at most {worst:.3f}; on average {without:.3f} from the base")
    else:
        print(f"{name}: the export was not tried, llama-cpp-python is not installed")


def main(trainer, model, *folders):
    model_file = pathlib.Path(model).resolve()
    base = load_base(model_file)
    with tempfile.TemporaryDirectory() as work:
        uneven = pathlib.Path(work) / "uneven"
        uneven_adapter(base, uneven)
        for adapter in (uneven, *folders):
            check(trainer, model_file, adapter, base, pathlib.Path(work))


if __name__ == "__main__":
    main(*sys.argv[1:])
