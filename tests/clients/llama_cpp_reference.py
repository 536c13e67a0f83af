"""llama.cpp as a second opinion on the GGUF files written here, and as the maker of K-quants. Optional: `available` says whether
llama-cpp-python is installed."""

import importlib.util

import numpy
import torch

available = importlib.util.find_spec("llama_cpp") is not None

# Largest difference of a log-probability from transformers over the dequantised weights. llama.cpp rounds activations to f16 or to eight
# bits where weights are, which the f32 file is free of.
GATES = {"F32": 0.02, "F16": 0.05, "BF16": 0.3}
QUANTISED_GATE = 0.6


def quantise(source, target, kind):
    """Writes `target` from an f32 file with llama.cpp's mixture of types named `kind`."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    parameters.nthread = 2
    silence()
    status = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), parameters)
    assert status == 0, f"llama.cpp could not quantise {source} to {kind}"


def silence():
    import llama_cpp

    llama_cpp.llama_log_set(IGNORE, None)


def load(path, context):
    import llama_cpp

    silence()
    return llama_cpp.Llama(str(path), n_ctx=context, n_batch=context, n_ubatch=context, logits_all=True, verbose=False, n_threads=2)


def logprobs(model, ids):
    """Log-probabilities after each of `ids`: a matrix of positions by tokens."""
    model.reset()
    model.eval(ids)
    logits = torch.from_numpy(numpy.array(model.scores[: len(ids)], dtype=numpy.float32))
    return torch.log_softmax(logits, dim=-1)


def tokens(model, text):
    return model.tokenize(text.encode(), add_bos=True, special=True)


def ignore_messages():
    import llama_cpp

    return llama_cpp.llama_log_callback(lambda level, text, data: None)


IGNORE = ignore_messages() if available else None
