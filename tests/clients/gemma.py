"""Serves Gemma 3 270M and compares it with transformers on the same file: python gemma.py SERVER MODEL.gguf

Token ids of awkward texts, log-probabilities and greedy text of the base and of a PEFT adapter with random A and B, among them the next
token after a prompt longer than the sliding window of 512. The file's mixture of types (Q4_K, Q5_0, Q6_K, Q8_0) is dequantised for the
reference, which computes in f32. The file has no chat template, and the server says so.
"""

import os
import pathlib
import sys
import tempfile

import gguf
import requests
import torch
import transformers

import comparison
import tiny_models
from architecture_cases import PLAIN_TARGETS
from architectures import QUANTISED_GATE, Results
from served import Server
from tiny_tokenizers import SENTENCES, TRICKY, SpelledTokenizer

PROMPTS = ["The capital of France is", "def area(width, height):\n    return"]
# At three times this, rounding the adapter to f16 and activations to 16 bits within transformers itself moves its log-probabilities by 0.13.
ADAPTER_SPREAD = 0.02
TURNS = ["<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", "a<table>b", "\n\n\n\n a     b"]


def load(path):
    path = pathlib.Path(path).resolve()
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    fast = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return model, fast


def spelled_tokenizer(path, fast):
    fields = gguf.GGUFReader(path).fields
    values = {key: fields[f"tokenizer.ggml.{key}"].contents() for key in ("model", "pre", "tokens", "token_type")}
    return SpelledTokenizer(fast, values["model"], values["pre"], values["tokens"], values["token_type"])


def compare_next(server, ids, model, names, served_as=""):
    """The next token after a prompt too long for log-probabilities at each position."""
    with torch.no_grad():
        row = torch.log_softmax(model(torch.tensor([ids]), logits_to_keep=1).logits[0, -1].float(), dim=-1)
    body = {"model": served_as, "prompt": ids, "max_tokens": 1, "temperature": 0, "ignore_eos": True, "logprobs": 20}
    served = server.post("/v1/completions", body)["choices"][0]["logprobs"]["top_logprobs"][0]
    pairs = comparison.found(row, served, names, f"after {len(ids)} tokens")
    worst = max(abs(got - row[token].item()) for token, got in pairs)
    assert worst <= QUANTISED_GATE, f"after {len(ids)} tokens: largest difference of a log-probability {worst:.4f} > {QUANTISED_GATE}"
    return f"after {len(ids)} tokens, largest difference of a log-probability {worst:.4f}"


def refuses_chat(server):
    answer = requests.post(f"{server.address}/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}]})
    assert answer.status_code == 400 and "no chat template" in answer.text, f"{answer.status_code} {answer.text[:200]}"
    return "refused, for the file has no chat template"


def main():
    binary, path = sys.argv[1:]
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(os.cpu_count() or 1)
    model, fast = load(path)
    tokenizer = spelled_tokenizer(path, fast)
    names = comparison.spellings(tokenizer, model.config.vocab_size)
    prompts = {repr(text): fast(text).input_ids for text in PROMPTS}
    long = fast(" ".join(SENTENCES * 3)).input_ids[:640]
    results = Results()

    def compare(served_as=""):
        reference = comparison.Reference(model, names, QUANTISED_GATE)
        return comparison.compare_logprobs(server, prompts, reference, served_as)

    with tempfile.TemporaryDirectory() as folder, Server(binary, path) as server:
        results.check("gemma-3-270m, tokens", lambda: comparison.compare_tokens(server, TRICKY + TURNS, lambda text: fast(text).input_ids))
        results.check("gemma-3-270m, chat", lambda: refuses_chat(server))
        results.check("gemma-3-270m, base", compare)
        results.check("gemma-3-270m, base, long", lambda: compare_next(server, long, model, names))
        tiny_models.save_adapter(model, PLAIN_TARGETS, folder, ADAPTER_SPREAD)
        model = tiny_models.peft.PeftModel.from_pretrained(model, folder).eval()
        server.upload("random", folder)
        results.check("gemma-3-270m, adapter", lambda: compare("random"))
        results.check("gemma-3-270m, adapter, long", lambda: compare_next(server, long, model, names, "random"))
    print(f"Gemma 3 270M: {results.passed} passed, {results.failed} failed")
    sys.exit(1 if results.failed else 0)


if __name__ == "__main__":
    main()
