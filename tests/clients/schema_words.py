"""Names that exist, numbers in range and prompts that are short, for the requests of schema_hooks.py: schemas that take a field's place."""

import json
import os
import pathlib

import requests

ADDRESS = os.environ["SCHEMA_ADDRESS"]
TIMEOUT = 60
PRETRAINED = pathlib.Path(os.environ["SCHEMA_PRETRAINED"])
# The folders under --pretrained whose contents are the versions of an adapter.
VERSIONS = {folder.name: [folder.name] for folder in PRETRAINED.iterdir()} | {"sentiment-ft": ["sentiment-ft", "sentiment-fticl"]}
# Adapters whose versions cases change.
MANAGED = ["sentiment-ft", "question-ft"]
FOLDERS = ["sentiment-ft", "question-fticl", "summary-ft", "no-such-folder", "../outside"]
# A data set that is there, and comes back when a case removes it.
KEPT = {"name": "kept", "task": "sentiment", "domain": "out", "examples": [{"input": "One", "output": "positive"}, {"input": "Two", "output": "negative"}]}
WORDS = {"type": "string", "pattern": "^[a-z]{1,12}( [a-z]{1,12}){0,5}$"}
# Text of every kind that is not long: a prompt of a thousand tokens takes as long as a hundred cases.
TEXT = {"type": "string", "minLength": 1, "maxLength": 40}


def ask(method, route, **arguments):
    answer = requests.request(method, ADDRESS + route, timeout=TIMEOUT, **arguments)
    answer.raise_for_status()
    return answer


def one_of(*values):
    return {"enum": list(values)}


def several(items, most=2, least=1):
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def between(least, most, kind="integer"):
    return {"type": kind, "minimum": least, "maximum": most}


def any_of(*schemas):
    return {"anyOf": list(schemas)}


def named(**fields):
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def tensor(*texts):
    return {"name": "text_input", "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}


TOKEN = between(0, 40000)
TEXTS = any_of(WORDS, TEXT, several(WORDS), several(TOKEN, 5), several(several(TOKEN, 5)))

SAMPLING = {
    # Answers of a few tokens say as much about their shape as long ones.
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "max_new_tokens", "n_predict"), between(1, 4)),
    **dict.fromkeys(("min_tokens", "min_new_tokens"), between(0, 1)),
    **dict.fromkeys(("top_logprobs", "n_probs", "top_n_tokens"), between(0, 3)),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), between(-2, 2, "number")),
    **dict.fromkeys(("repetition_penalty", "repeat_penalty"), between(0.5, 2, "number")),
    **dict.fromkeys(("seed", "sampling_seed"), between(0, 2**31)),
    "n": between(1, 2),
    "temperature": between(0, 2, "number"),
    "top_p": between(0.1, 0.9, "number"),
    "min_p": between(0, 1, "number"),
    "top_k": between(1, 50),
    "repeat_last_n": between(-1, 64),
    "truncate": between(1, 64),
    "stop": any_of(WORDS, several(WORDS, 3)),
    "logit_bias": {
        "type": "object",
        "propertyNames": {"pattern": "^[1-9][0-9]{0,3}$"},
        "additionalProperties": between(-100, 100, "number"),
        "maxProperties": 3,
    },
}

PROMPTS = {
    "prompt": TEXTS,
    "tokens": several(TOKEN, 20),
    "prompts": several(WORDS),
    "inputs": TEXT,
    "messages": several(named(role=one_of("system", "user", "assistant"), content=any_of(WORDS, several(named(type=one_of("text"), text=WORDS)))), 3),
    "pairs": several(named(context=TEXT, continuation=TEXT)),
}

# What keeps an answer or an evaluation short, or makes sense of the rest, is always sent.
ALWAYS = {"max_tokens", "max_new_tokens", "n_predict", "limit", "sampling_params", "parameters", "tasks", "task", "kind"}
ALWAYS |= {"stream", "logprobs", "return_logprob", "details", "n_probs"}


class Vocabulary:
    def __init__(self):
        base, *adapters = [entry["id"] for entry in ask("GET", "/v1/models").json()["data"]]
        versions = [version["version"] for version in ask("GET", "/v1/adapters/sentiment-ft").json()["versions"]]
        self.version = one_of(*versions, versions[0][:8], "0" * 64)
        self.adapter = one_of(*adapters[:3], *MANAGED, "nobody")
        self.model = one_of(base, *adapters[:3], f"{base}:{adapters[0]}", f"sentiment-ft@{versions[0][:8]}", "nobody")
        self.everywhere = SAMPLING | PROMPTS | self.names(adapters)
        self.on_routes = self.routes(base, self.evaluation())
        ask("POST", "/v1/datasets", json=KEPT)
        # One to be paused again and again, and one to go on.
        self.paused, self.waiting = self.evaluation(paused=True), self.evaluation(paused=True)

    def names(self, adapters):
        weights = {name: between(0.1, 2, "number") for name in adapters[:2]}
        return {
            "model": self.model,
            "models": several(self.model, 2, 2),
            "adapters": several(one_of("base", *adapters[:2])),
            **dict.fromkeys(("adapter_id", "lora_path"), self.adapter),
            "ids": several(self.adapter),
            "adapter_weights": {"type": "object", "properties": weights, "minProperties": 1, "additionalProperties": False},
            "version": self.version,
            "expected": self.version,
            "percent": between(1, 100, "number"),
            "min_delta": between(-1, 1, "number"),
            "task": one_of("sentiment", "no-such-task"),
            "labels": several(WORDS, 3, 2),
            # Evaluations of one example, which end by themselves.
            "limit": between(1, 1),
            "tasks": several(one_of("sentiment", "question")),
            "datasets": several(one_of("amazon", "yelp", "socialqa")),
            "shots": several(between(0, 1), 1),
            **dict.fromkeys(("name", "lora_name"), one_of(*MANAGED, "another-name", "not a name")),
            "path": one_of(*FOLDERS),
            "config": {"type": "string", "format": "adapter-config"},
            "weights": {"type": "string", "format": "adapter-weights"},
            "manifest": {"type": "string", "format": "adapter-manifest"},
        }

    def routes(self, base, evaluation):
        """What fields of the same name mean on one route, whose start is given."""
        kinds = one_of("in_domain", "out_of_domain", "cross_task", "matrix")
        bias = several({"type": "array", "prefixItems": [TOKEN, between(-9, 9, "number")], "minItems": 2, "maxItems": 2})
        shapes = several(any_of(WORDS, named(input_1=WORDS, input_2=WORDS)))
        evaluations = {"prompts": several(between(0, 1), 1)}
        records = several(named(input=WORDS, output=one_of("positive", "negative", "neither")))
        return {
            "POST /v1/completions": {"logprobs": between(0, 3)},
            "POST /v1/classify": {"prompt": between(0, 2), "shots": between(0, 2), "inputs": shapes},
            "POST /v1/evaluations/": evaluations | {"kind": {"type": "null"}},
            "POST /v1/evaluations": evaluations | {"kind": kinds},
            "POST /v1/datasets": {
                "name": one_of("kept", "another", "not a name"),
                "domain": one_of("in", "out", "elsewhere"),
                **dict.fromkeys(("examples", "demonstrations"), records),
            },
            "POST /v1/adapters/{name}": {"evaluation": one_of(evaluation, "eval_0")},
            # The path has the name already.
            "PUT /v1/adapters/{name}": {"name": {"type": "null"}},
            "POST /v1/load_lora_adapter": {"lora_path": one_of(*FOLDERS)},
            "POST /load_lora_adapter": {"lora_path": one_of(*FOLDERS)},
            # One prompt, named once; lists of what must be as many as there are prompts are for the requests that are not narrowed.
            "POST /generate": {
                "stop": several(WORDS, 3),
                "text": TEXTS,
                "input_ids": {"type": "null"},
                "return_logprob": {"type": "boolean"},
                "top_logprobs_num": between(0, 3),
                "logprob_start_len": between(-1, 3),
            },
            "POST /completion": {"logit_bias": bias, "id": between(0, 4)},
            "POST /lora-adapters": {"id": between(0, 4)},
            "POST /tokenize": {"prompt": TEXT},
            "POST /v2/models": {"inputs": one_of([tensor("One")], [tensor("One", "Two")], [])},
            "POST /v2/repository": {"path": one_of(*FOLDERS)},
            "POST /v1/replay": self.receipts(base),
        }

    def evaluation(self, paused=False):
        """One that will be done, for gates to look at, or one that is paused at once."""
        size = {} if paused else {"limit": 2}
        body = {"kind": "in_domain", "adapters": ["sentiment-ft"], "datasets": ["amazon"]} | size
        evaluation = ask("POST", "/v1/evaluations", json=body).json()["id"]
        if paused:
            ask("POST", f"/v1/evaluations/{evaluation}/pause")
        return evaluation

    def receipts(self, base):
        """Requests that were answered, and the receipts of their answers; any of the two go together."""
        bodies = [
            {"model": base, "prompt": "One", "max_tokens": 2},
            {"model": "sentiment-ft", "messages": [{"role": "user", "content": "One"}], "max_tokens": 2},
        ]
        answers = [ask("POST", "/v1/completions", json={"model": name, "prompt": "One", "max_tokens": 1}) for name in (base, "sentiment-ft")]
        receipts = [json.loads(answer.headers["x-quickchange-receipt"]) for answer in answers]
        return {"request": one_of(*bodies), "receipt": one_of(*receipts)}

    def parameter(self, route, name, schema):
        if name == "model" or route == "/v1/models/{id}":
            return self.model if "{version}" not in route else one_of(*MANAGED, "nobody")
        if route.startswith("/v1/datasets/"):
            return one_of(KEPT["name"], "amazon", "nothing")
        if route.endswith("/pause"):
            return one_of(self.paused, "eval_0")
        if route.endswith("/resume"):
            return one_of(self.waiting, "eval_0")
        known = {
            "name": one_of(*MANAGED, "nobody"),
            "version": self.version,
            "format": one_of("json", "csv", "md", "html", "no-such-format"),
        }
        return known.get(name, schema)

    def body(self, route, schema, name=None):
        """The schema of a request or of a part of it, narrowed."""
        if name in ("examples", "demonstrations") and schema.get("format") == "binary":
            return {"type": "string", "format": "records"}
        found = self.found(route, name)
        if found is not None:
            return any_of(found, {"type": "null"}) if "null" in schema.get("type", ()) and name not in ALWAYS else found
        if isinstance(schema.get("items"), dict):
            schema = schema | {"items": self.body(route, schema["items"])}
        if "anyOf" in schema:
            kept = [entry for entry in schema["anyOf"] if name not in ALWAYS or entry != {"type": "null"}]
            schema = schema | {"anyOf": [self.body(route, entry) for entry in kept]}
        if "properties" in schema:
            fields = {field: self.body(route, value, field) for field, value in schema["properties"].items()}
            required = {*schema.get("required", ()), *ALWAYS.intersection(fields)}
            # That unknown fields are ignored is for the requests that are not narrowed.
            schema = schema | {"properties": fields, "required": sorted(required), "additionalProperties": False}
        return schema

    def found(self, route, name):
        for start in sorted(self.on_routes, key=len, reverse=True):
            if route.startswith(start) and name in self.on_routes[start]:
                return self.on_routes[start][name]
        return self.everywhere.get(name)
