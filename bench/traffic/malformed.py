"""Requests that no client should send, and the status each must get."""

import json

LARGE = 8 * 2**20 + 1
JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=edge"}


def text(value):
    return json.dumps(value).encode()


def part(name, value, file=None):
    place = f'; filename="{file}"' if file else ""
    return f'--edge\r\ncontent-disposition: form-data; name="{name}"{place}\r\n\r\n'.encode() + value + b"\r\n"


def malformed(adapter, files):
    """(what is wrong, method, path, body, headers, status) of each. `adapter` is a name that is loaded, `files` are those of an adapter."""
    completions, chat, classify, score = "/v1/completions", "/v1/chat/completions", "/v1/classify", "/v1/score"
    bodies = [
        ("JSON that breaks off", completions, b'{"prompt": "a', 400),
        ("no JSON", completions, b"prompt=a", 400),
        ("no body", completions, b"", 400),
        ("a list", completions, b"[1, 2]", 400),
        ("bytes that are no UTF-8", completions, b'{"prompt": "\xff\xfe"}', 400),
        ("half a surrogate pair", completions, b'{"prompt": "\\ud800"}', 400),
        ("nesting without end", completions, b'{"prompt": ' + b"[" * 100_000, 400),
        ("a prompt of a wrong type", completions, text({"prompt": 5.5}), 400),
        ("an empty prompt", completions, text({"prompt": ""}), 400),
        ("a token id that the vocabulary lacks", completions, text({"prompt": [10**9]}), 400),
        ("a negative token id", completions, text({"prompt": [-1]}), 400),
        ("a prompt longer than the context", completions, text({"prompt": "word " * 20_000}), 413),
        ("a temperature below 0", completions, text({"prompt": "a", "temperature": -1}), 400),
        ("a top_p above 1", completions, text({"prompt": "a", "top_p": 1.5}), 400),
        ("a number of choices past the limit", completions, text({"prompt": "a", "n": 10_000}), 400),
        ("a negative number of tokens", completions, text({"prompt": "a", "max_tokens": -5}), 400),
        ("too many stop texts", completions, text({"prompt": "a", "stop": ["x"] * 17}), 400),
        ("a parameter that is not supported", completions, text({"prompt": "a", "best_of": 3}), 400),
        ("a model that is not there", completions, text({"prompt": "a", "model": "no-such-model"}), 404),
        ("a version that is not there", completions, text({"prompt": "a", "model": f"{adapter}@{'0' * 64}"}), 404),
        ("a model name with a path", completions, text({"prompt": "a", "model": "../../etc/passwd"}), 404),
        ("a model name with a NUL", completions, text({"prompt": "a", "model": "a\0b"}), 404),
        ("no messages", chat, text({"messages": []}), 400),
        ("a message without a role", chat, text({"messages": [{"content": "a"}]}), 400),
        ("messages of a wrong type", chat, text({"messages": "a"}), 400),
        ("no inputs", classify, text({"model": adapter, "inputs": []}), 400),
        ("a task that is not there", classify, text({"model": adapter, "inputs": ["a"], "task": "no-such-task"}), 404),
        ("a pair without a continuation", score, text({"pairs": [{"context": "a"}]}), 400),
        ("a prompt to tokenize of a wrong type", "/tokenize", text({"prompt": 1}), 400),
        ("one model to compare", "/v1/compare", text({"models": ["base"], "prompts": ["a"]}), 400),
        ("an activation without a version", f"/v1/adapters/{adapter}/activate", text({}), 400),
        ("an activation of no adapter", "/v1/adapters/no-such-adapter/activate", text({"version": "0" * 64}), 404),
        ("an adapter by a path that leaves its root", "/v1/load_lora_adapter", text({"lora_name": "x", "lora_path": "../../etc"}), 422),
        ("an adapter by an absolute path", "/v1/load_lora_adapter", text({"lora_name": "x", "lora_path": "/etc"}), 422),
        ("an evaluation of no kind", "/v1/evaluations", text({"kind": "no-such-kind", "adapters": ["base"]}), 400),
        ("an evaluation of no adapter", "/v1/evaluations", text({"kind": "in_domain", "adapters": ["no-such-adapter"]}), 404),
    ]
    found = [(what, "POST", path, body, JSON, status) for what, path, body, status in bodies]
    config, weights = part("config", files[0], "adapter_config.json"), part("weights", files[1], "adapter_model.safetensors")
    end = b"--edge--\r\n"
    forms = [
        ("a form that is none", b"junk", 400),
        ("a form that breaks off", part("name", b"x") + b"--edge\r\ncontent-disp", 400),
        ("a form without weights", part("name", b"x") + config + end, 400),
        ("a form without a name", config + weights + end, 400),
        ("a reserved name", part("name", b"base") + config + weights + end, 400),
        ("a name that is a path", part("name", b"../x") + config + weights + end, 400),
        ("a form whose weights end too soon", part("name", b"x") + config + weights, 400),
        ("weights that are none", part("name", b"x") + config + part("weights", b"x", "adapter_model.safetensors") + end, 422),
    ]
    found += [(what, "POST", "/v1/adapters", body, FORM, status) for what, body, status in forms]
    found += [
        ("a route that is not there", "GET", "/v1/no-such-route", None, {}, 404),
        ("a path that climbs", "GET", "/../../../../etc/passwd", None, {}, 404),
        ("a path with a NUL", "GET", "/v1/models/%00", None, {}, 404),
        ("a method that is not there", "PATCH", completions, b"{}", JSON, 405),
        ("an adapter that is not there", "GET", "/v1/adapters/no-such-adapter", None, {}, 404),
        ("the removal of no adapter", "DELETE", "/v1/adapters/no-such-adapter", None, {}, 404),
        ("an evaluation that is not there", "GET", "/v1/evaluations/eval_none", None, {}, 404),
        ("a report of no form", "GET", "/v1/evaluations/eval_none/report?format=pdf", None, {}, 404),
        ("a data set that is not there", "GET", "/v1/datasets/no-such-set", None, {}, 404),
        ("a body past the limit", "POST", completions, b'{"prompt": "' + b"a" * LARGE + b'"}', JSON, 413),
    ]
    return found


# What is no HTTP never reaches a route: it gets 400 and the connection is closed.
NOT_HTTP = (
    b"GARBAGE\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n{}",
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}x",
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    b"GET /health HTTP/1.1\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
)
