"""What lm-evaluation-harness reads from a folder: the examples of the tasks in lm_eval_tasks, and the tokenizer of a model file as transformers
keeps it."""

import json
import os
import pathlib
import re

# Whether to look for anything on the net, and how much to tell, these packages decide when they are imported.
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}

import gguf  # noqa: E402
import transformers  # noqa: E402
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: E402

BUILT_IN = pathlib.Path(__file__).resolve().parents[2] / "tasks/data"
# Of several test files the server takes the one named as the paper's, else the largest.
PAPERS_TEST_SIZE = 500
# llama.cpp's number for a token that is a mark and not text.
CONTROL = 3


def write_examples(folder, task, dataset):
    """Writes the test examples and the demonstrations that the server has of a data set, one to a line."""
    source = source_of(task, dataset)
    tests = {int(re.search(r"(\d+)\.json$", path.name)[1]): path for path in source.glob(f"{dataset}_test_*.json")}
    size = PAPERS_TEST_SIZE if PAPERS_TEST_SIZE in tests else max(tests)
    write_lines(folder / f"{task}_{dataset}_test.jsonl", tests[size])
    write_lines(folder / f"{task}_{dataset}_few_shot.jsonl", source / f"few_shot/{dataset}_few_shot.json")


def source_of(task, dataset):
    """The folder that a server started with the same QUICKCHANGE_DATA takes a data set from."""
    data = os.environ.get("QUICKCHANGE_DATA")
    own = pathlib.Path(data) / task if data else None
    return own if own and any(own.glob(f"{dataset}_*.json")) else BUILT_IN / task


def write_lines(path, source):
    records = [record for record in json.loads(source.read_text(encoding="utf-8")) if record["output"] != "-"]
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def write_tokenizer(folder, model):
    """Saves SmolLM2's tokenizer from its GGUF file: byte-level BPE that cuts numbers into digits. transformers could convert the file
    itself, but only with torch installed."""
    fields = gguf.GGUFReader(model).fields
    values = {re.sub(r"^tokenizer\.(ggml\.)?", "", key): field.contents() for key, field in fields.items() if key.startswith("tokenizer.")}
    assert (values["model"], values["pre"]) == ("gpt2", "smollm"), f"{model} has another kind of tokenizer"
    tokens = values["tokens"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in values["merges"]]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    marks = [token for token, kind in zip(tokens, values["token_type"], strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    names = {f"{name}_token": tokens[values[f"{key}_token_id"]] for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))}
    template = values["chat_template"]
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=template, clean_up_tokenization_spaces=False, **names
    ).save_pretrained(folder)
