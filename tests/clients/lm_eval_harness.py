"""lm-evaluation-harness, unchanged, against a server that runs with --pretrained pretrained: python lm_eval_harness.py ADDRESS MODEL.gguf [EXAMPLES]

Its log-likelihoods, accuracies and greedy texts are held to what the server says on its own routes of the same examples and prompts, for the
base and for adapters by `model=`. Of each data set the first EXAMPLES are taken, 24 unless given; QUICKCHANGE_DATA names a folder of larger data
sets here as it does for the server.

Where lm-evaluation-harness scores other tokens than the server does, the difference is printed example by example, and both figures have to
be those that /v1/completions gives for the tokens of either side.
"""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
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
# Models, numbers of demonstrations and tasks whose figures are compared. Adapters made with demonstrations are given theirs.
LIKELIHOODS = (
    (BASE, 0, ("sentiment_amazon", "sentiment_sst2", "inference_multinli", "inference_gptnli")),
    ("sentiment-ft", 0, ("sentiment_amazon", "sentiment_sst2")),
    ("sentiment-fticl", 2, ("sentiment_amazon",)),
    ("inference-ft", 0, ("inference_multinli", "inference_gptnli")),
    ("inference-fticl", 3, ("inference_gptnli",)),
)
REMOTE = {"tokenizer_backend": "remote"}
# Other ways to ask for the same, tried with the shortest tasks.
OTHER_WAYS = {
    "texts": REMOTE | {"tokenized_requests": False},
    "texts, 4 a request, 4 requests at once": REMOTE | {"tokenized_requests": False, "batch_size": 4, "num_concurrent": 4, "seed": 7},
    "token ids of a local tokenizer, 4 requests at once": {"tokenizer_backend": "huggingface", "tokenizer": "tokenizer", "num_concurrent": 4},
}
SHORTEST = ((BASE, "sentiment_sst2"), ("sentiment-ft", "sentiment_sst2"), ("inference-ft", "inference_gptnli"))
GENERATIONS = ((BASE, 1, "question_socialqa"), ("question-ft", 1, "question_socialqa"), ("summary-ft", 0, "summary_xsum"))
# The most tokens of an answer in the tasks and in evaluations.
ANSWER_TOKENS = 60
# Two log-likelihoods of the same tokens differ by no more than the rounding of their decimal digits.
GATE = 1e-5


@dataclasses.dataclass
class Comparison:
    """Log-likelihoods of both sides. `other_tokens` has a line for each that was taken of other tokens."""

    count: int = 0
    largest: float = 0.0
    other_tokens: list[str] = dataclasses.field(default_factory=list)
    unexplained: list[str] = dataclasses.field(default_factory=list)


class Harness:
    """lm-evaluation-harness in this process, with everything it reads and writes in one folder."""

    def __init__(self, figures, folder):
        self.figures, self.folder = figures, folder
        self.max_length = figures.post("/tokenize", {"prompt": ""})["max_model_len"]
        # Where these libraries keep things, and whether they look for anything on the net, they decide when they are imported.
        os.environ |= {"HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "LMEVAL_LOG_LEVEL": "ERROR", "TQDM_DISABLE": "1"}
        # The tasks name their files as seen from here.
        os.chdir(folder)
        import lm_eval
        from lm_eval.tasks import TaskManager

        self.simple_evaluate = lm_eval.simple_evaluate
        self.tasks = TaskManager(include_path=str(TASKS), include_defaults=False)

    def named(self, model):
        return self.figures.base if model == BASE else model

    def run(self, model, names, limit, *, shots=0, chat=False, sampling=None, **arguments):
        """Returns the samples and the metrics of each task."""
        route = "/v1/chat/completions" if chat else "/v1/completions"
        defaults = {"model": self.named(model), "base_url": self.figures.address + route, "max_length": self.max_length}
        results = self.simple_evaluate(
            model="local-chat-completions" if chat else "local-completions",
            model_args=defaults | arguments,
            tasks=[f"quickchange_{name}" for name in names],
            task_manager=self.tasks,
            num_fewshot=shots,
            limit=limit,
            gen_kwargs=sampling,
            apply_chat_template=chat,
            bootstrap_iters=0,
        )
        ordered = {name: sorted(results["samples"][f"quickchange_{name}"], key=lambda sample: sample["doc_id"]) for name in names}
        return {name: (samples, results["results"][f"quickchange_{name}"]) for name, samples in ordered.items()}


def compare(figures, model, samples, max_length):
    """Holds every log-likelihood to that of /v1/score, which tokenises prompt and label apart."""
    pairs = [(*pair, *answer, sample) for sample in samples for pair, answer in zip(sample["arguments"], sample["filtered_resps"], strict=True)]
    own = figures.likelihoods(model, [pair[:2] for pair in pairs])
    comparison = Comparison(len(pairs))
    for (context, label, theirs, greedy, sample), (ours, ours_greedy) in zip(pairs, own, strict=True):
        their_tokens = harness_tokens(figures, context, label, max_length)
        our_tokens = figures.tokens(context, special=True), figures.tokens(label)
        told = f"example {sample['doc']['idx']}, {label!r}: there {theirs:.5f} of {counted(their_tokens)}, here {ours:.5f} of {counted(our_tokens)}"
        if their_tokens == our_tokens:
            comparison.largest = max(comparison.largest, abs(theirs - ours))
            explained = abs(theirs - ours) <= GATE and greedy == ours_greedy
        else:
            comparison.other_tokens.append(told)
            explained = all(
                abs(value - figures.scored(model, *tokens)) <= GATE for value, tokens in ((theirs, their_tokens), (ours, our_tokens))
            )
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
    checked = 0
    for model, shots, names in LIKELIHOODS:
        for name, (samples, metrics) in harness.run(model, names, limit, shots=shots, batch_size=8, **REMOTE).items():
            comparison = compare(harness.figures, harness.named(model), samples, harness.max_length)
            assert not comparison.other_tokens, comparison.other_tokens
            accuracy = own_accuracy(harness, model, name, shots, samples)
            report(f"{model}, {name}, {shots} shots, token ids, 8 a request", samples, comparison, (metrics["acc,none"], accuracy))
            assert abs(metrics["acc,none"] - accuracy) < 1e-9
            checked += 1
    return checked


def own_accuracy(harness, model, name, shots, samples):
    """That of an evaluation. Where /v1/classify takes the same demonstrations, it chooses the same labels at the same log-likelihoods."""
    task, dataset = name.split("_")
    figures, served = harness.figures, harness.named(model)
    if shots == 0 or figures.trained_on[task] == dataset:
        own = figures.labels(served, task, shots, [sample["doc"] for sample in samples])
        for sample, (label, likelihoods) in zip(samples, own, strict=True):
            theirs = {pair[1]: answer[0] for pair, answer in zip(sample["arguments"], sample["filtered_resps"], strict=True)}
            where = f"{model}, {name}, example {sample['doc']['idx']}: there {theirs}, here {label}, {likelihoods}"
            assert max(theirs, key=theirs.get) == label, where
            assert all(abs(theirs[label] - likelihoods[label]) <= GATE for label in likelihoods), where
    return figures.evaluated(served, task, dataset, shots, len(samples))["value"]


def report(what, samples, comparison, accuracies):
    there, here = accuracies
    print(
        f"{what}: {len(samples)} examples, accuracy {there:.4f} there and {here:.4f} here; {comparison.count} log-likelihoods, "
        f"{len(comparison.other_tokens)} of other tokens, the others within {comparison.largest:.1e}",
        flush=True,
    )


def check_other_ways(harness, limit):
    """Texts in place of ids, several to a request, several requests at once, a tokenizer that is not asked of the server."""
    checked = 0
    for way, arguments in OTHER_WAYS.items():
        for model, name in SHORTEST:
            samples, metrics = harness.run(model, [name], limit, **arguments)[name]
            comparison = compare(harness.figures, harness.named(model), samples, harness.max_length)
            assert not comparison.other_tokens, comparison.other_tokens
            accuracy = own_accuracy(harness, model, name, 0, samples)
            report(f"{model}, {name}, {way}", samples, comparison, (metrics["acc,none"], accuracy))
            assert abs(metrics["acc,none"] - accuracy) < 1e-9
            checked += 1
    return checked


def check_other_tokens(harness):
    """Where lm-evaluation-harness scores other tokens, that explains the whole difference: a space between prompt and label, and a `max_length`
    that cuts prompts."""
    cases = (("sentiment_sst2_spaced", harness.max_length), ("sentiment_amazon", 24))
    for name, max_length in cases:
        samples, _ = harness.run("sentiment-ft", [name], 4, max_length=max_length, **REMOTE)[name]
        comparison = compare(harness.figures, "sentiment-ft", samples, max_length)
        assert len(comparison.other_tokens) == comparison.count, comparison.other_tokens
        print(f"sentiment-ft, {name}, max_length {max_length}: {comparison.count} log-likelihoods of other tokens, every difference explained by them")
        print("\n".join(f"    {told}" for told in comparison.other_tokens), flush=True)
    return len(cases)


def check_generation(harness, limit):
    """Greedy texts are those of /v1/completions, and their ROUGE-L is that of an evaluation."""
    for model, shots, name in GENERATIONS:
        asked = harness.run(model, [name], limit, shots=shots, batch_size=4, **REMOTE)[name][0]
        texts = answers(asked)
        for other in ({"tokenized_requests": False, "num_concurrent": 4} | REMOTE, {"tokenizer_backend": None, "batch_size": 8}):
            again = answers(harness.run(model, [name], limit, shots=shots, **other)[name][0])
            assert again == texts, (model, name, other, again, texts)
        own = [harness.figures.completed(harness.named(model), sample["arguments"][0][0], ANSWER_TOKENS) for sample in asked]
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
    """Greedy answers of conversations whose demonstrations are turns are those of /v1/chat/completions."""
    name = "question_socialqa"
    for model in (BASE, "question-ft"):
        for concurrent in (1, 4):
            samples, _ = harness.run(model, [name], limit, shots=1, chat=True, num_concurrent=concurrent)[name]
            conversations = [json.loads(sample["arguments"][0][0][0]) for sample in samples]
            assert all([turn["role"] for turn in turns] == ["user", "assistant", "user"] for turns in conversations), conversations
            own = [harness.figures.answered(harness.named(model), turns, ANSWER_TOKENS) for turns in conversations]
            same(model, name, answers(samples), [text.split("\n\n")[0] for text in own])
        print(f"{model}, {name}, conversations of 3 turns: {len(samples)} greedy answers the same", flush=True)
    return 2


def check_seeds(harness):
    """A sampled text is that of the seed in the arguments, and another seed gives another."""
    name, sampling = "question_socialqa", {"do_sample": True, "temperature": 1.0}
    texts = {}
    for seed in (7, 8):
        samples, _ = harness.run(BASE, [name], 2, sampling=sampling, seed=seed, **REMOTE)[name]
        texts[seed] = answers(samples)
        prompts = [sample["arguments"][0][0] for sample in samples]
        own = [harness.figures.completed(harness.figures.base, prompt, ANSWER_TOKENS, temperature=1.0, seed=seed) for prompt in prompts]
        same(BASE, name, texts[seed], [text.split("\n\n")[0] for text in own])
    assert texts[7] != texts[8], texts
    print(f"base, {name}, temperature 1: the texts of seeds 7 and 8 are theirs", flush=True)
    return 1


def check_command(harness, limit):
    """The command line, which finds out by itself that the server has a tokenizer, gives the accuracy of an evaluation."""
    name, model = "sentiment_sst2", "sentiment-ft"
    arguments = f"model={model},base_url={harness.figures.address}/v1/completions"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", arguments, "--include_path", str(TASKS)]
    command += ["--tasks", f"quickchange_{name}", "--limit", str(limit), "--output_path", "results.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (results,) = (json.loads(path.read_text()) for path in harness.folder.glob("results*.json"))
    there = results["results"][f"quickchange_{name}"]["acc,none"]
    here = harness.figures.evaluated(model, *name.split("_"), 0, limit)["value"]
    print(f"{model}, {name}, as a command: {limit} examples, accuracy {there:.4f} there and {here:.4f} here", flush=True)
    assert abs(there - here) < 1e-9
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
        passed = check_likelihoods(harness, examples) + check_other_ways(harness, examples) + check_other_tokens(harness)
        passed += check_generation(harness, examples // 3) + check_chat(harness, examples // 6) + check_seeds(harness)
        passed += check_command(harness, examples)
    print(f"lm-evaluation-harness {importlib.metadata.version('lm_eval')}: {passed} passed, 0 failed")


if __name__ == "__main__":
    main()
