"""What the end-to-end tests share: running the program, and pictures made with the standard library alone."""
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import unittest
import urllib.request
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIKENESS = os.environ.get("LIKENESS", str(ROOT / "build" / "release" / "src" / "cli" / "likeness"))


def run(*args, status=0, stdin=None, **options):
    """Runs the program; fails unless it exits with `status`. Returns the finished process (text)."""
    done = subprocess.run([LIKENESS, *map(str, args)], capture_output=True, text=True, input=stdin, timeout=300, **options)
    if status is not None and done.returncode != status:
        raise AssertionError(f"likeness {' '.join(map(str, args))}: exit status {done.returncode}, not {status}\n"
                             f"{done.stdout}\n{done.stderr}")
    return done


def run_json(*args, **options):
    return json.loads(run(*args, "--json", **options).stdout)


def png(path, width, height, pixel, grey=False):
    """Writes a PNG; pixel(x, y) gives (r, g, b), or one number when grey."""
    rows = b"".join(b"\0" + bytes(v for x in range(width) for v in ([pixel(x, y)] if grey else pixel(x, y))) for y in range(height))
    write_png(path, width, height, 0 if grey else 2, zlib.compress(rows, 1))


def write_png(path, width, height, colour, data):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    pathlib.Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
                                   + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def huge_png(path, side=30000):
    """A whole, valid PNG of side x side grey pixels: 900 megapixels in under a megabyte."""
    squeeze, row = zlib.compressobj(9), b"\0" * (side + 1)
    data = b"".join(squeeze.compress(row) for _ in range(side)) + squeeze.flush()
    write_png(path, side, side, 0, data)


SHAPES = {
    "ring": '<circle cx="50" cy="50" r="30" fill="none" stroke="#000" stroke-width="{w}"/><circle cx="50" cy="50" r="6"/>',
    "bolt": '<path d="M55 5 20 58h25l-8 37 43-57H52z" stroke="#000" stroke-width="{t}"/>',
    "house": '<path d="M50 8 8 45h12v45h22V62h16v28h22V45h12z" stroke="#000" stroke-width="{t}"/>',
    "star": '<path d="m50 5 13 30 33 3-25 22 8 33-29-18-29 18 8-33L4 38l33-3z" stroke="#000" stroke-width="{t}"/>',
    "bars": '<path d="M10 90V50h16v40zM34 90V10h16v80zM58 90V35h16v55zM82 90V65h12v25z" stroke="#000" stroke-width="{t}"/>',
    "cross": '<path d="M38 8h24v30h30v24H62v30H38V62H8V38h30z" stroke="#000" stroke-width="{t}"/>',
    "leaf": '<path d="M10 90C10 30 45 10 92 8c0 50-25 78-62 74z" stroke="#000" stroke-width="{t}"/>',
    "fish": '<path d="M6 50c20-36 52-36 68-6l20-20v52L74 56C58 86 26 86 6 50z" stroke="#000" stroke-width="{t}"/>',
}


def logo(path, shape, variant=0):
    """One of the shapes as SVG, drawn a little differently for each variant."""
    body = SHAPES[shape].format(w=6 + 2 * variant, t=variant)
    pad = 4 * variant
    pathlib.Path(path).write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-pad} {-pad} {100 + 2 * pad} {100 + 2 * pad}">'
                                  f"{body}</svg>")


def logos(folder, variants=3):
    """SHAPES x variants as files and a CSV with labels; returns the CSV."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["path,label,set,year"]
    for shape in SHAPES:
        for v in range(variants):
            logo(folder / f"{shape}-{v}.svg", shape, v)
            lines.append(f"{shape}-{v}.svg,{shape},set{v},{2000 + v}")
    csv = folder / "logos.csv"
    csv.write_text("\n".join(lines) + "\n")
    return csv


class Case(unittest.TestCase):
    """A test with a folder of its own in self.folder."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="likeness-e2e-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)


class Server:
    """`likeness serve` on a free port, as a context manager."""

    def __init__(self, collection, *options):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.command = [LIKENESS, "serve", str(collection), "--port", str(self.port), "-q", *options]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        for _ in range(200):
            try:
                urllib.request.urlopen(self.url + "/healthz", timeout=1).read()
                return self
            except OSError:
                if self.process.poll() is not None:
                    raise AssertionError(f"the server ended with status {self.process.returncode}")
                time.sleep(0.05)
        raise AssertionError("the server did not start")

    def __exit__(self, *_):
        self.process.terminate()
        self.status = self.process.wait(20)
        self.process.stdout.close()
