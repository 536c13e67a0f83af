"""llama.cpp through the low-level API of llama-cpp-python: the library itself, without a server or HTTP, which only flatters it.

What its own server would do is done here: all requests of one adapter in one batch, requests with different adapters one after another
(its server never lets them share a batch), a prompt that shares a prefix with the slot's last one computed from where it differs, a long
prompt in one batch of up to 2048 rows beside the running streams. Flash attention is on and each sequence has a cache of its own: the
fastest of the settings on the machine tried. Adapters stay in f32, which took it a fifth less time there than f16.
"""

import ctypes
import os
import pathlib
import sys
import time

import llama_cpp
import numpy

import adapters
import timing
import workloads
from peers.worker import memory_of, serve

BATCH = 2048
FLASH_ATTENTION = 1
SHARED_TAILS = 8


class Batch:
    """A llama_batch whose fields are filled as whole arrays: row by row through ctypes would be a measurable cost."""

    def __init__(self, rows):
        self.batch = llama_cpp.llama_batch_init(rows, 0, 1)
        view = lambda field: numpy.ctypeslib.as_array(field, (rows,))  # noqa: E731
        self.tokens, self.positions, self.wanted = view(self.batch.token), view(self.batch.pos), view(self.batch.logits)
        self.sequences = numpy.zeros(rows, dtype=numpy.int32)
        view(self.batch.n_seq_id)[:] = 1
        for index in range(rows):
            address = self.sequences.ctypes.data + index * self.sequences.itemsize
            self.batch.seq_id[index] = ctypes.cast(address, ctypes.POINTER(ctypes.c_int32))

    def fill(self, rows):
        """Puts rows of (token, position, sequence, wanted) in; how many are wanted."""
        table = numpy.array(rows, dtype=numpy.int32)
        count = len(rows)
        self.tokens[:count], self.positions[:count], self.sequences[:count], self.wanted[:count] = table.T
        self.batch.n_tokens = count
        return int(table[:, 3].sum())


class Context:
    """A context of the model with room for `sequences` of `length` tokens each."""

    def __init__(self, peer, sequences, length):
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = sequences * length
        settings.n_seq_max = sequences
        settings.n_batch = BATCH
        settings.n_ubatch = 512
        settings.n_threads = settings.n_threads_batch = peer.threads
        settings.flash_attn_type = FLASH_ATTENTION
        settings.kv_unified = False
        self.pointer = llama_cpp.llama_init_from_model(peer.model, settings)
        if not self.pointer:
            raise RuntimeError(f"llama.cpp made no context for {sequences} x {length} tokens")
        self.peer = peer
        self.memory = llama_cpp.llama_get_memory(self.pointer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        llama_cpp.llama_free(self.pointer)

    def use(self, adapter):
        """Puts an adapter over everything that is computed from now on; None takes it off."""
        if adapter is None:
            status = llama_cpp.llama_set_adapters_lora(self.pointer, None, 0, None)
        else:
            status = llama_cpp.llama_set_adapters_lora(self.pointer, (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter), 1, (ctypes.c_float * 1)(1.0))
        if status:
            raise RuntimeError(f"llama.cpp did not take the adapter: status {status}")

    def forward(self, rows):
        """One batch of (token, position, sequence, whether its logits are wanted); the greedy token of each wanted row."""
        wanted = self.peer.batch.fill(rows)
        status = llama_cpp.llama_decode(self.pointer, self.peer.batch.batch)
        if status:
            raise RuntimeError(f"llama_decode of {len(rows)} rows: status {status}")
        return self.logits(wanted).argmax(axis=1).tolist() if wanted else []

    def logits(self, rows):
        """Logits of the wanted rows of the last batch, one line each."""
        start = llama_cpp.llama_get_logits(self.pointer)
        return numpy.ctypeslib.as_array(start, (rows, self.peer.vocabulary))

    def prompt(self, prompts, first_position=0):
        """Computes prompts, one to a sequence, in batches as large as allowed; the first token of each answer."""
        rows = [
            (token, first_position + index, sequence, index == len(prompt) - 1)
            for sequence, prompt in enumerate(prompts)
            for index, token in enumerate(prompt)
        ]
        found = []
        for begin in range(0, len(rows), BATCH):
            found += self.forward(rows[begin : begin + BATCH])
        return found

    def generate(self, prompts, tokens):
        """Greedy answers of `tokens` tokens, all in one batch: the time of each token, the same for every stream."""
        latest = self.prompt(prompts)
        times = [time.perf_counter()]
        for step in range(tokens - 1):
            latest = self.forward([(token, len(prompts[index]) + step, index, True) for index, token in enumerate(latest)])
            times.append(time.perf_counter())
        return times


class LlamaCpp:
    """The peer that answers the run's calls."""

    def start(self, setup):
        """Loads the model and its adapters, warms up."""
        self.before = memory_of(os.getpid())["resident_mib"]
        self.threads = setup["threads"]
        self.words = adapters.Shapes(setup["model"]).words
        llama_cpp.llama_backend_init()
        began = time.perf_counter()
        self.model = llama_cpp.llama_model_load_from_file(setup["model"].encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp did not load {setup['model']}")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = Batch(BATCH)
        with Context(self, 1, 512):
            ready = time.perf_counter() - began
        self.adapters, loads = [], []
        for folder in setup["adapters"]:
            began = time.perf_counter()
            adapter = llama_cpp.llama_adapter_lora_init(self.model, str(pathlib.Path(folder) / "adapter.gguf").encode())
            if not adapter:
                raise RuntimeError(f"llama.cpp did not load the adapter in {folder}")
            loads.append(1e3 * (time.perf_counter() - began))
            self.adapters.append(adapter)
        self.folders = dict(zip(setup["adapters"], self.adapters))
        self.run({"kind": "prefill", "adapters": "base", "prompt": 256, "tokens": 1}, "warm")
        system = llama_cpp.llama_print_system_info().decode()
        return {"ready_ms": 1e3 * ready, "adapter_load_ms": loads, "version": {"llama_cpp_python": llama_cpp.__version__, "system": system}}

    def run(self, workload, seed):
        """Measures one workload once."""
        workload = workloads.Workload(**workload)
        return getattr(self, workload.kind)(workload, seed)

    def clients(self, workload, seed):
        """One batch, or one request after another where each has its own adapter."""
        prompts = workloads.prompts(self.words, seed, workload.clients, workload.prompt)
        models = workloads.assigned(workload, self.adapters)
        length = workload.prompt + workload.tokens
        if workload.adapters != "different":
            with Context(self, workload.clients, length) as context:
                context.use(models[0])
                start = time.perf_counter()
                times = context.generate(prompts, workload.tokens)
            return timing.summary([(start, times)] * workload.clients)
        streams = []
        with Context(self, 1, length) as context:
            start = time.perf_counter()
            for model, prompt in zip(models, prompts):
                context.use(model)
                llama_cpp.llama_memory_clear(context.memory, False)
                streams.append((start, context.generate([prompt], workload.tokens)))
        return timing.summary(streams)

    def prefill(self, workload, seed):
        prompts = workloads.prompts(self.words, seed, 1, workload.prompt)
        with Context(self, 1, workload.prompt) as context:
            context.use(workloads.assigned(workload, self.adapters)[0])
            start = time.perf_counter()
            context.prompt(prompts)
            return {"prompt_tokens_per_second": workload.prompt / (time.perf_counter() - start)}

    def depth(self, workload, seed):
        prompts = workloads.prompts(self.words, seed, 1, workload.prompt)
        with Context(self, 1, workload.prompt + workload.tokens) as context:
            start = time.perf_counter()
            times = context.generate(prompts, workload.tokens)
        return {"prompt_tokens_per_second": workload.prompt / (times[0] - start), "gap_p50_ms": 1e3 * timing.median(timing.gaps(times))}

    def shared_context(self, workload, seed):
        """Its server keeps a slot's cache up to where the next prompt differs."""
        (shared,) = workloads.prompts(self.words, seed, 1, workload.prompt)
        waits = []
        with Context(self, 1, workload.prompt + 32) as context:
            context.use(self.adapters[0])
            for tail in workloads.prompts(self.words, seed + "/tails", SHARED_TAILS, 32):
                start = time.perf_counter()
                if waits:
                    llama_cpp.llama_memory_seq_rm(context.memory, 0, workload.prompt, -1)
                    context.prompt([tail], workload.prompt)
                else:
                    context.prompt([shared + tail])
                waits.append(1e3 * (time.perf_counter() - start))
        return {"first_ms": waits[0], "nth_ms": timing.median(waits[1:]), "cached_tokens": workload.prompt}

    def long_prompt(self, workload, seed):
        """Its server puts a prompt into the batch of the running streams, up to 2048 rows at once: the streams wait for all of it."""
        prompts = workloads.prompts(self.words, seed, workload.clients, 64)
        (long,) = workloads.prompts(self.words, seed + "/long", 1, workload.prompt)
        times = []
        with Context(self, workload.clients + 1, workload.prompt + 64) as context:
            latest = context.prompt(prompts)
            pending = [(token, index, workload.clients, index == len(long) - 1) for index, token in enumerate(long)]
            begin = end = None
            for step in range(96):
                rows = [(token, 64 + step, index, True) for index, token in enumerate(latest)]
                if step >= 32 and pending:
                    begin = begin or time.perf_counter()
                    room = BATCH - len(rows)
                    rows, pending = rows + pending[:room], pending[room:]
                latest = context.forward(rows)[: workload.clients]
                times.append(time.perf_counter())
                if begin and not pending:
                    end = end or times[-1]
        return timing.disturbed([(0.0, times)], begin, end)

    def top(self, ids, adapter):
        """The five likeliest next tokens with their log-probabilities."""
        with Context(self, 1, len(ids)) as context:
            context.use(self.folders[adapter] if adapter else None)
            context.prompt([ids])
            row = context.logits(1)[0].astype(numpy.float64)
        values = row - row.max() - numpy.log(numpy.exp(row - row.max()).sum())
        return [(int(token), float(values[token])) for token in values.argsort()[::-1][:5]]

    def memory(self):
        """Of this process, the interpreter and what it had before the model included."""
        return memory_of(os.getpid()) | {"before_model_mib": self.before}

    def stop(self):
        """Nothing outlives the process."""


def quantise(source, target):
    """Rewrites a GGUF file in Q4_0, the type its fast path is made for; the embedding stays in Q8_0 as it is."""
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    settings.output_tensor_type = settings.token_embedding_type = llama_cpp.GGML_TYPE_Q8_0
    settings.allow_requantize = True
    status = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(settings))
    if status:
        raise RuntimeError(f"llama.cpp did not requantise {source}: status {status}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["quantise"]:
        quantise(*sys.argv[2:])
    else:
        serve(LlamaCpp())
