"""Tokenizers of a few hundred tokens in the two styles language models use, trained here on the sentences below.

A `SpelledTokenizer` holds the Hugging Face tokenizer and what a GGUF file says about it. Models belong to `architecture_cases`.
"""

import dataclasses
import io
import json
import re

import sentencepiece
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = [
    "A lighthouse keeper counts the ships that pass between dusk and dawn.",
    "The battery died after two days, and the seller never answered my letters.",
    "We're sure they'll say it's fine; I'd rather you'd ask first, and he doesn't mind.",
    "In 1987 the bridge was 1234 metres long and had cost 56,780,000 crowns.",
    "Numbers such as 3.14159, 2.71828 and 100000 are cut in groups of digits.",
    "Bread, butter, apples and a jar of honey stood upon the kitchen table.",
    "def area(width, height):\n    return width * height  # square metres\n",
    "Der Zug fährt um acht Uhr früh über die Brücke; größere Städte folgen später.",
    "Où est la bibliothèque? Près de l'église, à côté du café.",
    "Москва стоит на реке, а зимой там очень холодно.",
    "The other river runs slowly through the valley where the horses are grazing.",
    "Nothing would please the children more than another story about the sea.",
    "What is the answer? The answer is written on the last page of the book.",
]

# What trips tokenizers: spaces in every place, new lines, digits, contractions, scripts outside the vocabulary, joined emoji, marks that
# compose, and special tokens spelled in the text (added per tokenizer).
TRICKY = [
    "",
    " ",
    "   ",
    "a",
    " a",
    "a ",
    "  two  leading and trailing  ",
    "\n",
    "\n\n\n",
    "line\n\nline\r\nline\tTab\t\t",
    "The other river runs slowly.",
    "WE'RE, they'll, I'd; O'Neill's 'quoted'",
    "1234567890 3.14159 007 1,000,000",
    "größere Städte, café au lait, naïve",
    "Москва зимой",
    "日本語の文 と 中文",
    "🙂👩‍👩‍👧‍👦🇪🇺 emoji",
    "cafe\u0301 A\u030a",
    "ﬁ ligature, ½, ™, non\u00a0breaking, zero\u200bwidth",
    "x=[i**2 for i in range(10)]  # code\n        deep",
    "▁underline▁",
    "\u0000\u0001\u007f",
    "!!!???...---///",
]

# How these families cut words, published in their tokenizer.json files.
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_WORDS = LLAMA3_WORDS.replace("{1,3}", "")


@dataclasses.dataclass
class SpelledTokenizer:
    """A tokenizer whose tokens' bytes are known. `fast` is that of transformers; the rest goes into GGUF's `tokenizer.ggml.*` keys, `types`
    being llama.cpp's token types."""

    fast: transformers.PreTrainedTokenizerFast
    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None = None
    merges: list[str] | None = None
    adds_beginning: bool = True
    adds_space: bool = False
    specials: tuple[str, ...] = ()

    def tricky_texts(self):
        spelled = [f"{mark}one{mark} two {mark}\n three" for mark in self.specials]
        return TRICKY + spelled + ["".join(self.specials)]

    def token_bytes(self, token):
        """The bytes of text a token stands for, from its spelling; None for padding beyond the tokenizer's vocabulary."""
        if token >= len(self.tokens):
            return None
        spelling, kind = self.tokens[token], self.types[token]
        if kind in (2, 3, 4):
            return spelling.encode()
        if self.model == "llama":
            byte = re.fullmatch(r"<0x([0-9A-F]{2})>", spelling)
            return bytes([int(byte[1], 16)]) if byte else spelling.replace("▁", " ").encode()
        return bytes(BYTE_OF[character] for character in spelling)


def byte_alphabet():
    """GPT-2's alphabet: printing Latin-1 characters stand for themselves, the other 68 bytes are numbered from U+0100."""
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in prints]
    return {chr(byte): byte for byte in prints} | {chr(0x100 + rank): byte for rank, byte in enumerate(others)}


BYTE_OF = byte_alphabet()


def wrapped(tokenizer, template, **marks):
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=template, clean_up_tokenization_spaces=False, **marks
    )


def byte_level(
    *, pre, words, template, specials, end, plain_marks=(), beginning=None, padding=None, whole_words_first=False, nfc=False
):
    """Byte-level BPE as in Llama 3 and Qwen; `plain_marks` are added tokens that are text and not special."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=whole_words_first))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=390, initial_alphabet=alphabet, show_progress=False))
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in specials])
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in plain_marks])
    if beginning:
        start = [(beginning, tokenizer.token_to_id(beginning))]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{beginning} $A", special_tokens=start)
    fast = wrapped(tokenizer, template, bos_token=beginning, eos_token=end, pad_token=padding)
    kinds = dict.fromkeys(specials, 3) | dict.fromkeys(plain_marks, 4)
    tokens = [tokenizer.id_to_token(token) for token in range(tokenizer.get_vocab_size())]
    merges = [" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    return SpelledTokenizer(
        fast=fast,
        model="gpt2",
        pre=pre,
        tokens=tokens,
        types=[kinds.get(token, 1) for token in tokens],
        merges=merges,
        adds_beginning=beginning is not None,
        specials=(*specials, *plain_marks),
    )


def pieces(*, adds_space, marks, user_defined):
    """Trains SentencePiece BPE with byte fallback; `marks` are the names of unk, bos, eos and pad by id."""
    names = {key: value for kind, (token, name) in marks.items() for key, value in ((f"{kind}_id", token), (f"{kind}_piece", name))}
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in SENTENCES for line in text.splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=460,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=adds_space,
        split_digits=True,
        user_defined_symbols=user_defined,
        minloglevel=2,
        **({"pad_id": -1} | names),
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    kind = {"is_unknown": 2, "is_control": 3, "is_byte": 6}
    rows = []
    for token in range(processor.get_piece_size()):
        number = next((number for test, number in kind.items() if getattr(processor, test)(token)), 1)
        piece = processor.id_to_piece(token)
        rows.append((piece, processor.get_score(token), 4 if piece in user_defined else number))
    return rows


def merges_of(rows):
    """Every pair of pieces that joins to a piece, the best-scored joined piece first: what SentencePiece's merging amounts to."""
    text = {piece: (-score, token) for token, (piece, score, kind) in enumerate(rows) if kind in (1, 4)}
    pairs = []
    for piece, (cost, _) in text.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in text and right in text:
                pairs.append((cost, text[left][1], text[right][1], left, right))
    return [(left, right) for *_, left, right in sorted(pairs)]


def sentence_pieces(*, template, adds_space, marks, added=(), strips_right=(), controls=(), user_defined=()):
    """SentencePiece BPE as in Llama 2, Mistral, Phi-3 (`adds_space`) and Gemma. `added` are special tokens after the vocabulary,
    `controls` special tokens within it, `user_defined` pieces of text within it; tokens in `strips_right` swallow white space."""
    rows = pieces(adds_space=adds_space, marks=marks, user_defined=[*controls, *user_defined])
    rows = [(piece, score, 3 if piece in controls else kind) for piece, score, kind in rows]
    vocabulary = {piece: token for token, (piece, _, _) in enumerate(rows)}
    unknown, beginning, end = (marks[kind][1] for kind in ("unk", "bos", "eos"))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges_of(rows), unk_token=unknown, fuse_unk=True, byte_fallback=True))
    space = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space]) if adds_space else space
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(content=" ", left=1)] if adds_space else steps)
    own = [name for _, name in marks.values()]
    for mark in [*own, *controls, *added]:
        tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False, rstrip=mark in strips_right)])
    start = [(beginning, vocabulary[beginning])]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{beginning} $A", special_tokens=start)
    padding = marks["pad"][1] if "pad" in marks else end
    fast = wrapped(tokenizer, template, bos_token=beginning, eos_token=end, unk_token=unknown, pad_token=padding)
    rows += [(mark, -1000.0, 3) for mark in added]
    # Converters write the spaces of user-defined pieces as they stand in text.
    spelled = [piece.replace("▁", " ") if kind == 4 else piece for piece, _, kind in rows]
    return SpelledTokenizer(
        fast=fast,
        model="llama",
        pre="default",
        tokens=spelled,
        types=[kind for _, _, kind in rows],
        scores=[score for _, score, _ in rows],
        adds_space=adds_space,
        specials=(beginning, end, *controls, *added),
    )
