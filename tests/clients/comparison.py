"""What a served model is compared for: ids of texts, rendered conversations, log-probabilities at every position, and greedy text.
Each check returns a line that says how it went, or raises `AssertionError` with the first difference."""

import dataclasses

import torch

import tiny_models
from served import spelled

# Of so many of the likeliest tokens the log-probabilities are compared at each position, besides the prompt's own tokens.
LIKELIEST = 5
# Where the reference prefers its choice by more than this, the served choice is the same.
MARGIN = 0.05


@dataclasses.dataclass
class Reference:
    """What is served is held to this. `names` has the spelling of each token, None for one without text; `gate` is the largest
    difference of a log-probability."""

    model: torch.nn.Module
    names: list[str | None]
    gate: float
    greedy_tokens: int = 16


def compare_tokens(server, texts, encode):
    """Every text has the ids that `encode` gives it."""
    for text in texts:
        got, expected = server.tokenize(text), encode(text)
        assert got == expected, f"ids of {text!r}: served {got}, expected {expected}"
    return f"{len(texts)} texts have the same ids"


def compare_chat(server, conversations, encode):
    """A conversation is answered as the ids of transformers' rendering are, to the bit."""
    for messages in conversations:
        ids = encode(messages)
        chat = server.chat(messages)
        count = chat["usage"]["prompt_tokens"]
        assert count == len(ids), f"{messages[-1]['content']!r}: the prompt has {count} tokens, expected {len(ids)}"
        got = [entry["logprob"] for entry in chat["choices"][0]["logprobs"]["content"]]
        expected = server.complete(ids, tokens=len(got), alternatives=5)["token_logprobs"][len(ids) :]
        assert got == expected, f"{messages[-1]['content']!r}: the rendered conversation is another one: {got}, expected {expected}"
    return f"{len(conversations)} conversations are rendered the same"


def compare_logprobs(server, prompts, reference, model=""):
    """Every position of every prompt, then greedy text as long as the reference's choices are clear."""
    worst, at = 0.0, "nowhere"
    for kind, ids in prompts.items():
        expected = tiny_models.logprobs(reference.model, ids)
        served = server.complete(ids, model=model, tokens=reference.greedy_tokens)
        for position in range(len(ids)):
            place = f"{kind} prompt, after {position + 1} of {len(ids)} tokens"
            wanted = found(expected[position], served["top_logprobs"][position + 1], reference.names, place)
            if position + 1 < len(ids):
                wanted.append((ids[position + 1], served["token_logprobs"][position + 1]))
            difference = max(abs(got - expected[position, token].item()) for token, got in wanted)
            worst, at = max((worst, at), (difference, place))
        compare_greedy(served["tokens"][len(ids) :], ids, reference, kind)
    assert worst <= reference.gate, f"largest difference of a log-probability {worst:.4f} > {reference.gate} ({at})"
    return f"largest difference of a log-probability {worst:.4f}"


def found(row, served, names, place):
    """The reference's likeliest tokens, each with its served log-probability. Of tokens that are spelled the same, the server names the
    likeliest only."""
    chosen, seen = [], set()
    for token in row.topk(LIKELIEST).indices.tolist():
        name = names[token]
        if name is not None and name not in seen:
            assert name in served, f"{place}: {name!r} is not among the served alternatives"
            chosen.append((token, served[name]))
        seen.add(name)
    return chosen


def compare_greedy(served, ids, reference, kind):
    for step, (got, row) in enumerate(zip(served, tiny_models.continuation(reference.model, ids), strict=False)):
        values, tokens = row.topk(2)
        if values[0] - values[1] <= MARGIN:
            return
        expected = reference.names[tokens[0].item()]
        assert got == expected, f"{kind} prompt, greedy token {step + 1}: served {got!r}, expected {expected!r}"


def spellings(tokenizer, rows):
    """The names of all tokens in served log-probabilities."""
    texts = [tokenizer.token_bytes(token) for token in range(rows)]
    return [None if text is None else spelled(text) for text in texts]


def random_ids(tokenizer, length, seed=5):
    """A prompt of random pieces of text, the beginning of a sequence first where the tokenizer asks for it."""
    plain = torch.tensor([token for token, kind in enumerate(tokenizer.types) if kind == 1])
    drawn = plain[torch.randint(len(plain), (length,), generator=torch.Generator().manual_seed(seed))].tolist()
    return [tokenizer.fast.bos_token_id, *drawn] if tokenizer.adds_beginning else drawn
