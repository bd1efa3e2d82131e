"""verify --repair: bytes are flipped in every kind of file of a collection. What can be mended is, what was lost is named and
comes back with the next `index`, and what is sound stays as it is."""
import hashlib
import os
import struct
import subprocess
import sys
import unittest

from common import Case, logos, run, run_json

BATCH = 8


def digests(collection):
    """Of everything but the catalog and the lock, which every writer writes to."""
    return {str(p.relative_to(collection)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(collection.rglob("*"))
            if p.is_file() and not p.name.startswith("catalog.db") and p.name != "LOCK"}


def flip(path, at, count=1):
    data = bytearray(path.read_bytes())
    for i in range(at, at + count):
        data[i] ^= 0x55
    path.write_bytes(data)


def blocks(segment):
    """Where each block of a segment begins, and the end of the last."""
    data, at, out = segment.read_bytes(), 64, []
    while at < len(data):
        assert data[at:at + 4] == b"LKBK"
        out.append(at)
        at += 64 + struct.unpack_from("<Q", data, at + 8)[0]
    return out + [at]


class Repair(Case):

    def setUp(self):
        super().setUp()
        self.csv = logos(self.folder / "logos")
        self.collection = self.folder / "logos.lk"
        self.index = ["index", self.csv, "--into", self.collection, "-q"]
        run(*self.index, "--commit-every", BATCH, "--words", 8, "--dim", 32, "--index", "graph", "--local-features", 64)
        run("neighbours", self.collection, "-q")
        self.segment = self.collection / "vectors" / "000001.seg"
        self.before, self.files = self.content(), digests(self.collection)
        self.assertEqual(len(blocks(self.segment)), 24 // BATCH + 1)
        run("verify", self.collection)

    def content(self):
        found = {(r["id"], r["path"], r["label"], round(r["score"], 5)) for r in
                 run_json("search", self.collection, self.folder / "logos" / "star-1.svg", "-k", 30)["results"]}
        return found

    def repair(self, status=0):
        run("verify", self.collection, status=1)
        done = run("verify", self.collection, "--repair", status=status)
        run("verify", self.collection, status=status)
        return done.stdout

    def unchanged_but(self, *names):
        now = digests(self.collection)
        for name in self.files:
            if name not in names:
                self.assertEqual(now.get(name), self.files[name], name)

    def comes_back(self, lost):
        """The lost pictures keep their ids and labels, and are embedded anew by an ordinary run."""
        info = run_json("info", self.collection)
        self.assertEqual((info["indexed"], info["skipped"]), (24 - lost, lost))
        again = run_json(*self.index)
        self.assertEqual((again["added"], again["updated"], again["unchanged"]), (0, lost, 24 - lost))
        self.assertEqual(self.content(), self.before)
        run("verify", self.collection)

    def test_what_is_made_of_the_vectors_is_dropped(self):
        index = next((self.collection / "index").iterdir())
        used = [i for i, byte in enumerate(index.read_bytes()) if byte]  # what fills sections up is not looked at
        for path, at, count in ((index, 2, 1), (index, used[len(used) // 2], 1), (index, used[-1], 1),
                                (self.collection / "neighbours.knn", 3, 1), (self.collection / "neighbours.knn", 500, 1),
                                (self.collection / "features.db", 4096 * 4, 9000)):
            with self.subTest(file=path.name, at=at):
                whole = path.read_bytes()
                catalog = (self.collection / "catalog.db").read_bytes()
                try:
                    flip(path, at, count)
                    self.assertIn(path.name.split(".")[0], self.repair())
                    self.assertFalse(path.exists())
                    self.unchanged_but(str(path.relative_to(self.collection)))
                    self.assertEqual(self.content(), self.before)
                finally:
                    path.write_bytes(whole)
                    (self.collection / "catalog.db").write_bytes(catalog)
                run("verify", self.collection)
        index.write_bytes(b"")
        self.repair()
        run(*self.index, "--index", "graph")
        self.assertEqual(run_json("info", self.collection)["index"]["kind"], "graph")

    def test_a_damaged_block_costs_its_own_pictures(self):
        second = blocks(self.segment)[1]
        flip(self.segment, second + 64 + 3)
        said = self.repair()
        self.assertEqual(said.count("its vector is lost"), BATCH)
        self.assertIn("logos/", said)
        self.unchanged_but("vectors/000001.seg", "MANIFEST", "features.db", *(n for n in self.files if n.startswith("index/")))
        self.comes_back(BATCH)

    def test_a_damaged_end_is_cut_off(self):
        last, end = blocks(self.segment)[-2:]
        whole = self.segment.read_bytes()
        for what in ("payload", "header", "cut", "cut within the header"):
            with self.subTest(what):
                self.segment.write_bytes(whole[:{"cut": end - 100, "cut within the header": last + 30}.get(what)])
                if not what.startswith("cut"):
                    flip(self.segment, last + (5 if what == "header" else 70))
                said = self.repair()
                self.assertEqual(said.count("its vector is lost"), BATCH)
                self.assertIn(f"is cut off after {24 - BATCH} of 24 vectors", said)
                self.assertEqual(self.segment.read_bytes(), whole[:last])
                self.unchanged_but("vectors/000001.seg", *(n for n in self.files if n.startswith("index/")))
                self.comes_back(BATCH)
                self.assertEqual(self.segment.read_bytes()[:last], whole[:last])
                self.assertEqual(blocks(self.segment)[-2:], [last, end])
                whole = self.segment.read_bytes()  # the same pictures in another order

    def test_what_comes_after_a_damaged_block_header_is_lost(self):
        flip(self.segment, blocks(self.segment)[1] + 20)
        self.assertEqual(self.repair().count("its vector is lost"), 2 * BATCH)
        self.comes_back(2 * BATCH)

    def test_a_header_is_known_without_the_file(self):
        whole = self.segment.read_bytes()
        for at in (0, 9, 40, 60):
            flip(self.segment, at)
            self.assertNotIn("lost", self.repair())
            self.assertEqual(self.segment.read_bytes(), whole)
        self.unchanged_but()

    def test_a_lost_file_is_made_anew(self):
        for size in (None, 0, 20):
            if size is None:
                self.segment.unlink()
            else:
                self.segment.write_bytes(self.segment.read_bytes()[:size])
            self.assertEqual(self.repair().count("its vector is lost"), 24)
            self.comes_back(24)

    def test_a_file_that_belongs_elsewhere_is_not_written_to(self):
        other = self.folder / "other.lk"
        run("index", self.csv, "--into", other, "-q", "--words", 8, "--dim", 16)
        foreign = (other / "vectors" / "000001.seg").read_bytes()
        self.segment.write_bytes(foreign)
        run("verify", self.collection, status=1)
        run("verify", self.collection, "--repair", status=1)
        self.assertEqual(self.segment.read_bytes(), foreign)
        self.segment.write_bytes(b"")
        self.repair()

    def test_what_cannot_be_mended_stays_as_it_is(self):
        for path, at, count in ((self.collection / "catalog.db", 4096, 4096), (self.collection / "model" / "classical.bin", 900, 1),
                                (self.collection / "MANIFEST", 70, 1)):
            with self.subTest(path.name):
                whole = path.read_bytes()
                flip(path, at, count)
                damaged = path.read_bytes()
                self.repair(status=1)
                self.assertEqual(path.read_bytes(), damaged)
                self.unchanged_but(str(path.relative_to(self.collection)))
                path.write_bytes(whole)
                run("verify", self.collection)

    def test_long_names_are_cut_between_characters(self):
        for name in ("\u00e9" * 60, "e" + "\u00e9" * 60):
            folder = self.folder / name
            folder.mkdir()
            collection = self.collection.rename(folder / "c.lk")
            index = next((collection / "index").iterdir())
            whole = index.read_bytes()
            index.write_bytes(whole[:100])
            told = run_json("info", collection)["index"]
            self.assertEqual(told["kind"], "unusable")
            self.assertIn("\u00e9", told["why"])
            index.write_bytes(whole)
            self.collection = collection

    def test_control_characters_of_names_stay_out_of_the_terminal(self):
        for i in range(2):
            (self.folder / "logos" / f"\x1b[2Jcopy-{i}.svg").write_bytes((self.folder / "logos" / "star-1.svg").read_bytes())
        run("index", self.folder / "logos", "--into", self.collection, "-q")
        self.assertNotIn("\x1b", run("dedup", self.collection, "--within", 0.0001).stdout)
        flip(self.segment, blocks(self.segment)[-2] + 70)
        self.assertNotIn("\x1b", run("verify", self.collection, "--repair").stdout)

    def test_several_at_once(self):
        flip(self.segment, blocks(self.segment)[0] + 70)
        flip(self.segment, 2)
        flip(self.collection / "neighbours.knn", 100)
        next((self.collection / "index").iterdir()).unlink()
        done = run_json("verify", self.collection, "--repair")
        self.assertEqual(done["problems"], 0)
        self.assertEqual(sum("its vector is lost" in text for text in done["repairs"]), BATCH)
        self.comes_back(BATCH)

    def test_a_sound_collection_is_left_alone_and_leftovers_go(self):
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        left = [self.collection / f"MANIFEST.{gone.pid}-0.tmp", self.collection / f"neighbours.knn.{gone.pid}-3.tmp",
                self.folder / f".logos.lk.{gone.pid}-0.new" / "model", self.collection / "vectors" / "000009.seg",
                self.collection / "index" / f"0007.ann.{gone.pid}-0.tmp"]
        used = [self.collection / f"MANIFEST.{os.getpid()}-0.tmp", self.folder / f".logos.lk.{os.getpid()}-0.new"]
        left[2].mkdir(parents=True)
        used[1].mkdir()
        for path in (*left[:2], *left[3:], used[0]):
            path.write_bytes(b"begun")
        run("verify", self.collection)
        run("verify", self.collection, "--repair")
        for path in left:
            self.assertFalse(path.exists(), path)
        self.assertFalse(left[2].parent.exists())
        for path in used:
            self.assertTrue(path.exists(), path)
        self.unchanged_but()
        self.assertEqual(self.content(), self.before)


if __name__ == "__main__":
    unittest.main()
