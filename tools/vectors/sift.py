#!/usr/bin/env python3
"""Makes vectors to search: SIFT descriptors of photographs, FOLDER/base.npy [N][128] and FOLDER/query.npy [2000][128].

    tools/vectors/sift.py FOLDER [--rows 300000] [--pictures DIR ...]

Without --pictures the wallpapers of Debian packages are taken, which are installed when they are missing (as root or through
sudo). Queries are descriptors of every tenth photograph, and no descriptor of these is in the base: queries are not
copies of what is searched. The same pictures give the same files. OpenCV does the work, in a virtual environment of its own.
"""
import argparse
import hashlib
import os
import pathlib
import subprocess
import sys

PACKAGES = "gnome-backgrounds plasma-workspace-wallpapers mate-backgrounds ukui-wallpapers".split()
REQUIREMENTS = ["opencv-python-headless==4.13.0.92", "numpy==2.4.6"]
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
QUERIES, LONGEST_SIDE, FEATURES = 2000, 4096, 60000


def packages():
    run = lambda *command: subprocess.run([*(["sudo"] if os.getuid() else []), *command], check=True, stdout=subprocess.DEVNULL)
    run("apt-get", "update")
    run("apt-get", "install", "-y", "--no-install-recommends", *PACKAGES)
    files = []
    for package in PACKAGES:
        listed = subprocess.run(["dpkg-query", "-L", package], check=True, stdout=subprocess.PIPE, text=True).stdout
        files += [line for line in listed.splitlines() if line.lower().endswith(ENDINGS) and os.path.isfile(line)]
    return files


def descriptors(path):
    import cv2
    picture = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
    if picture is None:
        return None
    side = max(picture.shape)
    if side > LONGEST_SIDE:
        picture = cv2.resize(picture, None, fx=LONGEST_SIDE / side, fy=LONGEST_SIDE / side, interpolation=cv2.INTER_AREA)
    return cv2.SIFT_create(FEATURES, contrastThreshold=0.01).detectAndCompute(picture, None)[1]


def gather(files, rows):
    import numpy
    seen, base, query = set(), [], []
    for path in sorted(files):
        digest = hashlib.sha256(pathlib.Path(path).read_bytes()).digest()
        if digest in seen:  # packages share pictures
            continue
        seen.add(digest)
        found = descriptors(path)
        if found is not None:
            (query if len(seen) % 10 == 0 else base).append(found)
        if query and sum(map(len, base)) >= rows and sum(map(len, query)) >= QUERIES:
            break
    if not base or not query:
        sys.exit("too few pictures")
    random = numpy.random.default_rng(1)
    base, query = numpy.concatenate(base)[:rows], numpy.concatenate(query)
    return random.permutation(base).astype("float32"), random.permutation(query)[:QUERIES].astype("float32")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=300000)
    parser.add_argument("--pictures", nargs="+")
    options = parser.parse_args()
    venv = options.folder / "venv"
    if os.environ.get("LIKENESS_SIFT_VENV") != str(venv):
        options.folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        os.environ["LIKENESS_SIFT_VENV"] = str(venv)
        os.execv(venv / "bin" / "python", [str(venv / "bin" / "python"), *sys.argv])
    import numpy
    files = packages() if not options.pictures else [
        str(p) for folder in options.pictures for p in pathlib.Path(folder).rglob("*") if p.suffix.lower() in ENDINGS]
    base, query = gather(files, options.rows)
    numpy.save(options.folder / "base.npy", base)
    numpy.save(options.folder / "query.npy", query)
    print(f"{len(base)} vectors and {len(query)} queries of {base.shape[1]} components in {options.folder}")


if __name__ == "__main__":
    main()
