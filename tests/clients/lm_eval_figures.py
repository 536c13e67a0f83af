"""The server's own figures, which those of lm-evaluation-harness are held to."""

import functools
import json

import requests

# The most pairs of one request to /v1/score.
MOST = 1024


class Figures:
    """What the server says of examples, labels and texts on its own routes."""

    def __init__(self, address):
        self.address = address
        self.base = self.get("/v1/models")["data"][0]["id"]
        self.trained_on = {task["id"]: task["trained_on"] for task in self.get("/v1/tasks")["data"]}

    def get(self, route):
        answer = requests.get(self.address + route)
        assert answer.status_code == 200, f"{route}: {answer.status_code} {answer.text[:300]}"
        return answer.json()

    def post(self, route, body):
        answer = requests.post(self.address + route, json=body)
        assert answer.status_code in (200, 202), f"{route}: {answer.status_code} {answer.text[:300]}"
        return answer.json()

    @functools.cache
    def tokens(self, text, special=False):
        return self.post("/tokenize", {"prompt": text, "add_special_tokens": special})["tokens"]

    def labels(self, model, task, shots, documents):
        """What /v1/classify chooses for each document, and the log-likelihood of each label there."""
        fields = [{name: text for name, text in document.items() if name.startswith("input")} for document in documents]
        body = {"model": model, "task": task, "prompt": 0, "shots": shots, "inputs": fields}
        return [(result["label"], result["logprobs"]) for result in self.post("/v1/classify", body)["results"]]

    def likelihoods(self, model, pairs):
        """The log-likelihood of each continuation of a context by /v1/score, and whether greedy decoding would write it."""
        scores = []
        for start in range(0, len(pairs), MOST):
            body = [{"context": context, "continuation": continuation} for context, continuation in pairs[start : start + MOST]]
            scores += self.post("/v1/score", {"model": model, "pairs": body})["data"]
        return [(score["logprob"], score["is_greedy"]) for score in scores]

    @functools.cache
    def evaluated(self, model, task, dataset, shots, limit):
        """The cell that an evaluation measures."""
        name = "base" if model == self.base else model
        body = {"kind": "matrix", "adapters": [name], "tasks": [task], "datasets": [dataset], "shots": [shots], "prompts": [0], "limit": limit}
        created = self.post("/v1/evaluations", body)
        # The events end when the evaluation does.
        with requests.get(f"{self.address}/v1/evaluations/{created['id']}/events", stream=True) as events:
            lines = [line for line in events.iter_lines() if line.startswith(b"data:")]
        final = json.loads(lines[-1].removeprefix(b"data:"))
        assert final["status"] == "completed" and len(final["cells"]) == 1, final
        return final["cells"][0]

    def scored(self, model, context, continuation):
        """The log-likelihood of ids after other ids, by /v1/completions."""
        body = {"model": model, "prompt": context + continuation, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        values = self.post("/v1/completions", body)["choices"][0]["logprobs"]["token_logprobs"]
        return sum(values[len(context) : len(context) + len(continuation)])

    def completed(self, model, prompts, tokens, **sampling):
        """The text after each prompt, without a stop sequence; greedy unless told otherwise."""
        body = {"model": model, "prompt": prompts, "max_tokens": tokens, "temperature": 0} | sampling
        choices = self.post("/v1/completions", body)["choices"]
        return [choice["text"] for choice in sorted(choices, key=lambda choice: choice["index"])]

    def answered(self, model, messages, tokens):
        """The greedy answer in a conversation, without a stop sequence."""
        body = {"model": model, "messages": messages, "max_tokens": tokens, "temperature": 0}
        return self.post("/v1/chat/completions", body)["choices"][0]["message"]["content"]
