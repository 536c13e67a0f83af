"""Ten optimizer steps of the trainer are those of PEFT and torch: python training_parity.py TRAINER MODEL.gguf

Both begin with the same adapter, made here, and take the same batch every time: the few examples of a data set made here, prompt and label joined
as the trainer joins them, the loss on the label's tokens and the end of turn. Losses agree to 1e-3 with the base's products in f32; what bytes
cost, for the rows and for the transposed weights, is bounded by GATES.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import peft
import torch
import transformers

from peft_parity import TARGETS, load_base

# Largest difference of a loss by `--activation-bits`.
GATES = {"32": 1e-3, "16": 1e-3, "mixed": 0.05, "8": 0.3}
STEPS = 10
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.01
EXAMPLES = [
    ("The kettle boils in a minute and never leaks.", "positive"),
    ("It arrived with a cracked lid, and nobody answers my letters.", "negative"),
    ("Not bad for the money, though the strap is short.", "positive"),
    ("I have bought three of these. All three stopped within a week.", "negative"),
    ("My daughter sleeps with it every night.", "positive"),
]


def data_set(folder):
    """In the paper's layout."""
    place = folder / "sentiment"
    (place / "few_shot").mkdir(parents=True)
    records = [{"idx": index, "input": text, "output": label} for index, (text, label) in enumerate(EXAMPLES)]
    for name in (f"amazon_train_{len(records)}.json", "amazon_test_1.json", "few_shot/amazon_few_shot.json"):
        (place / name).write_text(json.dumps(records))


def starting_point(base, folder):
    """An adapter whose A and B are both random, as PEFT saves it; the model that holds it."""
    torch.manual_seed(29)
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules=TARGETS, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.02)
    model.save_pretrained(folder)
    return model


def batch(tokenizer):
    """Padded on the right: ids, mask, labels."""
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    sequences = []
    for text, label in EXAMPLES:
        prompt = tokenizer(f"### Input:\n{text}\n### Sentiment:")["input_ids"]
        sequences.append((prompt, tokenizer(label)["input_ids"] + [end]))
    longest = max(len(prompt) + len(completion) for prompt, completion in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, (prompt, completion) in enumerate(sequences):
        length = len(prompt) + len(completion)
        ids[row, :length] = torch.tensor(prompt + completion)
        mask[row, :length] = 1
        labels[row, len(prompt) : length] = torch.tensor(completion)
    return ids, mask, labels


def peft_losses(model, tokenizer):
    """Before each of ten AdamW steps."""
    ids, mask, labels = batch(tokenizer)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    losses = []
    for _ in range(STEPS):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def trainer_losses(trainer, model_file, work, bits):
    out = work / f"trained-{bits}"
    flags = {
        "--task": "sentiment", "--data": work / "data", "--model": model_file, "--from": work / "start", "--out": out,
        "--rank": 4, "--alpha": 12, "--epochs": STEPS, "--batch-size": len(EXAMPLES), "--held-out": 0, "--clip": 0,
        "--lr": LEARNING_RATE, "--warmup": 0, "--schedule": "constant", "--weight-decay": WEIGHT_DECAY, "--activation-bits": bits,
    }  # fmt: skip
    subprocess.run([trainer, "train", *[str(part) for pair in flags.items() for part in pair]], check=True, stderr=subprocess.DEVNULL)
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in entries if entry["event"] == "step"]


def main(trainer, model):
    model_file = pathlib.Path(model).resolve()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_file.parent, gguf_file=model_file.name)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        data_set(work / "data")
        expected = peft_losses(starting_point(load_base(model_file).train(), work / "start"), tokenizer)
        for bits, gate in GATES.items():
            got = trainer_losses(trainer, model_file, work, bits)
            worst = max(abs(a - b) for a, b in zip(got, expected, strict=True))
            print(f"ten steps with --activation-bits {bits}: losses {expected[0]:.4f} to {expected[-1]:.4f}, off PEFT's by at most {worst:.6f}", flush=True)
            assert worst <= gate, f"{got} instead of {expected}"


if __name__ == "__main__":
    main(*sys.argv[1:])
