"""A release server on a model file or directory, and what these checks ask of it over HTTP."""

import os
import pathlib
import re
import socket
import subprocess
import tempfile
import time

import requests

STARTUP_SECONDS = 60


class Server:
    """Starts the server on entry and ends it on exit; the last lines of its log go into the error when it does not start."""

    def __init__(self, binary, model, *flags, store=None, environment=None):
        # The gates are those of full-precision arithmetic: nothing but the weights is rounded to less than 16 bits.
        self.command = [str(binary), "--model", str(model), "--host", "127.0.0.1", "--activation-bits", "16", *flags]
        self.folder = tempfile.TemporaryDirectory()
        self.store = store or f"{self.folder.name}/store"
        self.environment = environment or {}

    def __enter__(self):
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self.log = pathlib.Path(self.folder.name) / "server.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("QUICKCHANGE_", "RUST_"))}
        with self.log.open("wb") as log:
            command = [*self.command, "--port", str(port), "--store", self.store, "--local", f"{self.folder.name}/local"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment | self.environment)
        try:
            self.wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()

    def wait_until_ready(self):
        deadline = time.monotonic() + STARTUP_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if requests.get(self.address + "/ready").status_code == 200:
                    return
            except requests.ConnectionError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"the server did not become ready: {self.last_words()}")

    def last_words(self):
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text()).strip()[-800:]

    def post(self, route, body):
        try:
            answer = requests.post(self.address + route, json=body)
        except requests.ConnectionError:
            raise AssertionError(f"{route}: the server hung up: {self.last_words()}") from None
        assert answer.status_code == 200, f"{route}: {answer.status_code} {answer.text[:300]}"
        return answer.json()

    def tokenize(self, text):
        return self.post("/tokenize", {"prompt": text})["tokens"]

    def complete(self, ids, *, model="", tokens=16, alternatives=20):
        """A greedy completion with the log-probabilities of prompt and answer: token_logprobs, top_logprobs, tokens."""
        body = {"model": model, "prompt": ids, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        return self.post("/v1/completions", body | {"echo": True, "logprobs": alternatives})["choices"][0]["logprobs"]

    def chat(self, messages, *, model="", tokens=4):
        body = {"model": model, "messages": messages, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        return self.post("/v1/chat/completions", body | {"logprobs": True, "top_logprobs": 5})

    def upload(self, name, folder):
        folder = pathlib.Path(folder)
        files = {
            "config": (folder / "adapter_config.json").read_bytes(),
            "weights": (folder / "adapter_model.safetensors").read_bytes(),
        }
        answer = requests.post(self.address + "/v1/adapters", data={"name": name}, files=files)
        assert answer.status_code == 201, f"the adapter was refused: {answer.status_code} {answer.text[:300]}"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def spelled(token_bytes):
    """A token as the server's log-probabilities name it."""
    try:
        return token_bytes.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token_bytes)
