"""Metrics of an evaluation against the packages that define them: python metrics_parity.py ADDRESS

The server evaluates the base and an adapter on generation and classification; then every figure is made again from GET …/predictions: ROUGE by rouge_score,
BLEU by sacrebleu, accuracy and macro-F1 by scikit-learn. The server needs no data but its own.
"""

import json
import re
import sys
import urllib.request

import requests
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

REQUEST = {"kind": "matrix", "adapters": ["base", "summary-ft"], "datasets": ["xsum", "pdfs", "tweetqa", "multinli", "sst2"], "shots": [1], "limit": 12}
TOLERANCE = 1e-6
ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}


def evaluate(address):
    """The finished evaluation and its predictions by cell."""
    started = requests.post(f"{address}/v1/evaluations", json=REQUEST)
    assert started.status_code == 202, started.text
    own = f"{address}/v1/evaluations/{started.json()['id']}"
    with urllib.request.urlopen(own + "/events") as events:
        for _ in events:
            pass
    evaluation = requests.get(own).json()
    assert evaluation["status"] == "completed", evaluation
    cells = [[] for _ in evaluation["cells"]]
    for line in requests.get(own + "/predictions").text.splitlines():
        prediction = json.loads(line)
        cells[prediction["cell"]].append(prediction)
    return evaluation, cells


def cut(text):
    """What counts of a generation: what stands before the first blank line."""
    blank = re.search(r"\n[^\S\n]*\n", text)
    return text[: blank.start() if blank else len(text)].strip()


def check(what, own, other):
    assert abs(own - other) <= TOLERANCE, f"{what}: {own} here, {other} there"


def check_generation(name, cell, predictions):
    scorer = RougeScorer(list(ROUGE.values()), use_stemmer=False)
    scores = [scorer.score(line["gold"], cut(line["prediction"])) for line in predictions]
    for line, score in zip(predictions, scores):
        check(f"{name}, example {line['index']}", line["score"], score["rougeL"].fmeasure)
    for own, other in ROUGE.items():
        check(f"{name}, {own}", cell["extra"][own], sum(score[other].fmeasure for score in scores) / len(scores))
    candidates, references = [cut(line["prediction"]) for line in predictions], [line["gold"] for line in predictions]
    check(f"{name}, BLEU", cell["extra"]["bleu"], sacrebleu.corpus_bleu(candidates, [references]).score)


def check_classification(name, cell, predictions):
    golds, chosen, labels = [line["gold"] for line in predictions], [line["prediction"] for line in predictions], cell["extra"]["labels"]
    check(f"{name}, accuracy", cell["value"], accuracy_score(golds, chosen))
    check(f"{name}, macro-F1", cell["extra"]["macro_f1"], f1_score(golds, chosen, labels=labels, average="macro", zero_division=0))
    assert confusion_matrix(golds, chosen, labels=labels).tolist() == cell["extra"]["confusion"], name


def main():
    evaluation, predictions = evaluate(sys.argv[1].rstrip("/"))
    for cell, lines in zip(evaluation["cells"], predictions):
        name = f"{cell['adapter']} on {cell['dataset']}"
        assert len(lines) == cell["n"], name
        (check_generation if cell["metric"] == "rouge_l" else check_classification)(name, cell, lines)
    examples = sum(map(len, predictions))
    print(f"metrics: {len(predictions)} cells, {examples} examples, all figures as rouge_score, sacrebleu and scikit-learn have them, within {TOLERANCE}")


if __name__ == "__main__":
    main()
