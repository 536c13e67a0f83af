"""What the lora-syncer sidecar of the Kubernetes gateway asks of a server that runs with --pretrained pretrained: python lora_syncer.py ADDRESS

The sidecar (gateway-api-inference-extension, tools/dynamic-lora-sidecar) brings a server's adapters in line with a ConfigMap, again and again. Here are its
calls in its order, with its fields, and what it makes of answers; the watching of a file is left out.
"""

import contextlib
import dataclasses
import socket
import sys
import time

import requests

PROMPT = "### Input:\nGreat sound, and it fits. I would buy it again.\n### Sentiment:"


@dataclasses.dataclass(frozen=True)
class Adapter:
    """One entry of the ConfigMap; two entries with one id are the same adapter."""

    id: str
    source: str = dataclasses.field(default="", compare=False)
    base_model: str = dataclasses.field(default="", compare=False)


class Syncer:
    """Reconciles a server with a configuration. `calls` has what was asked, `status` what the sidecar's gauge would say."""

    def __init__(self, address, config, health_timeout=300, health_interval=2):
        self.address, self.config = address, config
        self.health_timeout, self.health_interval = health_timeout, health_interval
        self.calls, self.status = [], {}

    def request(self, method, route, body=None):
        self.calls.append((method, route))
        return requests.request(method, self.address + route, json=body)

    def healthy(self):
        """Asks until the answer is 200 or the time is over."""
        until = time.monotonic() + self.health_timeout
        while time.monotonic() < until:
            with contextlib.suppress(requests.RequestException):
                if self.request("GET", "/health").status_code == 200:
                    return True
            time.sleep(self.health_interval)
        return False

    def registered(self):
        """Ids of everything that is served, the base too; of an answer's entries it reads nothing else."""
        if not self.healthy():
            return set()
        try:
            return {Adapter(entry.get("id", "")) for entry in self.request("GET", "/v1/models").json()["data"]}
        except requests.RequestException:
            return set()

    def wanted(self, key):
        """The adapters under `ensureExist` or `ensureNotExist`. A configuration that breaks the sidecar's schema counts as empty."""
        section = self.config.get("vLLMLoRAConfig", {}) if valid(self.config) else {}
        default = section.get("defaultBaseModel", "")
        return [Adapter(model["id"], model["source"], model.get("base-model", default)) for model in section.get(key, {}).get("models", [])]

    def change(self, route, body, what):
        """The text of an error, None when it went well; any answer that is no error will do."""
        try:
            self.request("POST", route, body).raise_for_status()
        except requests.RequestException as error:
            return f"error {what} model {body['lora_name']}: {error}"
        return None

    def load(self, adapter):
        if adapter in self.registered():
            return None
        body = {"lora_name": adapter.id, "lora_path": adapter.source, "base_model_name": adapter.base_model}
        return self.change("/v1/load_lora_adapter", body, "loading")

    def unload(self, adapter):
        if adapter not in self.registered():
            return None
        return self.change("/v1/unload_lora_adapter", {"lora_name": adapter.id}, "unloading")

    def reconcile(self):
        """One round; gives its errors by adapter. An adapter in both lists is passed over."""
        self.calls.clear()
        errors = {}
        if not self.healthy():
            return {"": "not healthy"}
        exist, not_exist = self.wanted("ensureExist"), self.wanted("ensureNotExist")
        for adapters, others, act, loaded in ((exist, not_exist, self.load, 1), (not_exist, exist, self.unload, 0)):
            for adapter in adapters:
                if adapter in others:
                    continue
                if (error := act(adapter)) is None:
                    self.status[adapter.id] = loaded
                else:
                    errors[adapter.id] = error
        return errors


def valid(config):
    """What the sidecar's schema asks for: models have an id and a source, all of it is text, the port a number."""
    section = config.get("vLLMLoRAConfig")
    texts = ("host", "name", "defaultBaseModel")
    if not isinstance(section, dict) or not all(isinstance(section.get(key, ""), str) for key in texts) or not isinstance(section.get("port", 8000), int):
        return False
    lists = [section.get(key, {}).get("models", []) for key in ("ensureExist", "ensureNotExist")]
    return all(isinstance(model.get(key), str) for models in lists for model in models for key in ("id", "source"))


def config(exist=(), not_exist=(), **settings):
    models = lambda pairs: {"models": [{"id": name, "source": source} for name, source in pairs]}  # noqa: E731
    return {"vLLMLoRAConfig": settings | {"name": "a-test", "ensureExist": models(exist), "ensureNotExist": models(not_exist)}}


class Check:
    """The checks, each on what the one before left."""

    FIRST, SECOND = ("rollout-v1", "sentiment-ft"), ("rollout-v2", "sentiment-fticl")

    def __init__(self, address):
        self.address = address
        # What the ConfigMap says of the base need not be what the server calls it.
        self.syncer = Syncer(address, config(defaultBaseModel="HuggingFaceTB/SmolLM2-135M-Instruct"))

    def reconcile(self, exist=(), not_exist=()):
        """A round with other lists: (errors, POST routes)."""
        self.syncer.config = config(exist, not_exist, defaultBaseModel="HuggingFaceTB/SmolLM2-135M-Instruct")
        errors = self.syncer.reconcile()
        return errors, [route for method, route in self.syncer.calls if method == "POST"]

    def names(self):
        return {adapter.id for adapter in self.syncer.registered()}

    def text(self, model):
        body = {"model": model, "prompt": PROMPT, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
        answer = requests.post(self.address + "/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["text"]

    def loads_what_must_exist(self):
        before = self.names()
        errors, posts = self.reconcile([self.FIRST, self.SECOND])
        assert not errors, errors
        look, load = [("GET", "/health"), ("GET", "/v1/models")], [("POST", "/v1/load_lora_adapter")]
        assert self.syncer.calls == [("GET", "/health"), *look, *load, *look, *load], self.syncer.calls
        assert self.names() == before | {"rollout-v1", "rollout-v2"}
        assert self.syncer.status == {"rollout-v1": 1, "rollout-v2": 1}
        for name, source in (self.FIRST, self.SECOND):
            assert self.text(name) == self.text(source), name

    def does_nothing_twice(self):
        for _ in range(3):
            assert self.reconcile([self.FIRST, self.SECOND]) == ({}, [])

    def rolls_out(self):
        errors, posts = self.reconcile([self.SECOND], [self.FIRST])
        assert not errors and posts == ["/v1/unload_lora_adapter"], (errors, posts)
        assert "rollout-v1" not in self.names() and "rollout-v2" in self.names()
        assert self.syncer.status == {"rollout-v1": 0, "rollout-v2": 1}
        assert self.reconcile([self.SECOND], [self.FIRST]) == ({}, [])

    def passes_over_contradictions(self):
        assert self.reconcile([self.FIRST, self.SECOND], [self.FIRST, self.SECOND]) == ({}, [])
        assert "rollout-v2" in self.names()

    def errors_keep_nothing_else_from_happening(self):
        wrong = {("absent", "no-such-folder"): 404, ("outside", "../Cargo.toml"): 422, ("hub", "someone/an-adapter"): 404, ("not a name", "sentiment-ft"): 400}
        before = self.names()
        for loaded in (["rollout-v1"], []):
            # The second round tries again what failed, and only that.
            errors, posts = self.reconcile([*wrong, self.FIRST])
            assert errors.keys() == {name for name, _ in wrong}, errors
            for (name, _), status in wrong.items():
                assert f"error loading model {name}: {status} Client Error" in errors[name], errors[name]
            assert len(posts) == len(wrong) + len(loaded), posts
            assert self.names() == before | {"rollout-v1"}

    def another_syncer_may_be_first(self):
        """What it saw in /v1/models may be over when its request arrives."""
        self.syncer.registered = set
        first, second = Adapter(*self.FIRST), Adapter("gone", "sentiment-ft")
        assert "400 Client Error" in self.syncer.load(first)
        self.syncer.registered = lambda: {second}
        assert "404 Client Error" in self.syncer.unload(second)
        del self.syncer.registered
        assert "rollout-v1" in self.names()

    def an_invalid_configuration_changes_nothing(self):
        before = self.names()
        for broken in ({}, {"vLLMLoRAConfig": {"ensureNotExist": {"models": [{"id": "rollout-v1"}]}}}, config(port="8000", not_exist=[self.FIRST])):
            self.syncer.config = broken
            assert self.syncer.reconcile() == {} and self.syncer.calls == [("GET", "/health")], self.syncer.calls
        assert self.names() == before

    def cleans_up(self):
        errors, posts = self.reconcile((), [self.FIRST, self.SECOND])
        assert not errors and len(posts) == 2, (errors, posts)
        assert not {"rollout-v1", "rollout-v2"} & self.names()

    def waits_for_health(self):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            syncer = Syncer(f"http://127.0.0.1:{closed.getsockname()[1]}", config([self.FIRST]), health_timeout=0.05, health_interval=0.02)
            assert syncer.reconcile() == {"": "not healthy"}
        assert len(syncer.calls) > 1 and set(syncer.calls) == {("GET", "/health")}, syncer.calls


def main():
    check = Check(sys.argv[1])
    steps = [
        check.waits_for_health, check.loads_what_must_exist, check.does_nothing_twice, check.rolls_out, check.passes_over_contradictions,
        check.errors_keep_nothing_else_from_happening, check.another_syncer_may_be_first, check.an_invalid_configuration_changes_nothing, check.cleans_up,
    ]  # fmt: skip
    for step in steps:
        step()
    print(f"lora-syncer: {len(steps)} passed, 0 failed")


if __name__ == "__main__":
    main()
