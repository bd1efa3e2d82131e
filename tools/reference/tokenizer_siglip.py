#!/usr/bin/env python3
"""Makes tests/fixtures/siglip: a small SentencePiece model in SigLIP's layout, texts, and the ids that transformers'
SiglipTokenizer gives them.

    tokenizer_siglip.py            writes the fixture
    tokenizer_siglip.py --full DIR writes the same for a vocabulary of 8000 pieces and more texts

SigLIP's own vocabulary is published on a hub alone, so the pieces are learnt here, with what is known of the published one:
Unigram, pad 0, end 1, unknown 2, NFKC with NMT's extras. tokenizer.json is the same vocabulary as converters write it (lower
case, no punctuation, single spaces); its ids are those of the tokenizers library.

Needs sentencepiece 0.2.3, tokenizers 0.23.3 and transformers 5.24.0. tests/unit/test_tokenizer_siglip.c compares; with
LIKENESS_SIGLIP_CASES=DIR it reads DIR instead of the fixture.
"""
import io
import json
import pathlib
import random
import re
import string
import sys

import sentencepiece
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import SiglipTokenizer

from tokenizer import TEXTS, random_texts

MORE = [
    "▁", "▁▁a▁", "a▁b", "</s>", "a </s> b", "  </s>  ", "</s></s>x", "x</s>", "<unk>", "a<unk>b", "<pad> x", "</S>", "ends in </s>",
    "ΟΔΥΣΣΕΥΣ", "Σ", "ΑΣ'", "ΑΣ.Α", "AΣ\u00adB", "ªΣ ⅠΣ", "ΑΣ\u0301", "Σ Σ", "…Σ", "Σα", "ΣΣΣ", "ﷺ ﷻ", "①②③ ㍿ ㌀ ﬁ ½", "ｆｕｌｌ　ｗｉｄｔｈ！", "Å \u212b A\u030a",
    "\u001c\u001d\u001e\u001fx", "a\u001cb", "hello, world!", "100% [sure] {x} ~ `y` ^ | \\", "no.dots-or_lines", "\u00adsoft\u00ad", "\u200b", "中文 字符", "tabs\tand\nlines",
    " ".join(["cat"] * 80), "word " * 63, "word " * 64 + "</s>", "\u0e00\ue000\U000f0000", "\ue000\ue001", "x\ue000", "\ue000x\ue000y",
]


def train(pieces, seed_texts):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(seed_texts), model_writer=out, model_type="unigram", vocab_size=pieces, hard_vocab_limit=False, character_coverage=0.98,
        normalization_rule_name="nmt_nfkc", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1, minloglevel=2)
    return out.getvalue()


def canonical(text):
    return " ".join(text.lower().translate(str.maketrans("", "", string.punctuation)).split())


def converted(path):
    """tokenizer.json of the same pieces."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    fast = Tokenizer(models.Unigram([(model.id_to_piece(i), model.get_score(i)) for i in range(model.get_piece_size())], unk_id=2, byte_fallback=False))
    fast.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(Regex("[" + re.escape(string.punctuation) + "]"), ""),
                                            normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()])
    fast.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    fast.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    fast.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return fast


def with_bytes(out):
    """What SigLIP's own vocabulary does not use: bytes for unknown characters, pieces that are always taken, identity."""
    model = io.BytesIO()
    texts = ["a photo of a cat", "the cat sat on the mat", "red lion on a golden shield"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, model_type="unigram", vocab_size=300, hard_vocab_limit=False, normalization_rule_name="identity",
        byte_fallback=True, user_defined_symbols=["cat", "lion s"], pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2)
    (out / "bytes.model").write_bytes(model.getvalue())
    made = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    cases = [{"text": t, "ids": made.encode(t)} for t in ["the cat é sat catcat ﷺ", "", "  ", " a  b ", "ca cat scatter", "a golden lion shield", "🦁", "\u2581x\u2581", *TEXTS[:40]]]
    (out / "bytes.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")


def main():
    full = len(sys.argv) == 3 and sys.argv[1] == "--full"
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[2]) if full else root / "tests/fixtures/siglip"
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(5)
    words = sorted({w for t in TEXTS for w in canonical(t).split() if len(w) < 40})
    seeds = [canonical(t) for t in TEXTS if len(t) < 150] + [" ".join(rng.choices(words, k=8)) for _ in range(3000 if full else 400)]
    if full:  # running text: what this Python says of itself
        seeds += [canonical(line) for name in ("re", "argparse", "decimal", "typing", "unittest.mock", "statistics") for line in (__import__(name, fromlist=["x"]).__file__ and open(__import__(name, fromlist=["x"]).__file__, encoding="utf-8"))]
    (out / "spiece.model").write_bytes(train(8000 if full else 700, [s for s in seeds if s]))
    (out / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "SiglipTokenizer", "do_lower_case": True, "model_max_length": 64, "pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}))
    with_bytes(out)
    slow = SiglipTokenizer(vocab_file=str(out / "spiece.model"))
    fast = converted(out / "spiece.model")
    fast.save(str(out / "tokenizer.json"), pretty=False)
    cases = []
    for text in TEXTS + MORE + random_texts(4000 if full else 120):
        ids = slow(text, truncation=True, max_length=64)["input_ids"]
        padded = slow(text, padding="max_length", truncation=True, max_length=64)["input_ids"]
        assert padded == ids + [slow.pad_token_id] * (64 - len(ids)) and slow.pad_token_id == slow.eos_token_id == 1
        fast_ids = fast.encode(text).ids
        fast_ids = fast_ids if len(fast_ids) <= 64 else fast_ids[:63] + [1]
        cases.append({"text": text, "ids": ids, **({"fast": fast_ids} if fast_ids != ids else {})})
    (out / "cases.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
    print(f"{len(cases)} texts, {slow.vocab_size} pieces, {sum('fast' in c for c in cases)} otherwise in tokenizer.json, in {out}")


main()
