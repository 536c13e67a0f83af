"""Load generators of others, unchanged, against a server that runs with --pretrained pretrained:
python load_generators.py ADDRESS MODEL.gguf GUIDELLM AIPERF

guidellm and aiperf, each in an environment of its own, make a short run over several adapters: one after the other, and in rotation. No request may
fail, and the server must have counted as many on each adapter as were asked for. Ray's llmperf and NVIDIA's genai-perf cannot be had as packages
(what the index has under the first name is another program, and of the second the binary is missing), so requests of their shapes are made and read
as they read them.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import requests

ADAPTERS = ["sentiment-ft", "summary-ft", "question-ft"]
EACH = 4
PROMPT_TOKENS, ANSWER_TOKENS, CONCURRENCY = 32, 8, 2
# Everything is here already; what they would fetch or report is left alone.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1"}
SECONDS = 600

PROMPT = "How many days are in a week?"
SHAPES = {
    # With a system message that says nothing.
    "llmperf": (
        "/v1/chat/completions",
        {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": PROMPT}], "max_tokens": ANSWER_TOKENS},
    ),
    "genai-perf, chat": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": ANSWER_TOKENS, "min_tokens": ANSWER_TOKENS, "ignore_eos": True},
    ),
    "genai-perf, completions": (
        "/v1/completions",
        {"prompt": [PROMPT], "max_tokens": ANSWER_TOKENS, "min_tokens": ANSWER_TOKENS, "ignore_eos": True},
    ),
}


class Run:
    """A server, where each tool is, a tokenizer's folder and a place for what a tool writes."""

    def __init__(self, address, tools, folder):
        self.address, self.tools, self.folder = address, tools, folder
        self.tokenizer = folder / "tokenizer"

    def tool(self, name, *arguments, environment=ENVIRONMENT):
        command = [self.tools[name], *arguments]
        done = subprocess.run(command, cwd=self.folder, env=os.environ | environment, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, f"{name} ended with {done.returncode}: {(done.stdout + done.stderr)[-3000:]}"

    def answered(self, route):
        """Requests answered on a route, by adapter and status."""
        counted = {}
        for line in requests.get(self.address + "/metrics").text.splitlines():
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            if line.startswith("quickchange_requests_total{") and labels["route"] == route:
                counted[labels["adapter"], labels["status"]] = int(float(line.rsplit(" ", 1)[1]))
        return counted


class Counted:
    """Within the `with`, as many requests of these adapters are answered on a route as are expected, and all of them with 200."""

    def __init__(self, run, route, expected):
        self.run, self.route, self.expected = run, route, expected

    def __enter__(self):
        self.before = self.run.answered(self.route)

    def __exit__(self, kind, *_):
        if kind is None:
            after = self.run.answered(self.route)
            new = {key: count - self.before.get(key, 0) for key, count in after.items() if count != self.before.get(key, 0)}
            assert new == {(adapter, "200"): count for adapter, count in self.expected.items()}, (new, self.expected)


def write_tokenizer(model, folder):
    """The model's own tokenizer as the tools want it."""
    import transformers

    model = pathlib.Path(model)
    transformers.AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name).save_pretrained(folder)


def guidellm(run):
    """It has one model a run, so each adapter has a run; of chats for one, of completions for the others."""
    for adapter in ADAPTERS:
        route = "/v1/chat/completions" if adapter == ADAPTERS[0] else "/v1/completions"
        report = run.folder / f"{adapter}.json"
        with Counted(run, route, {adapter: EACH}):
            run.tool(
                "guidellm", "run", "--disable-console",
                "--backend", f"kind=openai_http,target={run.address},model={adapter},request_format={route}",
                "--profile", f"kind=concurrent,streams={CONCURRENCY}",
                "--constraint", f"kind=max_requests,count={EACH}",
                "--tokenizer", f"kind=hf_auto,model={run.tokenizer}",
                "--data", f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={ANSWER_TOKENS}",
                "--output", f"kind=json,path={report}",
            )  # fmt: skip
        metrics = json.loads(report.read_text())["benchmarks"][0]["metrics"]
        assert metrics["request_totals"] == {"successful": EACH, "errored": 0, "incomplete": 0, "total": EACH}, metrics["request_totals"]
    return len(ADAPTERS) * EACH


def aiperf(run):
    requests_made = len(ADAPTERS) * EACH
    with Counted(run, "/v1/chat/completions", dict.fromkeys(ADAPTERS, EACH)):
        run.tool(
            "aiperf", "profile", "--url", run.address, "--endpoint-type", "chat", "--streaming", "--ui", "none",
            "--model-names", ",".join(ADAPTERS), "--model-selection-strategy", "round_robin",
            "--tokenizer", str(run.tokenizer), "--concurrency", str(CONCURRENCY), "--request-count", str(requests_made),
            "--isl", str(PROMPT_TOKENS), "--osl", str(ANSWER_TOKENS), "--extra-inputs", "ignore_eos:true",
            "--artifact-dir", str(run.folder / "aiperf"), "--random-seed", "1", "--no-gpu-telemetry",
            # Where it is told to be offline, it takes the names of repositories alone for tokenizers, and not a folder.
            environment={"HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": ""},
        )  # fmt: skip
    report = json.loads(next((run.folder / "aiperf").rglob("profile_export_aiperf.json")).read_text())
    assert report["request_count"]["avg"] == requests_made and not report.get("error_summary"), report
    return requests_made


def shapes(run):
    """Streams read as llmperf reads them: every line behind `data: ` but the last is a chunk with a choice."""
    for name, (route, body) in SHAPES.items():
        with Counted(run, route, dict.fromkeys(ADAPTERS, EACH)):
            for turn in range(len(ADAPTERS) * EACH):
                request = {"model": ADAPTERS[turn % len(ADAPTERS)], "stream": True} | body
                answer = requests.post(run.address + route, json=request, headers={"Authorization": "Bearer none"}, stream=True)
                *lines, last = [line.strip().removeprefix(b"data: ") for line in answer.iter_lines() if line.strip()]
                choices = [json.loads(line)["choices"][0] for line in lines]
                assert last == b"[DONE]" and choices[-1]["finish_reason"] in ("length", "stop"), (name, last, choices)
                assert len(choices) == ANSWER_TOKENS or choices[-1]["finish_reason"] == "stop", (name, choices)
        print(f"requests of {name}: {len(ADAPTERS) * EACH} over {len(ADAPTERS)} adapters passed, 0 failed", flush=True)


def main():
    address, model, *tools = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        run = Run(address, dict(zip(("guidellm", "aiperf"), tools, strict=True)), pathlib.Path(folder))
        write_tokenizer(model, run.tokenizer)
        for check in (guidellm, aiperf):
            print(f"{check.__name__}: {check(run)} requests over {len(ADAPTERS)} adapters passed, 0 failed", flush=True)
        shapes(run)


if __name__ == "__main__":
    main()
