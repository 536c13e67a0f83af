"""Serves every architecture and compares it with transformers: python architectures.py SERVER [--only NAME ...] [--formats FORMAT ...]

For each case of `architecture_cases` this makes a tiny model with random weights, its tokenizer and an adapter, writes them as a
Hugging Face directory and as GGUF files of several types, and holds the server on each to transformers' f32 forward over the same,
dequantised weights: token ids, rendered conversations, log-probabilities at every position of three prompts (one longer than a sliding
window, one long) and sixteen greedy tokens, on the base and with the adapter. Where llama-cpp-python is installed, llama.cpp reads every
GGUF file too, so that what is served is what others write.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import unicodedata

import torch
import transformers

import architecture_cases
import chat_templates
import comparison
import llama_cpp_reference
import tiny_models
import tiny_tokenizers
import write_gguf
from served import Server

# Largest difference of a log-probability. Keys and values are kept in f16; quantised weights meet activations of 16 bits.
EXACT_GATE = 0.01
QUANTISED_GATE = 0.05


class Results:
    """Prints a line per check and counts them."""

    def __init__(self):
        self.passed, self.failed = 0, 0

    def check(self, title, run):
        try:
            line = run()
            self.passed += 1
        except (AssertionError, KeyError, ValueError) as problem:
            line = f"FAILED: {problem}" if isinstance(problem, AssertionError) else f"FAILED: {type(problem).__name__}: {problem}"
            self.failed += 1
        print(f"{title}: {line}", flush=True)


def prompts_of(case, tokenizer):
    short = tokenizer.fast("The answer is").input_ids
    medium = tokenizer.fast(" ".join(tiny_tokenizers.SENTENCES[:2])).input_ids
    assert case.window is None or len(medium) > 2 * case.window
    return {"short": short, "medium": medium, "long": comparison.random_ids(tokenizer, case.long_prompt)}


def materialise(case, form, model, tokenizer, folder):
    """Writes the model in a form; returns the path to serve, the gate, and the reference: transformers with the weights as written."""
    path = folder / form.replace(" ", "-")
    if form.startswith("directory"):
        return path, EXACT_GATE, tiny_models.save_directory(model, tokenizer, path, form.removeprefix("directory "))
    path = folder / f"{case.name}-{form}.gguf"
    if form in architecture_cases.K_QUANTS:
        llama_cpp_reference.quantise(folder / f"{case.name}-F32.gguf", path, form)
    else:
        write_gguf.write(path, model, tokenizer, form, case.name)
    gate = EXACT_GATE if form in ("F32", "F16", "BF16") else QUANTISED_GATE
    return path, gate, tiny_models.with_weights(model, write_gguf.read_weights(path, model))


def serve_and_compare(case, form, model, tokenizer, folder, binary, results):
    path, gate, reference = materialise(case, form, model, tokenizer, folder)
    adapted = tiny_models.adapted(reference, folder / "adapter")
    if case.name.endswith("longrope-long"):
        tiny_models.use_long_factors(reference)
        tiny_models.use_long_factors(adapted)
    prompts = prompts_of(case, tokenizer)
    names = comparison.spellings(tokenizer, model.config.vocab_size)
    title = f"{case.name}, {form}"

    def held_to(model):
        return comparison.Reference(model, names, gate)

    def with_adapter(server):
        server.upload("random", folder / "adapter")
        return comparison.compare_logprobs(server, prompts, held_to(adapted), model="random")

    def all_checks(server):
        results.check(f"{title}, tokens", lambda: comparison.compare_tokens(server, tokenizer.tricky_texts(), encode(tokenizer)))
        results.check(f"{title}, chat", lambda: comparison.compare_chat(server, chat_templates.CONVERSATIONS, render(tokenizer)))
        results.check(f"{title}, base", lambda: comparison.compare_logprobs(server, prompts, held_to(reference)))
        results.check(f"{title}, adapter", lambda: with_adapter(server))

    if path.suffix == ".gguf" and llama_cpp_reference.available:
        results.check(f"{title}, llama.cpp", lambda: second_opinion(case, path, form, reference, tokenizer, prompts))
    flags = ["--kv-tokens", str(case.served_length)] if case.served_length else []
    try:
        with Server(binary, path, *flags) as server:
            all_checks(server)
    except AssertionError as problem:
        results.check(title, lambda problem=problem: fail(problem))


def fail(problem):
    raise problem


def second_opinion(case, path, form, reference, tokenizer, prompts):
    """llama.cpp agrees about ids and log-probabilities; where it leaves the sliding window out, prompts are cut to fit into it."""
    other = llama_cpp_reference.load(path, 512)
    for text in tokenizer.tricky_texts():
        composed = unicodedata.normalize("NFC", text)
        expected = tokenizer.fast(text).input_ids
        # llama.cpp does not compose characters as Qwen's tokenizer does.
        if tokenizer.fast.backend_tokenizer.normalizer is None or composed == text:
            assert llama_cpp_reference.tokens(other, text) == expected, f"ids of {text!r} are {llama_cpp_reference.tokens(other, text)}"
    limit = case.window if case.window and not case.llama_cpp_window else None
    gate = llama_cpp_reference.GATES.get(form, llama_cpp_reference.QUANTISED_GATE)
    worst = 0.0
    for ids in prompts.values():
        difference = llama_cpp_reference.logprobs(other, ids[:limit]) - tiny_models.logprobs(reference, ids[:limit])
        worst = max(worst, difference.abs().max().item())
    assert worst <= gate, f"largest difference of a log-probability {worst:.4f} > {gate}"
    return f"largest difference of a log-probability {worst:.4f}"


def encode(tokenizer):
    return lambda text: tokenizer.fast(text).input_ids


def render(tokenizer):
    """The ids of a conversation as transformers renders it, up to where the answer begins."""

    def ids(messages):
        text = tokenizer.fast.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return tokenizer.fast(text, add_special_tokens=False).input_ids

    return ids


def run_case(case, formats, binary, folder, results):
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = case.tokenizer()
    model = tiny_models.tiny_model(case, tokenizer)
    tiny_models.save_adapter(tiny_models.with_weights(model, model.state_dict()), case.targets, folder / "adapter")
    for form in [form for form in case.formats if form.startswith(formats)]:
        if form in architecture_cases.K_QUANTS and not llama_cpp_reference.available:
            continue
        serve_and_compare(case, form, model, tokenizer, folder, binary, results)


def main():
    parser = argparse.ArgumentParser(description="Serve every architecture and compare it with transformers.")
    parser.add_argument("server", type=pathlib.Path, help="the release server's binary")
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose names start with one of these")
    parser.add_argument("--formats", nargs="+", default=[""], help="formats whose names start with one of these; K-quants need F32 too")
    parser.add_argument("--keep", type=pathlib.Path, help="write the models into this folder and leave them there")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(os.cpu_count() or 1)
    if not llama_cpp_reference.available:
        print("llama-cpp-python is not installed: no K-quants, and no second opinion on the GGUF files")
    chosen = [case for case in architecture_cases.CASES if case.name.startswith(tuple(options.only))]
    assert chosen, f"no case is called {options.only}; there are {[case.name for case in architecture_cases.CASES]}"
    results = Results()
    with tempfile.TemporaryDirectory() as work:
        for case in chosen:
            run_case(case, tuple(options.formats), options.server, (options.keep or pathlib.Path(work)) / case.name, results)
    print(f"architectures: {results.passed} passed, {results.failed} failed")
    sys.exit(1 if results.failed else 0)


if __name__ == "__main__":
    main()
