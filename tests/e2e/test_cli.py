"""Every command from outside: what it prints, what it leaves on disk, how it ends."""
import ast
import contextlib
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import struct
import subprocess
import time
import unittest

from common import LIKENESS, ROOT, SHAPES, Case, huge_png, logo, logos, png, run, run_json


def read_npy(path):
    data = pathlib.Path(path).read_bytes()
    assert data[:8] == b"\x93NUMPY\x01\x00"
    size = struct.unpack("<H", data[8:10])[0]
    header = ast.literal_eval(data[10:10 + size].decode())
    assert header["descr"] == "<f4" and not header["fortran_order"] and (10 + size) % 64 == 0
    rows, columns = header["shape"]
    values = struct.unpack(f"<{rows * columns}f", data[10 + size:])
    return [values[i * columns:(i + 1) * columns] for i in range(rows)]


class Indexing(Case):
    def setUp(self):
        super().setUp()
        self.csv = logos(self.folder / "logos")
        self.collection = self.folder / "logos.lk"

    def index(self, *more, status=0):
        return run_json("index", *(more or [self.csv]), "--into", self.collection, status=status)

    def test_an_approximate_index_is_built_told_of_and_searched(self):
        pictures = self.folder / "many"
        pictures.mkdir()
        for i in range(60):
            png(pictures / f"{i:02}.png", 48, 48, lambda x, y: 255 * ((x * (i % 7 + 1) ^ y * (i % 5 + 1)) >> 4 & 1), grey=True)
        collection = self.folder / "many.lk"
        arguments = ["index", pictures, "--into", collection, "--words", "8", "--dim", "32", "-q"]
        self.assertEqual(run(*arguments, "--index", "tree", status=2).returncode, 2)
        run(*arguments)
        self.assertEqual(run_json("info", collection)["index"]["kind"], "flat")
        exact = run_json("search", collection, "id:7", "-k", "5")["results"]
        run(*arguments, "--index", "graph", "--recall", "0.99")
        index = run_json("info", collection)["index"]
        self.assertEqual((index["kind"], index["vectors"]), ("graph", 60))
        self.assertIn("graph (", run("info", collection).stdout)
        self.assertEqual(run_json("search", collection, "id:7", "-k", "5")["results"], exact)
        run("verify", collection)
        run(*arguments)  # without --index the kind stays
        self.assertEqual(run_json("info", collection)["index"]["kind"], "graph")
        run("remove", collection, "id:1")
        run("compact", collection)
        index = run_json("info", collection)["index"]
        self.assertEqual((index["kind"], index["vectors"]), ("graph", 59))
        run(*arguments, "--index", "auto")
        self.assertEqual(run_json("info", collection)["index"]["kind"], "flat")
        self.assertIn("f32", run(*arguments, "--dtype", "i8", status=1).stderr)

    def test_second_run_finds_nothing_to_do(self):
        first, second = self.index(), self.index()
        self.assertEqual((first["added"], first["skipped"]), (24, 0))
        self.assertEqual((second["added"], second["unchanged"]), (0, 24))

    def test_changed_file_keeps_its_id_and_gets_a_new_vector(self):
        self.index()
        path = self.folder / "logos" / "ring-0.svg"
        before = run_json("search", self.collection, self.folder / "logos" / "ring-1.svg", "-k", 30)["results"]
        logo(path, "bolt", 1)
        self.assertEqual(self.index()["updated"], 1)
        after = run_json("search", self.collection, self.folder / "logos" / "ring-1.svg", "-k", 30)["results"]
        pick = lambda found: next(r for r in found if r["path"] == str(path))
        self.assertEqual(pick(before)["id"], pick(after)["id"])
        self.assertNotAlmostEqual(pick(before)["score"], pick(after)["score"], 3)
        self.assertEqual(run_json("info", self.collection)["dead_vectors"], 1)
        run("compact", self.collection)
        self.assertEqual(run_json("info", self.collection)["dead_vectors"], 0)
        run("verify", self.collection)
        self.assertEqual(run_json("search", self.collection, self.folder / "logos" / "ring-1.svg", "-k", 30)["results"], after)

    def test_touched_file_is_not_embedded_again(self):
        self.index()
        os.utime(self.folder / "logos" / "ring-0.svg", (1, 1))
        self.assertEqual(self.index()["unchanged"], 24)
        self.assertEqual(run_json("info", self.collection)["dead_vectors"], 0)

    def test_moved_file_keeps_its_id(self):
        run("index", self.folder / "logos", "--into", self.collection)
        old, new = self.folder / "logos" / "star-2.svg", self.folder / "logos" / "renamed.svg"
        before = run_json("search", self.collection, self.folder / "logos" / "star-0.svg", "-k", 30)["results"]
        old.rename(new)
        report = self.index(self.folder / "logos")
        self.assertEqual((report["moved"], report["added"]), (1, 0))
        after = run_json("search", self.collection, self.folder / "logos" / "star-0.svg", "-k", 30)["results"]
        self.assertEqual({r["id"] for r in before}, {r["id"] for r in after})
        self.assertIn(str(new), [r["path"] for r in after])

    def test_labels_change_without_embedding(self):
        self.index()
        self.csv.write_text(self.csv.read_text().replace("ring-0.svg,ring", "ring-0.svg,hoop"))
        self.assertEqual(self.index()["updated"], 1)
        first = run_json("search", self.collection, self.folder / "logos" / "ring-1.svg", "-k", 30)["results"]
        self.assertEqual([r["label"] for r in first if r["path"].endswith("ring-0.svg")], ["hoop"])

    def test_pictures_come_from_folder_glob_list_and_csv(self):
        by_folder = self.index(self.folder / "logos")["indexed"]
        by_glob = run_json("index", str(self.folder / "logos" / "ring-*.svg"), "--into", self.folder / "b.lk")["indexed"]
        listed = "\n".join(str(p) for p in sorted((self.folder / "logos").glob("star*.svg"))) + "\n"
        by_list = json.loads(run("index", "-", "--into", self.folder / "c.lk", "--json", stdin=listed).stdout)["indexed"]
        self.assertEqual((by_folder, by_glob, by_list), (24, 3, 3))

    def test_pictures_without_an_ending_are_told_by_their_bytes(self):
        folder = self.folder / "bare"
        folder.mkdir()
        logo(folder / "star", "star")
        png(folder / "id:3", 32, 32, lambda x, y: (x, y, 0))
        (folder / "README").write_text("no picture")
        (folder / "empty").write_bytes(b"")
        os.mkfifo(folder / "pipe")
        logo(folder / "note.txt", "bolt")  # another ending says that it is none
        self.assertEqual((self.index(folder)["indexed"], self.index(folder)["skipped"]), (2, 0))

    def test_folders_are_labels_where_no_csv_says_otherwise(self):
        for shape in ("ring", "bolt"):
            (self.folder / "classes" / shape).mkdir(parents=True)
            for v in range(3):
                logo(self.folder / "classes" / shape / f"{v}.svg", shape, v)
        listed = self.folder / "listed.csv"
        listed.write_text("path,label\nclasses/ring/0.svg,hoop\n")
        self.assertEqual(self.index(listed, self.folder / "classes", "--label-folders")["added"], 6)
        hits = run_json("search", self.collection, self.folder / "classes" / "ring" / "1.svg", "-k", 5)["results"]
        labels = {str(pathlib.Path(h["path"]).relative_to(self.folder / "classes")): h["label"] for h in hits}
        self.assertEqual(labels, {"ring/0.svg": "hoop", "ring/2.svg": "ring", "bolt/0.svg": "bolt", "bolt/1.svg": "bolt", "bolt/2.svg": "bolt"})
        self.assertEqual(run_json("eval", self.collection)["queries"], 5)

    def test_folder_that_may_not_be_read_is_passed_over(self):
        if os.geteuid() == 0:
            # Root may read everything: nobody indexes, with a program that nobody can reach.
            os.chown(self.folder, 65534, 65534)
            who = {"user": 65534, "group": 65534, "extra_groups": []}
            program = shutil.copy(LIKENESS, self.folder / "likeness")
            for library in (ROOT / "build" / "deps" / "onednn" / "lib").glob("libdnnl.so.3"):
                shutil.copy(library, self.folder)
            who["env"] = {**os.environ, "LD_LIBRARY_PATH": str(self.folder)}
        else:
            program, who = LIKENESS, {}
        locked = self.folder / "logos" / "lost+found"
        locked.mkdir()
        locked.chmod(0)
        command = [program, "index", self.folder / "logos", "--into", self.collection, "--json", "--threads", "1"]
        for _ in range(2):
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd="/", **who)
            report = json.loads(done.stdout)
            self.assertEqual((done.returncode, report["indexed"], report["skipped"]), (3, 24, 1), done.stderr)
            self.assertIn("lost+found: the folder cannot be read", done.stderr)
        self.assertEqual(run_json("info", self.collection)["skipped"], 0)

    def test_place_that_cannot_be_written_is_told_before_the_work(self):
        blocked = self.folder / "file"
        blocked.write_text("")
        done = run("index", self.csv, "--into", blocked / "x.lk", status=1)
        self.assertIn("cannot be created", done.stderr)
        self.assertNotIn("vocabulary", done.stderr)

    def test_storage_types_and_kinds_agree_on_the_first_hit(self):
        for kind in ("vlad", "bovw"):
            for dtype in ("f32", "f16", "i8"):
                collection = self.folder / f"{kind}-{dtype}.lk"
                run("index", self.csv, "--into", collection, "--kind", kind, "--dtype", dtype, "-q")
                for shape in ("bolt", "house"):
                    hits = run_json("search", collection, self.folder / "logos" / f"{shape}-0.svg", "-k", 2)["results"]
                    self.assertEqual(hits[0]["label"], shape, (kind, dtype, hits))

    def test_same_bytes_whatever_the_threads(self):
        lists = self.folder / "list.txt"
        lists.write_text("\n".join(str(p) for p in sorted((self.folder / "logos").glob("*.svg"))))
        vectors = []
        for threads in (1, 3):
            collection, out = self.folder / f"t{threads}.lk", self.folder / f"t{threads}.npy"
            run("index", self.csv, "--into", collection, "--threads", threads, "-q")
            run("embed", "--model", collection, "--out", out, lists, "--threads", threads)
            vectors.append(out.read_bytes())
        self.assertEqual(vectors[0], vectors[1])

    def test_bad_pictures_are_skipped_counted_and_named(self):
        folder = self.folder / "logos"
        (folder / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
        (folder / "empty.jpg").write_bytes(b"")
        (folder / "text.jpg").write_text("this is no picture\n")
        huge_png(folder / "huge.png")
        unreadable = folder / "unreadable.png"
        os.symlink(folder / "nowhere.png", unreadable) if os.geteuid() == 0 else png(unreadable, 4, 4, lambda x, y: (0, 0, 0))
        if os.geteuid() != 0:
            unreadable.chmod(0)
        log = self.folder / "log"
        names = ["corrupt.png", "empty.jpg", "text.jpg", "huge.png", "unreadable.png"]
        listed = "\n".join(str(folder / n) for n in [*names, "bolt-0.svg", "star-0.svg"])
        done = run("index", "-", "--into", self.collection, "--log", log, "--json", status=3, stdin=listed)
        report = json.loads(done.stdout)
        self.assertEqual((report["added"], report["skipped"]), (2, 5))
        for name in names:
            self.assertIn(name, log.read_text())
            self.assertIn(name, done.stderr)
        self.assertIn("megapixels", log.read_text())
        listing = run_json("info", self.collection, "--skipped")["skipped"]
        self.assertEqual(sorted(pathlib.Path(p["path"]).name for p in listing), sorted(names))
        self.assertIn("is empty", next(p["reason"] for p in listing if p["path"].endswith("empty.jpg")))
        self.assertIn("huge.png", run("info", self.collection, "--skipped").stdout)
        again = json.loads(run("index", "-", "--into", self.collection, "--json", status=3, stdin=listed).stdout)
        self.assertEqual((again["unchanged"], again["skipped"]), (2, 5))
        run("verify", self.collection)
        logo(folder / "empty.jpg", "leaf")  # repaired: the name does not matter, the bytes do
        mended = json.loads(run("index", "-", "--into", self.collection, "--json", status=3, stdin=listed).stdout)
        self.assertEqual((mended["updated"], mended["skipped"]), (1, 4))

    def test_second_writer_is_refused_while_readers_go_on(self):
        self.index()
        holder = subprocess.Popen(["flock", str(self.collection / "LOCK"), "sleep", "20"])
        try:
            time.sleep(0.5)
            done = run("index", self.csv, "--into", self.collection, status=1)
            self.assertIn("is being written by", done.stderr)
            self.assertEqual(len(run_json("search", self.collection, "id:1", "-k", 3)["results"]), 3)
        finally:
            holder.terminate()
            holder.wait()

    def test_interrupted_run_goes_on(self):
        many = self.folder / "many"
        many.mkdir()
        for i in range(150):
            png(many / f"{i:03}.png", 48, 48, lambda x, y: ((x * i) % 256, (y * (i + 7)) % 256, (x * y + i) % 256))
        command = [LIKENESS, "index", str(many), "--into", str(self.collection), "--commit-every", "5", "--sample", "20", "-q"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for _ in range(600):
            if self.collection.exists() and run("info", self.collection, status=None).stdout:
                if run_json("info", self.collection)["indexed"] >= 5:
                    break
            if process.poll() is not None:
                break
            time.sleep(0.02)
        process.send_signal(2)
        _, errors = process.communicate(timeout=60)
        self.assertIn(process.returncode, (0, 1))
        if process.returncode == 1:
            self.assertIn("same command goes on", errors)
        run("verify", self.collection)
        self.assertEqual(run_json("index", many, "--into", self.collection)["in_collection"], 150)

    def test_full_disk_keeps_what_is_stored(self):
        self.index()
        logo(self.folder / "logos" / "more.svg", "leaf", 5)
        # 1 KiB more than nothing: every write that makes a file longer than this fails, as on a full disk.
        script = f'ulimit -f 8; trap "" XFSZ; exec "{LIKENESS}" index "{self.folder}/logos" --into "{self.collection}" -q'
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertTrue(done.stderr.startswith("likeness: index: "), done.stderr)
        run("verify", self.collection)
        self.assertEqual(run_json("info", self.collection)["indexed"], 24)
        self.assertEqual(self.index(self.folder / "logos")["added"], 1)


class Searching(Case):
    def setUp(self):
        super().setUp()
        self.csv = logos(self.folder / "logos")
        self.collection = self.folder / "logos.lk"
        run("index", self.csv, "--into", self.collection, "-q")

    def test_siblings_come_first_and_the_query_never(self):
        for shape in SHAPES:
            query = self.folder / "logos" / f"{shape}-0.svg"
            hits = run_json("search", self.collection, query, "-k", 23)["results"]
            self.assertEqual(len(hits), 23)
            self.assertNotIn(str(query), [h["path"] for h in hits])
            self.assertEqual({h["label"] for h in hits[:2]}, {shape}, hits[:3])
            self.assertEqual(sorted((h["score"] for h in hits), reverse=True), [h["score"] for h in hits])

    def test_picture_from_outside_finds_its_copy(self):
        copy = self.folder / "copy.svg"
        shutil.copy(self.folder / "logos" / "fish-1.svg", copy)
        first = run_json("search", self.collection, copy)["results"][0]
        self.assertTrue(first["path"].endswith("fish-1.svg"))
        self.assertAlmostEqual(first["score"], 1, 5)
        self.assertEqual(set(first) >= {"id", "path", "score", "label"}, True)

    def test_picture_may_come_through_standard_input(self):
        with open(self.folder / "logos" / "star-0.svg", "rb") as picture:
            done = subprocess.run([LIKENESS, "search", self.collection, "/dev/stdin", "--json"], stdin=picture, capture_output=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(json.loads(done.stdout)["results"][0]["path"].endswith("star-0.svg"))

    def test_closed_streams_do_not_disturb_the_decoder(self):
        page = self.folder / "page.html"
        picture = self.folder / "copy.svg"
        shutil.copy(self.folder / "logos" / "fish-1.svg", picture)
        command = f'exec "{LIKENESS}" search "{self.collection}" "{picture}" --html "{page}" >&- 2>&-'
        self.assertEqual(subprocess.run(["sh", "-c", command]).returncode, 0)
        self.assertTrue(page.exists())

    def kill_decoder(self, picture, by, ignored):
        """ignored: whoever started the program did not want to hear of its children."""
        ignore = (lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)) if ignored else None
        search = subprocess.Popen([LIKENESS, "search", self.collection, picture], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, text=True, preexec_fn=ignore)
        children = pathlib.Path(f"/proc/{search.pid}/task/{search.pid}/children")
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # either may have ended meanwhile
            while search.poll() is None:
                for child in children.read_text().split():
                    os.kill(int(child), by)
                    return search.communicate(timeout=60)[1], search.returncode
        return search.communicate(timeout=60)[1], search.returncode

    def test_death_of_the_decoder_is_told(self):
        picture = self.folder / "picture.png"
        png(picture, 64, 64, lambda x, y: (x, y, 0))
        for by, ignored in ((signal.SIGKILL, False), (signal.SIGKILL, True), (signal.SIGSEGV, False)):
            for _ in range(50):  # it may have done its work when we get to it
                message, status = self.kill_decoder(picture, by, ignored)
                if status:
                    break
            self.assertEqual(status, 1)
            self.assertIn(f"picture.png: the process that decodes it has ended by signal {int(by)}", message)

    @unittest.skipUnless(platform.machine() in ("x86_64", "aarch64"), "elsewhere all libraries are linked")
    def test_missing_library_is_told_and_skips_no_picture(self):
        gif = self.folder / "picture.gif"
        gif.write_bytes(b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;")
        drawing = shutil.copy(self.folder / "logos" / "fish-1.svg", self.folder / "drawing.svg")
        new, small = self.folder / "new.lk", self.folder / "small.png"
        png(small, 9, 9, lambda x, y: (x, y, 0))
        jpeg = ROOT / "tests" / "fuzz" / "seeds" / "raster" / "rgb.jpg"
        for library, picture in ((r"libvips\.so\.\d+", gif), (r"librsvg-2\.so\.\d+", drawing), (r"libpng16\.so\.\d+", small),
                                 (r"libjpeg\.so\.\d+", jpeg)):
            name = re.search(library.encode(), pathlib.Path(LIKENESS).read_bytes())[0].decode()
            broken = self.folder / name
            broken.write_text("no library")
            env = {**os.environ, "LD_LIBRARY_PATH": f"{self.folder}:{os.environ.get('LD_LIBRARY_PATH', '')}"}
            for command in (("search", self.collection, picture), ("search", self.collection, gif, drawing, "--together"),
                            ("index", self.csv, "--into", new), ("index", drawing, "--into", self.collection),
                            ("serve", self.collection, "--port", "0")):
                done = run(*command, status=1, env=env)
                self.assertIn(name, done.stderr)
                self.assertNotIn("the process that decodes", done.stderr)
            run("search", self.collection, "id:1", env=env)
            self.assertFalse(new.exists())
            broken.unlink()
        self.assertEqual(run_json("info", self.collection)["skipped"], 0)

    def test_part_of_a_picture_is_searched_with(self):
        both = self.folder / "both.svg"
        both.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="400" height="200" viewBox="0 0 200 100">'
                        '<g>%s</g><g transform="translate(100 0)">%s</g></svg>'
                        % (SHAPES["bolt"].format(w=6, t=0), SHAPES["bars"].format(w=6, t=0)))
        for crop, shape in (("0,0,200,200", "bolt"), ("200,0,200,200", "bars")):
            hits = run_json("search", self.collection, both, "--crop", crop, "-k", 3)["results"]
            self.assertEqual(hits[0]["label"], shape)
        self.assertIn("does not lie inside", run("search", self.collection, both, "--crop", "300,0,200,200", status=1).stderr)

    def test_page_holds_its_pictures(self):
        page = self.folder / "page.html"
        run("search", self.collection, "id:1", "id:5", "--html", page)
        text = page.read_text()
        self.assertEqual(text.count("<section>"), 2)
        self.assertEqual(text.count("data:image/webp;base64,"), 22)
        self.assertNotIn("http", text.replace("http://www.w3.org", ""))

    def test_names_cannot_command_the_terminal(self):
        folder = self.folder / "odd"
        folder.mkdir()
        logo(folder / "a\nb\x1b[2J.svg", "ring")
        (folder / "c\x1b]0;x\x07.png").write_text("no picture")
        done = run("index", folder, "--into", self.folder / "odd.lk", "--log", self.folder / "log", status=3)
        table = run("search", self.folder / "odd.lk", self.folder / "logos" / "ring-0.svg").stdout
        listing = run("info", "--skipped", self.folder / "odd.lk").stdout
        for text in (done.stdout, done.stderr, (self.folder / "log").read_text(), table, listing):
            self.assertFalse(any(c < " " and c != "\n" for c in text), text)
        self.assertIn("a?b?[2J.svg", table)
        self.assertEqual(len(listing.splitlines()), 1)
        self.assertEqual(len(table.splitlines()), 2)

    def test_labels_in_any_script_stay_whole_and_in_their_column(self):
        csv = self.folder / "logos" / "other.csv"
        csv.write_text("path,label\n" + "".join(f"ring-{v}.svg,{label}\n" for v, label in enumerate(("é" * 40, "日本", "x"))))
        run("index", csv, "--into", self.collection)
        lines = run("search", self.collection, "id:1", "-k", 24).stdout.splitlines()
        self.assertEqual({line.index("/") for line in lines[1:]}, {lines[0].index("path")})
        self.assertTrue(any(" " + "é" * 32 + " " in line for line in lines))

    def test_several_queries_are_answered_each_by_itself(self):
        several = run_json("search", self.collection, "id:1", "id:5", "-k3")["queries"]
        self.assertEqual([q["query"] for q in several], ["id:1", "id:5"])
        for query in several:
            self.assertEqual(query["results"], run_json("search", self.collection, query["query"], "-k", 3)["results"])
        run("search", self.collection, "id:1", "id:5", status=2)

    def test_no_results_are_said(self):
        done = run("search", self.collection, "id:1", "--where", "label = nothing")
        self.assertIn("no picture satisfies the filter", done.stderr)
        self.assertEqual(run_json("search", self.collection, "id:1", "--where", "label = nothing"), {"results": []})

    def test_table_goes_to_the_terminal(self):
        lines = run("search", self.collection, "id:1", "-k", 4).stdout.splitlines()
        self.assertEqual(len(lines), 5)
        self.assertIn("score", lines[0])

    def test_removed_picture_is_not_found_any_more(self):
        gone = self.folder / "logos" / "bars-1.svg"
        run("remove", self.collection, gone)
        hits = run_json("search", self.collection, self.folder / "logos" / "bars-0.svg", "-k", 30)["results"]
        self.assertEqual(len(hits), 22)
        self.assertNotIn(str(gone), [h["path"] for h in hits])
        self.assertTrue(gone.exists())
        run("verify", self.collection)
        (self.folder / "logos" / "bars-2.svg").unlink()
        self.assertIn("1 picture removed", run("remove", self.collection, "--missing").stdout)

    def test_removal_is_all_or_nothing(self):
        run("remove", self.collection, "id:1", "id:999", status=1)
        self.assertEqual(run_json("info", self.collection)["indexed"], 24)

    def test_evaluation_by_labels_and_by_truth_agree(self):
        by_labels = run_json("eval", self.collection)
        truth = self.folder / "logos" / "truth.csv"
        pairs = [f"{s}-{a}.svg,{s}-{b}.svg" for s in SHAPES for a in range(3) for b in range(3) if a != b]
        truth.write_text("query,relevant\n" + "\n".join(pairs) + "\n")
        by_truth = run_json("eval", self.collection, "--truth", truth)
        by_labels.pop("seconds"), by_truth.pop("seconds")
        self.assertEqual(by_labels, by_truth)
        self.assertEqual((by_labels["queries"], by_labels["gallery"]), (24, 24))
        self.assertGreater(by_labels["mAP"], 0.9)
        self.assertLessEqual(by_labels["recall@1"], 0.5)
        some = run_json("eval", self.collection, "--query", "set=set0", "-k", "1,2")
        self.assertEqual((some["queries"], some["gallery"]), (8, 24))
        self.assertIn("nDCG@2", some)
        by_number = run_json("eval", self.collection, "--query", "year=2001")
        self.assertEqual(by_number["queries"], 8)

    def test_embedding_writes_other_formats_and_knows_them_first(self):
        lists = self.folder / "list"
        lists.write_text(f"{self.folder / 'logos' / 'ring-0.svg'}\n")
        run("embed", "--model", self.collection, "--out", self.folder / "v.npy", lists)
        run("embed", "--model", self.collection, "--out", self.folder / "v.fvecs", lists)
        values = (self.folder / "v.fvecs").read_bytes()
        self.assertEqual(struct.unpack("<i", values[:4])[0], (len(values) - 4) // 4)
        self.assertTrue((self.folder / "v.npy").read_bytes().endswith(values[4:]))
        for out, message in (("v.txt", "tells no format"), ("none/v.npy", "cannot be written")):
            done = run("embed", "--model", self.collection, "--out", self.folder / out, lists, status=1)
            self.assertIn(message, done.stderr)
            self.assertNotIn("embedding", done.stderr)

    def test_embedding_keeps_the_order_and_marks_bad_rows(self):
        paths = [self.folder / "logos" / "ring-0.svg", self.folder / "none.png", self.folder / "logos" / "bolt-0.svg",
                 self.folder / "logos" / "ring-0.svg"]
        lists, out = self.folder / "list", self.folder / "v.npy"
        lists.write_text("\n".join(map(str, paths)))
        run("embed", "--model", self.collection, "--out", out, lists, status=3)
        rows = read_npy(out)
        self.assertEqual(rows[0], rows[3])
        self.assertEqual(set(rows[1]), {0.0})
        for row in (rows[0], rows[2]):
            self.assertAlmostEqual(sum(v * v for v in row), 1, 4)
        first = run_json("search", self.collection, paths[0], "-k", 30)["results"]
        score = next(h["score"] for h in first if h["path"] == str(paths[2]))
        self.assertAlmostEqual(score, sum(a * b for a, b in zip(rows[0], rows[2])), 4)


class Damage(Case):
    def setUp(self):
        super().setUp()
        self.collection = self.folder / "logos.lk"
        run("index", logos(self.folder / "logos"), "--into", self.collection, "-q")

    def test_verify_finds_a_flipped_byte_in_every_file(self):
        files = [p for p in self.collection.rglob("*") if p.is_file() and p.name in ("MANIFEST", "classical.bin") or p.suffix == ".seg"]
        self.assertEqual(len(files), 3)
        for path in files:
            whole = path.read_bytes()
            for at in (3, 20, len(whole) // 2, len(whole) - 70):
                path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
                done = run("verify", self.collection, status=1)
                self.assertIn(path.name, done.stdout + done.stderr, at)
            path.write_bytes(whole[:-65])
            run("verify", self.collection, status=1)
            path.write_bytes(whole)
        run("verify", self.collection)

    def test_missing_and_foreign_collections_are_named(self):
        self.assertIn("no such collection", run("search", self.folder / "none.lk", "id:1", status=1).stderr)
        self.assertIn("is not a collection", run("search", self.folder, "id:1", status=1).stderr)
        self.assertIn("is not a collection", run("index", self.folder / "logos", "--into", self.folder, status=1).stderr)

    def test_read_only_collection_can_be_searched(self):
        self.collection.chmod(0o555)
        self.addCleanup(self.collection.chmod, 0o755)
        program, who = LIKENESS, {}
        if os.geteuid() == 0:  # root may write everywhere: nobody does the search, with a program that nobody can reach
            who = {"user": 65534, "group": 65534, "extra_groups": []}
            self.folder.chmod(0o755)
            program = shutil.copy(LIKENESS, self.folder / "likeness")
            for library in (ROOT / "build" / "deps" / "onednn" / "lib").glob("libdnnl.so.3"):
                shutil.copy(library, self.folder)
            who["env"] = {**os.environ, "LD_LIBRARY_PATH": str(self.folder)}
        done = subprocess.run([program, "search", self.collection, "id:1", "-k", "3", "--json"], capture_output=True, text=True, cwd="/",
                              timeout=300, **who)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(len(json.loads(done.stdout)["results"]), 3)


class Usage(Case):
    def test_wrong_usage_is_told_apart_from_failure(self):
        self.assertEqual(run(status=2).stdout, "")
        self.assertIn("no such command", run("serach", status=2).stderr)
        self.assertIn("did you mean --threads?", run("index", "x", "--thread", "2", status=2).stderr)
        self.assertIn("--into", run("index", "x", status=2).stderr)
        self.assertIn("whole number", run("search", "a.lk", "b", "-k", "many", status=2).stderr)
        self.assertIn("wants a value", run("search", "a.lk", "b", "-k", status=2).stderr)
        for option, value, message in (("--crop", "1,2,3", "left,top,width,height"), ("--rerank", "x", "kreciprocal"),
                                       ("--expand", "x", "alpha"), ("--yes", "1,b", "ids"), ("--no", "0", "ids"), ("-x", "y", "no option")):
            self.assertIn(message, run("search", "a.lk", "b", option, value, status=2).stderr)
        self.assertIn("no such file", run("index", self.folder / "none", "--into", self.folder / "a.lk", status=1).stderr)
        self.assertFalse((self.folder / "a.lk").exists())

    @unittest.skipUnless(platform.machine() in ("x86_64", "aarch64"), "elsewhere all libraries are linked")
    def test_what_a_search_by_number_has_no_use_for_is_not_linked(self):
        linked = subprocess.run(["readelf", "-d", LIKENESS], check=True, capture_output=True, text=True).stdout
        self.assertIn("libsqlite3", linked)
        for name in "vips", "dnnl", "openblas", "lapacke", "microhttpd", "hdf5", "rsvg", "cairo":
            self.assertNotIn(f"lib{name}", linked)

    def test_help_names_every_command(self):
        text = run("help").stdout
        for command in ("index", "search", "info", "remove", "verify", "embed", "eval", "serve", "compact"):
            self.assertIn(command, text)
            self.assertIn("likeness " + command, run(command, "--help").stdout)
        self.assertRegex(run("--version").stdout, r"^likeness \d+\.\d+\.\d+$")

    def test_csv_errors_name_the_line(self):
        bad = self.folder / "bad.csv"
        for text, message in (("name\nx", "path"), ("path,label\na,b,c\n", "line 2"), ('path\n"x', "never closed")):
            bad.write_text(text)
            self.assertIn(message, run("index", bad, "--into", self.folder / "a.lk", status=1).stderr)

    def test_collection_inside_its_folder_is_not_indexed(self):
        logos(self.folder / "p")
        run("index", self.folder / "p", "--into", self.folder / "p" / "x.lk", "-q")
        png(self.folder / "p" / "x.lk" / "inner.png", 8, 8, lambda x, y: (x, y, 0))
        self.assertEqual(run_json("index", self.folder / "p", "--into", self.folder / "p" / "x.lk")["indexed"], 24)


if __name__ == "__main__":
    unittest.main()
