"""PyTorch with transformers and PEFT in f32: the GGUF file dequantised, a greedy loop over its key/value cache, requests of all adapters in
one batch through `adapter_names`. There is no server: all requests of a workload arrive as one batch, which is the best case.
"""

import contextlib
import os
import pathlib
import time

import peft
import torch
import transformers

import adapters
import timing
import workloads
from peers.worker import memory_of, serve


class Peft:
    """The peer that answers the run's calls."""

    def start(self, setup):
        """Loads the model and its adapters, warms up."""
        self.before = memory_of(os.getpid())["resident_mib"]
        torch.set_num_threads(setup["threads"])
        self.words = adapters.Shapes(setup["model"]).words
        path = pathlib.Path(setup["model"])
        began = time.perf_counter()
        model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        ready = time.perf_counter() - began
        self.names, loads = [], []
        for folder in setup["adapters"]:
            began = time.perf_counter()
            name = pathlib.Path(folder).name
            if self.names:
                model.load_adapter(folder, adapter_name=name)
            else:
                model = peft.PeftModel.from_pretrained(model, folder, adapter_name=name)
            loads.append(1e3 * (time.perf_counter() - began))
            self.names.append(name)
        self.model = model.eval()
        self.run({"kind": "prefill", "adapters": "base", "prompt": 256, "tokens": 1}, "warm")
        versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
        return {"ready_ms": 1e3 * ready, "adapter_load_ms": loads, "version": versions}

    def run(self, workload, seed):
        """Measures one workload once."""
        workload = workloads.Workload(**workload)
        with torch.inference_mode():
            return getattr(self, workload.kind)(workload, seed)

    @contextlib.contextmanager
    def using(self, names):
        """The model with the adapters of a batch: gives the arguments that its calls need."""
        if names[0] is None:
            with self.model.disable_adapter():
                yield {}
        elif len(set(names)) == 1:
            self.model.set_adapter(names[0])
            yield {}
        else:
            yield {"adapter_names": names}

    def generate(self, prompts, names, tokens):
        """Greedy answers of `tokens` tokens in one batch: the start and the time of each token."""
        with self.using(names) as arguments:
            start = time.perf_counter()
            ids, cache, times = torch.tensor(prompts), None, []
            for _ in range(tokens):
                answer = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **arguments)
                cache = answer.past_key_values
                ids = answer.logits[:, -1].argmax(dim=-1, keepdim=True)
                times.append(time.perf_counter())
        return start, times

    def measure(self, workload, seed):
        prompts = workloads.prompts(self.words, seed, workload.clients, workload.prompt)
        return self.generate(prompts, workloads.assigned(workload, self.names), workload.tokens)

    def clients(self, workload, seed):
        return timing.summary([self.measure(workload, seed)] * workload.clients)

    def prefill(self, workload, seed):
        start, times = self.measure(workload, seed)
        return {"prompt_tokens_per_second": workload.prompt / (times[0] - start)}

    def depth(self, workload, seed):
        start, times = self.measure(workload, seed)
        return {"prompt_tokens_per_second": workload.prompt / (times[0] - start), "gap_p50_ms": 1e3 * timing.median(timing.gaps(times))}

    def top(self, ids, adapter):
        """The five likeliest next tokens with their log-probabilities."""
        with torch.inference_mode(), self.using([pathlib.Path(adapter).name if adapter else None]) as arguments:
            logits = self.model(input_ids=torch.tensor([ids]), logits_to_keep=1, **arguments).logits[0, -1]
            values, tokens = torch.log_softmax(logits.double(), dim=-1).topk(5)
        return list(zip(tokens.tolist(), values.tolist()))

    def memory(self):
        """Of this process, the interpreter and what it had before the model included."""
        return memory_of(os.getpid()) | {"before_model_mib": self.before}

    def stop(self):
        """Nothing outlives the process."""


if __name__ == "__main__":
    serve(Peft())
