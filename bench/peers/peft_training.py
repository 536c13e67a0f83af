"""Optimizer steps by PyTorch and PEFT in f32 on the batches of a file: what `cargo bench -p trainer` does, by the usual means.

A batch is padded to its longest sequence, on the right; the loss counts the completion. Prints the seconds of each step but the first, the losses
and the most memory the process had, as one line of JSON.
"""

import argparse
import json
import os
import pathlib
import time

import peft
import torch
import transformers

from peers.worker import memory_of

RANK, ALPHA, LEARNING_RATE = 8, 16, 1e-4
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def padded(batch):
    """Token ids, mask and labels of a batch, each [examples, longest]."""
    sequences = [example["prompt"] + example["completion"] for example in batch]
    longest = max(map(len, sequences))
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, (example, sequence) in enumerate(zip(batch, sequences)):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
        labels[row, len(example["prompt"]) : len(sequence)] = torch.tensor(example["completion"])
    return ids, mask, labels


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--batches", required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    path = pathlib.Path(options.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    model = peft.get_peft_model(model, peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=PROJECTIONS, task_type="CAUSAL_LM"))
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    seconds, losses = [], []
    for batch in json.loads(pathlib.Path(options.batches).read_text()):
        began = time.perf_counter()
        ids, mask, labels = padded(batch)
        # Without padding there is nothing to mask, and attention is faster without a mask.
        loss = model(input_ids=ids, attention_mask=None if mask.all() else mask, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": seconds[1:], "losses": losses, "peak_mib": memory_of(os.getpid())["peak_mib"]}))


if __name__ == "__main__":
    main()
