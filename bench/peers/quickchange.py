"""Our server, measured over HTTP: streaming answers, connections kept open, the client on the same cores."""

import dataclasses
import itertools
import pathlib
import random
import time

import adapters
import timing
import workloads
from load_client import Disturbance, Load, Request, call, multipart
from peers.worker import memory_of, serve
from server_process import Server

SHARED_TAILS = 8


class Quickchange:
    """The peer that answers the run's calls."""

    def __init__(self):
        self.server = None
        self.swaps = itertools.count(10_000)

    def start(self, setup):
        """Starts a server, uploads the adapters, warms up."""
        self.setup = setup
        self.shapes = adapters.Shapes(setup["model"])
        self.server = Server(setup)
        self.names, loads = [], []
        for folder in map(pathlib.Path, setup["adapters"]):
            files = [(folder / file).read_bytes() for file in ("adapter_config.json", "adapter_model.safetensors")]
            self.names.append(folder.name)
            loads.append(self.server.put(folder.name, multipart(folder.name, *files)))
        self.run({"kind": "prefill", "adapters": "base", "prompt": 256, "tokens": 8}, "warm")
        return {
            "ready_ms": self.server.ready_ms,
            "adapter_load_ms": [took for took, _ in loads],
            "adapter_reported_ms": [reported for _, reported in loads],
            "version": call(self.server.port, "GET", "/version")[1],
        }

    def run(self, workload, seed):
        """Measures one workload once."""
        workload = workloads.Workload(**workload)
        return getattr(self, workload.kind)(workload, seed)

    def requests(self, workload, seed):
        models = workloads.assigned(workload, self.names)
        prompts = workloads.prompts(self.shapes.words, seed, workload.clients, workload.prompt)
        return [Request(model, prompt, workload.tokens) for model, prompt in zip(models, prompts)]

    def streams(self, requests, disturbance=None, port=None):
        """Runs requests on fresh connections: ([(start, times)], the client's share of a core)."""
        with Load(port or self.server.port, len(requests)) as load:
            streams = load.run(requests, disturbance)
            return [(stream.start, stream.times) for stream in streams], load.processor_share

    def clients(self, workload, seed):
        streams, share = self.streams(self.requests(workload, seed))
        return timing.summary(streams) | {"client_share": share}

    def adapter_cost(self, workload, seed):
        """Clients on the base and clients with an adapter each, prompts drawn anew; which goes first is left to the seed."""
        pair = [dataclasses.replace(workload, adapters=adapters) for adapters in ("base", workload.adapters)]
        random.Random(seed).shuffle(pair)
        rates = {own.adapters: timing.summary(self.streams(self.requests(own, f"{seed}/{own.adapters}"))[0])["tokens_per_second"] for own in pair}
        return {"base_per_second": rates["base"], "adapters_per_second": rates[workload.adapters], "cost_of_adapters": rates["base"] / rates[workload.adapters] - 1}

    def prefill(self, workload, seed):
        streams, share = self.streams(self.requests(workload, seed))
        start, times = streams[0]
        return {"prompt_tokens_per_second": workload.prompt / (times[0] - start), "client_share": share}

    def depth(self, workload, seed):
        streams, _ = self.streams(self.requests(workload, seed))
        start, times = streams[0]
        return {"prompt_tokens_per_second": workload.prompt / (times[0] - start), "gap_p50_ms": 1e3 * timing.median(timing.gaps(times))}

    def shared_context(self, workload, seed):
        """Requests one after another that share their first tokens."""
        (context,) = workloads.prompts(self.shapes.words, seed, 1, workload.prompt)
        waits = []
        with Load(self.server.port, 1) as load:
            for tail in workloads.prompts(self.shapes.words, seed + "/tails", SHARED_TAILS, 32):
                (stream,) = load.run([Request(self.names[0], context + tail, 1)])
                waits.append(1e3 * (stream.times[0] - stream.start))
        (tail,) = workloads.prompts(self.shapes.words, seed + "/last", 1, 32)
        body = {"model": self.names[0], "prompt": context + tail, "max_tokens": 1, "temperature": 0}
        usage = call(self.server.port, "POST", "/v1/completions", body)[1]["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return {"first_ms": waits[0], "nth_ms": timing.median(waits[1:]), "cached_tokens": cached}

    def long_prompt(self, workload, seed):
        """Four streams run; a long prompt comes."""
        short = workloads.Workload("clients", workload.adapters, clients=workload.clients, tokens=workload.tokens)
        (prompt,) = workloads.prompts(self.shapes.words, seed + "/long", 1, workload.prompt)
        return self.disturbed(lambda turn: self.requests(short, seed + turn), lambda: self.streams([Request(None, prompt, 1)]))[0]

    def swap(self, workload, seed):
        """Four streams run, two of them with an adapter that is replaced meanwhile."""
        # Made before: joining ten megabytes would hold up the thread that notes when tokens arrive.
        upload = multipart("swapped", *adapters.peft_files(self.shapes, next(self.swaps)))
        if "swapped" not in self.names:
            self.server.put("swapped", multipart("swapped", *adapters.peft_files(self.shapes, next(self.swaps))))
            self.names.append("swapped")

        def requests(turn):
            found = self.requests(workload, seed + turn)
            for request in found[:2]:
                request.model = "swapped"
            return found

        found, (took, reported) = self.disturbed(requests, lambda: self.server.put("swapped", upload, method="PUT"))
        return found | {"upload_ms": took, "reported_ms": reported}

    def disturbed(self, requests, action):
        """Streams meet `action`; then streams like them meet nothing for as long. Gives what `timing.net_of` says and what `action` gave."""
        disturbance = Disturbance(32, action)
        streams, _ = self.streams(requests("/met"), disturbance)
        found = timing.disturbed(streams, disturbance.begin, disturbance.end)
        nothing = Disturbance(32, lambda: time.sleep(disturbance.end - disturbance.begin))
        streams, _ = self.streams(requests("/quiet"), nothing)
        return timing.net_of(found, timing.disturbed(streams, nothing.begin, nothing.end)), disturbance.result

    def registered(self, points, repeats):
        """16 clients on up to 16 adapters while ever more are registered, on a server of its own."""
        server, names, found = Server(self.setup), [], []
        try:
            for point in points:
                loads = []
                while len(names) < point:
                    name = f"registered-{len(names):03}"
                    loads.append(server.put(name, multipart(name, *adapters.peft_files(self.shapes, len(names))))[0])
                    names.append(name)
                used = [names[index * len(names) // min(16, len(names))] for index in range(min(16, len(names)))]
                samples = []
                for repeat in range(repeats):
                    prompts = workloads.prompts(self.shapes.words, f"registered/{point}/{repeat}", 16, 64)
                    streams, _ = self.streams([Request(used[index % len(used)], prompt, 64) for index, prompt in enumerate(prompts)], port=server.port)
                    samples.append(timing.summary(streams))
                memory = memory_of(server.process.pid)
                found.append({"registered": point, "samples": samples, "adapter_load_ms": timing.median(loads), **memory})
        finally:
            server.stop()
        return found

    def agreement(self, ids, adapter, expected):
        """The difference of each of `expected`, [(token, log-probability)], from what is served; at least that, where the 20 served lack it."""
        body = {"model": pathlib.Path(adapter).name if adapter else "", "prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": 20, "ignore_eos": True}
        status, answer = call(self.server.port, "POST", "/v1/completions", body)
        if status != 200:
            raise RuntimeError(f"log-probabilities were answered {status}: {answer}")
        served = answer["choices"][0]["logprobs"]["top_logprobs"][0]
        least = min(served.values())
        texts = [call(self.server.port, "POST", "/detokenize", {"tokens": [token]})[1]["prompt"] for token, _ in expected]
        return [abs(served.get(text, least) - value) for text, (_, value) in zip(texts, expected)]

    def tokenize(self, text):
        """Token ids of a text."""
        return call(self.server.port, "POST", "/tokenize", {"prompt": text})[1]["tokens"]

    def memory(self):
        """Of the server process."""
        return memory_of(self.server.process.pid)

    def stop(self):
        """Ends the server."""
        if self.server:
            self.server.stop()
            self.server = None


if __name__ == "__main__":
    serve(Quickchange())
