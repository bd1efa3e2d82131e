#!/usr/bin/env python3
"""Makes many pictures out of a labelled set: views of each, as augmentation for training makes them.

    tools/vectors/views.py LABELS.csv FOLDER [--views 8] [--queries 1000]

LABELS.csv has path and split (build/logos/logos.csv). A view is a cut of at least half the width and height, turned by up to
15 degrees, lighter or darker, perhaps mirrored, at 64 pixels. Of pictures of the split `test` only queries are made, of the
others only the base: no query is a view of what is searched. FOLDER receives the pictures and base.txt and query.txt, which
`likeness embed` takes. Needs pyvips and OpenCV. The same input gives the same files.
"""
import argparse
import csv
import multiprocessing
import os
import pathlib

import numpy

DRAWN, SIDE = 128, 64


def views(task):
    import cv2
    import pyvips
    path, out, seed, count = task
    rng, written = numpy.random.default_rng(seed), []
    try:
        whole = pyvips.Image.thumbnail(str(path), DRAWN, height=DRAWN).colourspace("srgb")
        whole = (whole.flatten(background=255) if whole.hasalpha() else whole).numpy()[:, :, 2::-1]
    except pyvips.Error:
        return written  # a picture that cannot be drawn gives no views
    for i in range(count):
        height, width = whole.shape[:2]
        centre, side = rng.uniform(0.35, 0.65, 2) * [width, height], rng.uniform(0.5, 1) * max(height, width)
        move = cv2.getRotationMatrix2D(centre, rng.uniform(-15, 15), SIDE / side)
        move[:, 2] += SIDE / 2 - centre
        view = cv2.warpAffine(whole, move, (SIDE, SIDE), flags=cv2.INTER_AREA, borderValue=(255, 255, 255))
        view = numpy.clip(view * rng.uniform(0.6, 1.2), 0, 255).astype("uint8")
        view = view[:, ::-1] if rng.random() < 0.3 else view
        name = out / f"{seed:06}-{i}.png"
        cv2.imwrite(str(name), view, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        written.append(str(name))
    return written


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--queries", type=int, default=1000)
    options = parser.parse_args()
    os.environ["VIPS_CONCURRENCY"] = "1"
    tasks = {"base": [], "query": []}
    for seed, row in enumerate(csv.DictReader(options.labels.open())):
        kind = "query" if row["split"] == "test" else "base"
        tasks[kind].append((options.labels.parent / row["path"], options.folder / kind / f"{seed % 100:02}", seed,
                            options.views if kind == "base" else 2))
    for kind, todo in tasks.items():
        for folder in {task[1] for task in todo}:
            folder.mkdir(parents=True, exist_ok=True)
        with multiprocessing.Pool(2) as pool:
            names = [name for found in pool.imap(views, todo, 64) for name in found]
        if kind == "query":
            names = [str(n) for n in numpy.random.default_rng(1).permutation(names)[:options.queries]]
        (options.folder / f"{kind}.txt").write_text("".join(name + "\n" for name in names))
        print(f"{kind}: {len(names)} pictures")


if __name__ == "__main__":
    main()
