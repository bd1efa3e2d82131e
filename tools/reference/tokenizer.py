#!/usr/bin/env python3
"""Makes tests/fixtures/tokenizer: a small CLIP tokenizer, texts, and the ids that transformers' CLIPTokenizer gives them.

    tokenizer.py            writes the fixture (of the vocabulary that lies there)
    tokenizer.py --learn    learns that vocabulary from the texts first: another one each time, as the trainer breaks ties by chance
    tokenizer.py --full DIR writes the same for the vocabulary of OpenAI's CLIP, taken from the open_clip package

Needs tokenizers 0.23.3, transformers 5.24.0 and, for --full, open_clip_torch 3.3.0.
tests/unit/test_tokenizer.c compares; with LIKENESS_TOKENIZER_CASES=DIR it reads DIR instead of the fixture.
"""
import gzip
import json
import os
import pathlib
import random
import sys

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

TEXTS = [
    "a photo of a cat", "A red lion, rampant; on a GOLDEN shield!", "it's the dog's bone, we'll see, they've said I'd go, I'm",
    "IT'S", "don't can't won't'", "'s 's't're''ve 'll", "x's'd", "2024 was 12,345.67 km/h", "H2O CO₂ x² ½ ⅷ ①②③ ٣٤٥ 一二三",
    "", " ", "\t\n  \r\n", "a", "ab", "hello  world\u00a0non\u2003breaking\u2028lines\u3000ideographic", "\u200bzero\u200cwidth\u200djoin\ufeff",
    "Ein Bär läuft über die Straße, Größe ÄÖÜß ẞ", "l'œuvre d'un élève très naïf à Noël", "El niño comió piñas en la mañana ¿no? ¡sí!",
    "Красный лев на золотом щите", "ΟΔΥΣΣΕΥΣ Σίσυφος ς σ Σ", "İstanbul ISPARTA ığdır", "Straẞe ﬁne ﬂow ǅ ǆ Ǆ ᾳ ᾼ",
    "שלום עולם אריה אדום", "مرحبا بالعالم أسد أحمر", "नमस्ते दुनिया क्षत्रिय", "สวัสดีชาวโลก สิงโตแดง", "你好,世界。红狮子", "こんにちは世界 ﾊﾝｶｸ ｶﾞ", "안녕하세요 세계 한국어",
    "ভাষা বাংলা", "தமிழ் மொழி", "ქართული ენა Ⴀⴀ Ა", "Հայերեն", "አማርኛ", "ខ្មែរ", "Tiếng Việt có dấu", "ᏣᎳᎩ ꭰ Ꭰ", "𝒳 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐐀𐐨 𞤀𞤢",
    "e\u0301 vs é, A\u030a vs Å vs \u212b, q\u0307\u0323 q\u0323\u0307", "\u0958\u0959 \u1e9b\u0323 \ufb2c \U0001d160", "가 \u1100\u1161\u11a8",
    "🦁", "I ❤️ 🦁🦁 lions!!!", "👨‍👩‍👧‍👦 family 👩🏽‍🚀 🏳️‍🌈 🇩🇪🇫🇷", "☕️coffee☕tea", "(╯°□°)╯︵ ┻━┻", ":-) ;) :D <3 --> => ~~~",
    "<|startoftext|>", "a <|endoftext|> b", "<|STARTOFTEXT|>!!", "<|EndOfText|>?", "<|startoftext|><|endoftext|>", "<|startoftext", "<<|endoftext|>>",
    "!!!<|STARTOFTEXT|>", "<|startoftext|>'s", "&amp; &lt;b&gt; &#39;", "<b>html</b>", "http://example.com/a?b=c&d=%20#e", "C:\\path\\to\\file.txt", "snake_case camelCase kebab-case",
    "a\u0000b".replace("\u0000", "\u0001"), "\u007f\u0080\u0085next\u009f", "\ufffd\ufffe \U0010ffff", "\u202eright to left\u202c", "…—–‘’“”«»„‚", "™®©℠ € £ ¥ ₿ §¶†‡",
    "a" * 300, "ab" * 200, "the " * 100, "!" * 200, "é" * 100, "1" * 120, "🦁" * 60, "x" * 74 + " y", "one two three " * 24 + "end",
    "aaaaaaaaab aabaabaab abababa", "lllllove loooong zzzz", "mississippi banana bookkeeper", "İ" * 40, "\u023a\u023e\u0130\u1e9e", "ﬀ ﬃ st ﬆ", "Ⅷ ⅷ Ⓐ ⓐ", "ªº ʰ ˠ ー 々 〆",
    "ℵ ℶ ∀x∈ℝ: ∃y ≠ x ∧ √2 ≈ 1.414", "½½½ ²³¹ ៣ ൩ 𝟘𝟙", "\u0300start with a mark", "a\u0300\u0301\u0302\u0303\u0304", "z\u0335\u0322a\u0334l\u0337g\u0338o",
]


def random_texts(count):
    """Adversarial strings: characters from everywhere, with the marks of the splitting rule among them."""
    rng = random.Random(7)
    pieces = ["'s", "'re", "'", " ", "  ", "<|", "|>", "<|endoftext|>", "<|STARTOFTEXT|>", "\u0301", "\u200d", "ß", "İ", "Σ"]
    ranges = [(0x20, 0x7e), (0xa1, 0x24f), (0x370, 0x3ff), (0x400, 0x4ff), (0x590, 0x6ff), (0x900, 0x97f), (0x1100, 0x11ff), (0x1e00, 0x1fff), (0x2000, 0x2bff), (0x3000, 0x30ff), (0x4e00, 0x4fff), (0xac00, 0xacff), (0xfb00, 0xfb4f), (0x1f300, 0x1f6ff)]
    made = []
    for _ in range(count):
        text = ""
        for _ in range(rng.randrange(1, 40)):
            if rng.random() < 0.3:
                text += rng.choice(pieces)
            else:
                low, high = rng.choice(ranges)
                text += "".join(chr(rng.randint(low, high)) for _ in range(rng.randrange(1, 4)))
        made.append(text)
    return made


def byte_characters():
    """The 256 characters of byte-level vocabularies in CLIP's order: those that stand for themselves first."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in shown] + [chr(256 + i) for i in range(256 - len(shown))]


def learn():
    """Merges learnt from the texts."""
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    trained.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=1100, end_of_word_suffix="</w>", initial_alphabet=sorted(ByteLevel.alphabet()), show_progress=False)
    trained.train_from_iterator(TEXTS, trainer)
    return [tuple(m) for m in json.loads(trained.to_str())["model"]["merges"]]


def small(merges):
    """A vocabulary in CLIP's layout with those merges that can be reached."""
    characters = byte_characters()
    tokens = characters + [c + "</w>" for c in characters]
    known, kept = set(tokens), []
    for left, right in merges:
        if left in known and right in known and left + right not in known:
            known.add(left + right)
            tokens.append(left + right)
            kept.append((left, right))
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}, kept


def openai():
    """OpenAI's vocabulary as CLIP's own code builds it: 49152 - 256 - 2 merges."""
    import open_clip

    path = pathlib.Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.open(path).read().decode("utf-8").split("\n")[1:49152 - 256 - 2 + 1]
    merges = [tuple(line.split()) for line in lines]
    characters = byte_characters()
    tokens = characters + [c + "</w>" for c in characters] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}, merges


def main():
    full = len(sys.argv) == 3 and sys.argv[1] == "--full"
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[2]) if full else root / "tests/fixtures/tokenizer"
    out.mkdir(parents=True, exist_ok=True)
    if full:
        vocabulary, merges = openai()
    else:
        kept = (out / "merges.txt").read_text().splitlines()[1:] if "--learn" not in sys.argv else None
        vocabulary, merges = small(learn() if kept is None else [tuple(line.split(" ")) for line in kept])
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges)
    tokenizer.backend_tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    (out / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (out / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    cases = []
    for text in TEXTS + random_texts(4000 if full else 120):
        ids = tokenizer(text, truncation=True, max_length=77)["input_ids"]
        cases.append({"text": text, "ids": ids})
    (out / "cases.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
    print(f"{len(cases)} texts, {len(vocabulary)} tokens, {len(merges)} merges in {out}")


if __name__ == "__main__":
    main()
