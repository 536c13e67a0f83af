"""lm-evaluation-harness, unchanged, against a server that runs with --pretrained pretrained: python lm_eval_harness.py ADDRESS MODEL.gguf [EXAMPLES]

Its log-likelihoods, accuracies and greedy texts are held to what the server says on its own routes of the same examples and prompts, for the
base and for adapters by `model=`. Of each data set the first EXAMPLES are taken, 24 unless given; QUICKCHANGE_DATA names a folder of larger data
sets here as it does for the server.

Where lm-evaluation-harness scores other tokens than the server does, the difference is printed example by example, and both figures have to
be those that /v1/completions gives for the tokens of either side.
"""

import contextlib
import dataclasses
import importlib.metadata
import io
import json
import logging
import os
import pathlib
import re
import sys
import tempfile

from lm_eval_figures import Figures
from lm_eval_files import write_examples, write_tokenizer
from rouge_score.rouge_scorer import RougeScorer

TASKS = pathlib.Path(__file__).resolve().parent / "lm_eval_tasks"
DATASETS = (
    ("sentiment", "amazon"),
    ("sentiment", "sst2"),
    ("inference", "multinli"),
    ("inference", "gptnli"),
    ("question", "socialqa"),
    ("summary", "xsum"),
)
BASE = "base"
REMOTE = {"tokenizer_backend": "remote"}
# Saved from the model file; a folder as seen from where the harness runs.
LOCAL = {"tokenizer_backend": "huggingface", "tokenizer": "tokenizer"}
COMPLETIONS, CHAT = "completions", "chat/completions"
# Models, numbers of demonstrations and tasks whose figures are compared. Adapters made with demonstrations are given theirs; that makes
# prompts long, so a third of the examples has to do.
LIKELIHOODS = (
    (BASE, 0, ("sentiment_amazon", "inference_multinli")),
    ("sentiment-ft", 0, ("sentiment_sst2",)),
    ("sentiment-fticl", 2, ("sentiment_amazon",)),
    ("inference-ft", 0, ("inference_gptnli",)),
    ("inference-fticl", 3, ("inference_gptnli",)),
)
# Other ways to ask for the same, each for the base and for an adapter, with a third of the examples.
OTHER_WAYS = (
    ("texts", REMOTE | {"tokenized_requests": False}, ((BASE, "inference_gptnli"), ("sentiment-ft", "sentiment_sst2"))),
    (
        "texts, 4 a request, 4 requests at once, another seed",
        REMOTE | {"tokenized_requests": False, "batch_size": 4, "num_concurrent": 4, "seed": 7},
        ((BASE, "sentiment_sst2"), ("inference-ft", "inference_gptnli")),
    ),
    (
        "token ids of a local tokenizer, 4 requests at once",
        LOCAL | {"num_concurrent": 4},
        ((BASE, "sentiment_sst2"), ("inference-ft", "inference_gptnli")),
    ),
)
GENERATIONS = ((BASE, 1, "question_socialqa"), ("question-ft", 1, "question_socialqa"), ("summary-ft", 0, "summary_xsum"))
# The most tokens of an answer in the tasks and in evaluations.
ANSWER_TOKENS = 60
# Two log-likelihoods of the same tokens differ by no more than the rounding of their decimal digits.
GATE = 1e-5


@dataclasses.dataclass
class Comparison:
    """Log-likelihoods of both sides: the largest difference of those of the same tokens, and a line for each of other tokens."""

    ours: list[float]
    largest: float = 0.0
    other_tokens: list[str] = dataclasses.field(default_factory=list)
    unexplained: list[str] = dataclasses.field(default_factory=list)


class Harness:
    """lm-evaluation-harness in this process, with everything it reads and writes in one folder."""

    def __init__(self, figures, folder):
        self.figures = figures
        self.max_length = figures.post("/tokenize", {"prompt": ""})["max_model_len"]
        # Where data sets are kept is decided when the library is imported. It notes the commit of the folder it runs in, and git complains
        # where there is none.
        os.environ |= {"HF_DATASETS_CACHE": str(folder / "cache"), "GIT_DIR": str(TASKS.parents[2] / ".git")}
        # The tasks name their files as seen from here.
        os.chdir(folder)
        import lm_eval
        from lm_eval.tasks import TaskManager

        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self.simple_evaluate = lm_eval.simple_evaluate
        self.tasks = TaskManager(include_path=str(TASKS), include_defaults=False)

    def named(self, model):
        return self.figures.base if model == BASE else model

    def run(self, model, names, limit, *, route=COMPLETIONS, shots=0, conversation=False, sampling=None, **arguments):
        """Returns the samples and the metrics of each task."""
        defaults = {"model": self.named(model), "base_url": f"{self.figures.address}/v1/{route}", "max_length": self.max_length}
        # Its warnings and progress are many; errors come as exceptions.
        with contextlib.redirect_stderr(io.StringIO()):
            results = self.simple_evaluate(
                model=f"local-{route.replace('/', '-')}",
                model_args=defaults | arguments,
                tasks=[f"quickchange_{name}" for name in names],
                task_manager=self.tasks,
                num_fewshot=shots,
                limit=limit,
                gen_kwargs=sampling,
                apply_chat_template=conversation,
                bootstrap_iters=0,
            )
        ordered = {name: sorted(results["samples"][f"quickchange_{name}"], key=lambda sample: sample["doc_id"]) for name in names}
        return {name: (samples, results["results"][f"quickchange_{name}"]) for name, samples in ordered.items()}


def compare(figures, model, samples, max_length):
    """Holds every log-likelihood to that of /v1/score, which tokenises prompt and label apart."""
    pairs = [(*pair, *answer, sample) for sample in samples for pair, answer in zip(sample["arguments"], sample["filtered_resps"], strict=True)]
    own = figures.likelihoods(model, [pair[:2] for pair in pairs])
    comparison = Comparison([value for value, _ in own])
    for (context, label, theirs, greedy, sample), (ours, ours_greedy) in zip(pairs, own, strict=True):
        their_tokens = harness_tokens(figures, context, label, max_length)
        our_tokens = figures.tokens(context, special=True), figures.tokens(label)
        told = f"example {sample['doc']['idx']}, {label!r}: there {theirs:.5f} of {counted(their_tokens)}, here {ours:.5f} of {counted(our_tokens)}"
        if their_tokens == our_tokens:
            comparison.largest = max(comparison.largest, abs(theirs - ours))
            explained = abs(theirs - ours) <= GATE and greedy == ours_greedy
        else:
            comparison.other_tokens.append(told)
            sides = ((theirs, their_tokens), (ours, our_tokens))
            explained = all(abs(value - figures.scored(model, *tokens)) <= GATE for value, tokens in sides)
        if not explained:
            comparison.unexplained.append(told)
    assert not comparison.unexplained, "\n".join(["unexplained differences:", *comparison.unexplained])
    return comparison


def harness_tokens(figures, context, label, max_length):
    """What lm-evaluation-harness scores: spaces at the end of a context go to the label, both are tokenised as one text, and the beginning is cut
    where they and one token more would not fit."""
    stripped = context.rstrip()
    label = context[len(stripped) :] + label
    before = figures.tokens(stripped)
    behind = figures.tokens(stripped + label)[len(before) :]
    return before[max(0, len(before) + len(behind) - (max_length - 1)) :], behind


def counted(tokens):
    return f"{tokens[1]} after {len(tokens[0])} tokens"


def check_likelihoods(harness, limit):
    """By token ids, several to a request. That the server has a tokenizer the harness finds out by itself."""
    checked = 0
    for model, shots, names in LIKELIHOODS:
        results = harness.run(model, names, limit // 3 if shots else limit, shots=shots, batch_size=8)
        for name, result in results.items():
            check_cell(harness, (model, name, shots), result, "token ids, 8 a request")
            checked += 1
    return checked


def check_other_ways(harness, limit):
    """Texts in place of ids, several requests at once, and a tokenizer that is not asked of the server."""
    checked = 0
    for way, arguments, cells in OTHER_WAYS:
        for model, name in cells:
            check_cell(harness, (model, name, 0), harness.run(model, [name], limit, **arguments)[name], way)
            checked += 1
    return checked


def check_cell(harness, cell, result, way):
    """Log-likelihoods and accuracy are those of the server, the latter unless other tokens were scored."""
    model, name, shots = cell
    samples, metrics = result
    comparison = compare(harness.figures, harness.named(model), samples, harness.max_length)
    there, here = metrics["acc,none"], own_accuracy(harness, cell, samples, comparison.ours)
    print(
        f"{model}, {name}, {shots} shots, {way}: {len(samples)} examples, accuracy {there:.4f} there and {here:.4f} here; "
        f"{len(comparison.ours)} log-likelihoods, {len(comparison.other_tokens)} of other tokens, the others within {comparison.largest:.1e}",
        *(f"    {told}" for told in comparison.other_tokens),
        sep="\n",
        flush=True,
    )
    assert comparison.other_tokens or abs(there - here) < 1e-9


def own_accuracy(harness, cell, samples, ours):
    """That of an evaluation, which is that of these log-likelihoods. Where /v1/classify takes the same demonstrations, it finds them too."""
    model, name, shots = cell
    task, dataset = name.split("_")
    figures, served = harness.figures, harness.named(model)
    labels = [label for _, label in samples[0]["arguments"]]
    rows = [dict(zip(labels, ours[start:], strict=False)) for start in range(0, len(ours), len(labels))]
    chosen = [max(row, key=row.get) for row in rows]
    if shots == 0 or figures.trained_on[task] == dataset:
        classified = figures.labels(served, task, shots, [sample["doc"] for sample in samples])
        assert chosen == [label for label, _ in classified], f"{model}, {name}: /v1/score prefers {chosen}, /v1/classify says {classified}"
        assert all(abs(row[label] - found[label]) <= GATE for row, (_, found) in zip(rows, classified, strict=True) for label in labels)
    right = sum(label == sample["doc"]["output"] for label, sample in zip(chosen, samples, strict=True))
    evaluated = figures.evaluated(served, task, dataset, shots, len(samples))["value"]
    assert abs(right / len(samples) - evaluated) < 1e-9, f"{model}, {name}: {right} right by /v1/score, an evaluation says {evaluated}"
    return evaluated


def check_other_tokens(harness):
    """Where lm-evaluation-harness scores other tokens, that explains the whole difference: a space between prompt and label, and a `max_length`
    that cuts prompts."""
    cases = (("sentiment_sst2_spaced", harness.max_length), ("sentiment_amazon", 24))
    for name, max_length in cases:
        samples, _ = harness.run("sentiment-ft", [name], 4, max_length=max_length, **REMOTE)[name]
        comparison = compare(harness.figures, "sentiment-ft", samples, max_length)
        assert comparison.other_tokens, f"{name} is meant to be scored by other tokens"
        print(
            f"sentiment-ft, {name}, max_length {max_length}: {len(samples)} examples, {len(comparison.other_tokens)} log-likelihoods of other tokens, "
            "which explain every difference",
            *(f"    {told}" for told in comparison.other_tokens),
            sep="\n",
            flush=True,
        )
    return len(cases)


def check_generation(harness, limit):
    """Greedy texts are those of /v1/completions, and their ROUGE-L is that of an evaluation."""
    for model, shots, name in GENERATIONS:
        asked = harness.run(model, [name], limit, shots=shots, batch_size=4, **REMOTE)[name][0]
        texts = answers(asked)
        # Texts need no tokenizer on that side.
        again = harness.run(model, [name], limit, shots=shots, tokenizer_backend=None, num_concurrent=4)[name][0]
        assert answers(again) == texts, (model, name, answers(again), texts)
        own = harness.figures.completed(harness.named(model), [sample["arguments"][0][0] for sample in asked], ANSWER_TOKENS)
        same(model, name, texts, [text.split("\n\n")[0] for text in own])
        there = rouge_l(texts, [sample["doc"]["output"] for sample in asked])
        here = harness.figures.evaluated(harness.named(model), *name.split("_"), shots, len(asked))["value"]
        print(f"{model}, {name}, {shots} shots: {len(texts)} greedy texts the same, ROUGE-L {there:.4f} there and {here:.4f} here", flush=True)
        assert abs(there - here) < 1e-9
    return len(GENERATIONS)


def answers(samples):
    return [sample["filtered_resps"][0] for sample in samples]


def same(model, name, theirs, ours):
    different = [f"there {there!r}, here {here!r}" for there, here in zip(theirs, ours, strict=True) if there != here]
    assert not different, "\n".join([f"{model}, {name}: other texts:", *different])


def rouge_l(texts, references):
    """The mean over answers, each of which ends at its first blank line."""
    scorer = RougeScorer(["rougeL"])
    cut = [re.split(r"\n\s*?\n", text)[0].strip() for text in texts]
    values = [scorer.score(reference, text)["rougeL"].fmeasure for reference, text in zip(references, cut, strict=True)]
    return sum(values) / len(values)


def check_chat(harness, limit):
    """Greedy answers of conversations whose demonstrations are turns are those of /v1/chat/completions, whichever side renders them."""
    name, models = "question_socialqa", (BASE, "question-ft")
    for model in models:
        asked = harness.run(model, [name], limit, route=CHAT, shots=1, conversation=True)[name][0]
        conversations = [json.loads(sample["arguments"][0][0].prompt) for sample in asked]
        assert all([turn["role"] for turn in turns] == ["user", "assistant", "user"] for turns in conversations), conversations
        own = [harness.figures.answered(harness.named(model), turns, ANSWER_TOKENS).split("\n\n")[0] for turns in conversations]
        same(model, name, answers(asked), own)
        at_once = harness.run(model, [name], limit, route=CHAT, shots=1, conversation=True, num_concurrent=4)[name][0]
        same(model, name, answers(at_once), own)
        rendered_there = harness.run(model, [name], limit, shots=1, conversation=True, **LOCAL)[name][0]
        same(model, name, answers(rendered_there), own)
        print(f"{model}, {name}, conversations of 3 turns: {len(own)} greedy answers the same", flush=True)
    return len(models)


def check_seeds(harness):
    """A sampled text is that of the seed in the arguments, and another seed gives another."""
    name, sampling = "question_socialqa", {"do_sample": True, "temperature": 1.0}
    texts = {}
    for seed in (7, 8):
        samples, _ = harness.run(BASE, [name], 2, sampling=sampling, seed=seed, **REMOTE)[name]
        texts[seed] = answers(samples)
        prompts = [sample["arguments"][0][0] for sample in samples]
        # One by one, as they were asked for there.
        own = [harness.figures.completed(harness.figures.base, prompt, ANSWER_TOKENS, temperature=1.0, seed=seed)[0] for prompt in prompts]
        same(BASE, name, texts[seed], [text.split("\n\n")[0] for text in own])
    assert texts[7] != texts[8], texts
    print(f"base, {name}, temperature 1: the texts of seeds 7 and 8 are theirs", flush=True)
    return 1


def main():
    address, model = sys.argv[1:3]
    examples = int(sys.argv[3]) if len(sys.argv) > 3 else 24
    model = pathlib.Path(model).resolve()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for task, dataset in DATASETS:
            write_examples(folder, task, dataset)
        write_tokenizer(folder / "tokenizer", model)
        harness = Harness(Figures(address), folder)
        passed = check_likelihoods(harness, examples) + check_other_ways(harness, examples // 3) + check_other_tokens(harness)
        passed += check_generation(harness, examples // 6) + check_chat(harness, examples // 6) + check_seeds(harness)
    print(f"lm-evaluation-harness {importlib.metadata.version('lm_eval')}: {passed} passed, 0 failed")


if __name__ == "__main__":
    main()
