"""Requests whose answers are known: asked once in quiet, and again under load, where they must be the same bit for bit."""

import dataclasses
import random

WORDS = "the a river stone quiet morning engine letter garden under bright seven walked before music paper winter answer small between copper road".split()
REVIEWS = ("Great sound, and it fits.", "Broke on the first day, and nobody answers.", "It does what it says, no more.", "I would buy it again for my sister.")
PROMPTS = (
    ("The capital of France is", 8),
    ("### Input:\nThe battery died after two days.\n### Sentiment:", 12),
    ("Once upon a time, in a small village by the sea,", 32),
    ("Water boils at a temperature of", 20),
)
LONG_WORDS, LONG_TOKENS = 500, 8


@dataclasses.dataclass(frozen=True)
class Case:
    """A request without its model. `kind` says which part of an answer must be the same."""

    name: str
    kind: str
    path: str
    body: dict
    # Only models that were trained for a task, and the base, are asked to classify.
    task: bool = False

    def asked_of(self, model):
        return self.body | {"model": model}

    def __hash__(self):
        return hash(self.name)


def words(number, count):
    """A text of `count` words, the same from the same number."""
    source = random.Random(number)
    return " ".join(source.choice(WORDS) for _ in range(count))


def cases():
    """Every case."""
    greedy = {"temperature": 0, "logprobs": 2}
    found = [Case(f"completion-{index}", "completion", "/v1/completions", {"prompt": text, "max_tokens": tokens} | greedy) for index, (text, tokens) in enumerate(PROMPTS)]
    found.append(Case("completion-long", "completion", "/v1/completions", {"prompt": words(1, LONG_WORDS), "max_tokens": LONG_TOKENS, "ignore_eos": True} | greedy))
    sampled = {"prompt": "My favourite colour is", "max_tokens": 16, "temperature": 0.9, "top_p": 0.95, "seed": 7, "n": 2, "logprobs": 0}
    found.append(Case("completion-sampled", "completion", "/v1/completions", sampled))
    chat = {"messages": [{"role": "system", "content": "You answer in one sentence."}, {"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 24}
    found.append(Case("chat", "chat", "/v1/chat/completions", chat | {"temperature": 0, "logprobs": True, "top_logprobs": 2}))
    pairs = [{"context": "The cat sat on the", "continuation": text} for text in (" mat", " moon", " shoulders of a giant")]
    found.append(Case("score", "data", "/v1/score", {"pairs": pairs}))
    for shots in (0, 2):
        found.append(Case(f"classify-{shots}", "results", "/v1/classify", {"task": "sentiment", "inputs": list(REVIEWS), "shots": shots}, task=True))
    return found


def comparisons(names):
    """Comparisons of two models each, asked by name of models that nobody exchanges."""
    pairs = [("base", names[0]), (names[0], names[1])]
    body = {"prompts": ["The best thing about the summer is", "### Input:\nIt broke.\n### Sentiment:"], "max_tokens": 12}
    return [Case(f"compare-{'-'.join(pair)}", "results", "/v1/compare", body | {"models": list(pair)}) for pair in pairs]


def essence(case, answer):
    """What of an answer must be the same whenever it is asked for."""
    if case.kind == "completion":
        return [[choice["text"], choice["finish_reason"], choice["logprobs"]["token_logprobs"], choice["logprobs"]["top_logprobs"]] for choice in answer["choices"]]
    if case.kind == "chat":
        return [[choice["message"]["content"], choice["finish_reason"], choice["logprobs"]["content"]] for choice in answer["choices"]]
    return answer[case.kind]


def essence_of_events(case, events):
    """The same, of a stream's events."""
    found = {}
    for choice in (choice for event in events for choice in event["choices"]):
        values = found.setdefault(choice["index"], ["", None, [], []] if case.kind == "completion" else ["", None, []])
        values[0] += choice["text"] if case.kind == "completion" else choice["delta"].get("content") or ""
        values[1] = choice["finish_reason"] or values[1]
        if logprobs := choice.get("logprobs"):
            fields = ("token_logprobs", "top_logprobs") if case.kind == "completion" else ("content",)
            for place, field in enumerate(fields, start=2):
                values[place] += logprobs[field] or []
    return [found[index] for index in sorted(found)]


def version_of(answer):
    """The version that an answer names, None for the base."""
    return answer["adapter"]["version"] if answer["adapter"] else None
