"""Networks from outside: a model's directory is indexed with, searched with, described and refused."""
import json
import pathlib
import shutil
import struct
import unittest

from common import ROOT, Case, png, run, run_json
from test_cli import read_npy

FIXTURES = ROOT / "tests" / "fixtures"
MASK = 2**64 - 1


def values(name, shape):
    """The weights of tools/reference/models_small.py, without numpy."""
    count, seed = 1, 0xCBF29CE484222325
    for n in shape:
        count *= n
    for b in name.encode():
        seed = (seed ^ b) * 0x100000001B3 & MASK
    middle, spread = 0.0, 0.1
    if name.endswith("running_var"):
        middle, spread = 1.0, 0.25
    elif any(k in name for k in ("embeddings.position", "embeddings.class", "embeddings.token")):
        spread = 0.5
    elif len(shape) >= 2:
        spread = (4.5 / (count / shape[0])) ** 0.5
    elif name.endswith("weight"):
        middle = 1.0
    out = []
    for i in range(count):
        x = seed + (i + 1) * 0x9E3779B97F4A7C15 & MASK
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
        x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
        x ^= x >> 31
        out.append(middle + spread * ((x >> 40) / 2**23 - 1))
    return struct.pack(f"<{count}f", *out)


def model(folder, name, change=lambda case: None):
    """Writes the model of that name of the fixtures as a directory that looks downloaded."""
    case = next(c for c in json.loads((FIXTURES / "models/cases.json").read_text()) if c["name"] == name)
    change(case)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(case["config"]))
    if "preprocessor" in case:
        (folder / "preprocessor_config.json").write_text(json.dumps(case["preprocessor"]))
    header, data = {}, b""
    for tensor, shape, dtype in case["tensors"]:
        bytes_ = values(tensor, shape) if dtype == "F32" else bytes(8)
        header[tensor] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(bytes_)]}
        data += bytes_
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


def clip(case):
    """With the vocabulary of the tokenizer's fixture."""
    case["config"]["text_config"].update(vocab_size=1245, eos_token_id=1244)
    for row in case["tensors"]:
        if "token_embedding" in row[0]:
            row[1][0] = 1245


def siglip(case):
    """With the vocabulary of the tokenizer's fixture: ids below 497, texts of 64 tokens, as wide as pictures."""
    case["config"]["text_config"].update(vocab_size=497, max_position_embeddings=64, projection_size=32)
    for row in case["tensors"]:
        if "token_embedding" in row[0]:
            row[1][0] = 497
        if row[0].startswith("text_model.embeddings.position_embedding"):
            row[1][0] = 64
        if row[0].startswith("text_model.head"):
            row[1][0] = 32


class Networks(Case):
    def setUp(self):
        super().setUp()
        self.pictures = self.folder / "pictures"
        self.pictures.mkdir()
        for i in range(11):
            png(self.pictures / f"{i:02}.png", 60 + i, 50, lambda x, y: ((x * (i + 3)) % 256, (y * (i * 7 + 2)) % 256, (x * y * (i + 1) // 9) % 256))
        self.list = "".join(f"{p}\n" for p in sorted(self.pictures.iterdir()))
        self.resnet = model(self.folder / "resnet", "ResNet, bottlenecks")
        self.collection = self.folder / "p.lk"

    def embed(self, name, *more, status=0):
        out = self.folder / name
        run("embed", "--out", out, *more, "-", stdin=self.list, status=status)
        return read_npy(out)

    def test_index_and_search_with_a_downloaded_directory(self):
        first = run_json("index", self.pictures, "--into", self.collection, "--model", self.resnet)
        again = run_json("index", self.pictures, "--into", self.collection, "--model", self.resnet)
        self.assertEqual((first["added"], again["unchanged"]), (11, 11))
        copy = self.folder / "copy.png"
        shutil.copy(self.pictures / "04.png", copy)
        shutil.rmtree(self.resnet)  # the collection needs it no longer
        best = run_json("search", self.collection, copy)["results"][0]
        self.assertEqual(pathlib.Path(best["path"]).name, "04.png")
        self.assertGreater(best["score"], 0.9999)
        run("verify", self.collection)

    def test_a_collection_refuses_vectors_of_another_model_or_pooling(self):
        run("index", self.pictures, "--into", self.collection, "--model", self.resnet, "--pool", "gem", "-q")
        other = model(self.folder / "vit", "ViT")
        for more in (("--model", other), ("--model", self.resnet), ("--model", self.resnet, "--pool", "gem:4"), ("--model", self.resnet, "--pool", "gem", "--precision", "bf16")):
            done = run("index", self.pictures, "--into", self.collection, *more, status=1)
            self.assertIn("cannot be mixed", done.stderr)
        run("index", self.pictures, "--into", self.collection, "--model", self.resnet, "--pool", "gem:3")

    def test_vectors_do_not_depend_on_threads(self):
        for name in ("resnet", "vit"):
            folder = self.resnet if name == "resnet" else model(self.folder / "vit", "ViT")
            one, many = (self.embed(f"{n}.npy", "--model", folder, "--threads", n) for n in (1, 3))
            self.assertEqual(one, many)
            self.assertEqual(len(one), 11)

    def test_int8_ranges_live_in_the_collection(self):
        done = run("index", self.pictures, "--into", self.collection, "--model", self.resnet, "--precision", "int8", status=None)
        if "has no int8 arithmetic" in done.stderr:
            self.skipTest(done.stderr)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.embed("a.npy", "--model", self.collection), self.embed("b.npy", "--model", self.collection))
        self.assertGreater(run_json("search", self.collection, self.pictures / "03.png", "--crop", "0,0,63,50")["results"][0]["score"], 0.9)
        run("index", self.pictures, "--into", self.collection, "--model", self.resnet, "--precision", "int8")

    def test_pictures_that_give_nan_are_skipped_and_named(self):
        def overflow(case):  # every weight is finite, the prepared pictures are not
            case["config"]["pretrained_cfg"]["std"] = [1e-42] * 3
        broken = model(self.folder / "broken", "ViT", overflow)
        done = run("index", self.pictures, "--into", self.collection, "--model", broken, status=3)
        self.assertIn("05.png: the network yields NaN or infinity for it", done.stderr)
        self.assertEqual(run_json("info", self.collection)["skipped"], 11)

    def test_words_find_pictures_where_the_model_knows_both(self):
        both = model(self.folder / "clip", "CLIP", clip)
        self.assertIn("files of the tokenizer are missing", run("model", "info", both).stdout)
        shutil.copy(FIXTURES / "tokenizer/tokenizer.json", both)
        self.assertIn("yes: likeness search --text", run("model", "info", both).stdout)
        run("index", self.pictures, "--into", self.collection, "--model", both, "-q")
        results = run_json("search", self.collection, "--text", "a photo of a cat", "-k", "11")["results"]
        self.assertEqual(len(results), 11)
        self.assertEqual(sorted((r["score"] for r in results), reverse=True), [r["score"] for r in results])
        self.assertNotEqual([r["path"] for r in results], [r["path"] for r in run_json("search", self.collection, "--text", "🦁 zzz qqq", "-k", "11")["results"]])
        self.assertIn("--text goes with a collection alone", run("search", self.collection, "x.png", "--text", "a", status=2).stderr)
        other = self.folder / "r.lk"
        run("index", self.pictures, "--into", other, "--model", self.resnet, "-q")
        self.assertIn("texts cannot be embedded", run("search", other, "--text", "a", status=1).stderr)

    def test_words_find_pictures_with_a_sentencepiece_model(self):
        both = model(self.folder / "siglip", "SigLIP", siglip)
        run("index", self.pictures, "--into", self.collection, "--model", both, "-q")
        self.assertIn("texts cannot be embedded", run("search", self.collection, "--text", "a cat", status=1).stderr)
        for files in (("spiece.model", "tokenizer_config.json"), ("tokenizer.json",)):
            shutil.rmtree(self.collection)
            for name in files:
                shutil.copy(FIXTURES / "siglip" / name, both)
            run("index", self.pictures, "--into", self.collection, "--model", both, "-q")
            for name in files:
                (both / name).unlink()  # the collection has its own
            scores = [{r["path"]: r["score"] for r in run_json("search", self.collection, "--text", text, "-k", "11")["results"]}
                      for text in ("a photo of a cat", "A photo, of a CAT!", "a photo of a dog")]
            self.assertEqual(len(scores[0]), 11)
            self.assertEqual(scores[0], scores[1])  # lower case, no punctuation
            self.assertNotEqual(scores[0], scores[2])

    def test_model_info_and_list(self):
        info = run_json("model", "info", self.resnet)
        self.assertEqual((info["architecture"], info["dim"], info["height"], info["text"]), ("resnet50", 64, 64, False))
        names = {row["name"] for row in run_json("model", "list")}
        self.assertLessEqual({"resnet50", "vit_base_patch16_224", "clip", "siglip", "dinov2", "tf_efficientnet_b7"}, names)
        self.assertIn("swin", run("model", "info", model(self.folder / "s", "ViT", lambda c: c["config"].update(architecture="swin")), status=1).stderr)
        self.assertIn("is not a model", run("model", "info", self.folder, status=1).stderr)
        run("model", "info", status=2)

    def test_model_verify_tries_pictures_and_words(self):
        self.assertEqual(run_json("model", "verify", self.resnet)["text"], False)
        both = model(self.folder / "siglip", "SigLIP", siglip)
        shutil.copy(FIXTURES / "siglip/spiece.model", both)
        self.assertIn("a picture and a text gave vectors", run("model", "verify", both).stdout)
        (both / "spiece.model").write_bytes((both / "spiece.model").read_bytes()[:1000])
        self.assertIn("spiece.model", run("model", "verify", both, status=1).stderr)
        run("model", "verify", status=2)

    def test_bad_directories_are_one_sentence(self):
        def said(folder, *parts):
            for command in (("model", "info"), ("model", "verify"), ("index", self.pictures, "--into", self.collection, "--model"),
                            ("embed", self.listed, "--out", self.folder / "out.npy", "--model")):
                text = run(*command, folder, status=1).stderr
                lines = [line for line in text.splitlines() if line]
                self.assertEqual(len(lines), 1, text)
                for part in parts:
                    self.assertIn(part, lines[0])
            self.assertFalse(self.collection.exists())

        self.listed = self.folder / "list.txt"
        self.listed.write_text(self.list)
        weights = self.resnet / "model.safetensors"
        whole = weights.read_bytes()
        size = struct.unpack("<Q", whole[:8])[0]
        header, data = json.loads(whole[8:8 + size]), whole[8 + size:]

        def save(header, data):
            text = json.dumps(header).encode()
            weights.write_bytes(struct.pack("<Q", len(text)) + text + data)

        first, name = next(iter(header)), next(k for k in header if k.endswith("conv1.weight") and k != next(iter(header)))
        save({"fc.other" if k == name else k: v for k, v in header.items()}, data)
        said(self.resnet, name, "is missing", "model.safetensors")
        save({**header, "layer9.weight": {"dtype": "F32", "shape": [0], "data_offsets": [len(data)] * 2}}, data)
        said(self.resnet, "layer9.weight", "has no place", "model.safetensors")
        bent = {**header[name], "shape": header[name]["shape"][::-1]}
        save({**header, name: bent}, data)
        said(self.resnet, name, "has the shape", "model.safetensors")
        begin = header[name]["data_offsets"][0]
        save(header, data[:begin] + struct.pack("<f", float("nan")) + data[begin + 4:])
        said(self.resnet, name, "not finite", "model.safetensors")
        save({**header, name: {**header[name], "data_offsets": header[first]["data_offsets"]}}, data)
        said(self.resnet, "model.safetensors")
        weights.write_bytes(whole[:-10])
        said(self.resnet, "model.safetensors")
        weights.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 102400000\n")
        said(self.resnet, "model.safetensors", "git lfs pull")
        weights.unlink()
        said(self.resnet, "model.safetensors is missing")
        (self.resnet / "pytorch_model.bin").write_bytes(b"PK")
        said(self.resnet, "pytorch_model.bin", "convert it")
        (self.resnet / "config.json").write_text('{"architecture": "swin_tiny"}')
        said(self.resnet, "swin_tiny", "config.json")
        (self.resnet / "config.json").write_text("[]")
        said(self.resnet, "config.json", "is not a JSON object")
        (self.resnet / "config.json").write_text("{}")
        said(self.resnet, "config.json", "names no architecture")
        (self.resnet / "config.json").unlink()
        said(self.resnet, "no config.json")

    def test_wrong_options_are_usage(self):
        for more in (("--pool", "sum"), ("--precision", "f64"), ("--pool", "avg:2"), ("--pool", "gem:x"), ("--kind", "vlad")):
            run("index", self.pictures, "--into", self.collection, "--model", self.resnet, *more, status=2)
        run("index", self.pictures, "--into", self.collection, "--pool", "avg", status=2)
        self.assertIn("class token", run("index", self.pictures, "--into", self.collection, "--model", self.resnet, "--pool", "cls", status=1).stderr)
        self.assertFalse(self.collection.exists())


if __name__ == "__main__":
    unittest.main()
