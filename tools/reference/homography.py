#!/usr/bin/env python3
"""Makes tests/fixtures/homography.h: which pairs of points OpenCV counts as inliers of a homography, for
tests/unit/test_geometry.c.

Each case is a picture of 640 x 480 seen through a known homography (rotation, scale 0.5 to 2, shear, a little
perspective): pairs with noise of 0.5 pixels, and up to 60% outliers anywhere. OpenCV answers with
findHomography(RANSAC, 3 pixels, 2000 samples, confidence 0.995), seeded. Needs numpy and opencv-python-headless.
"""
import os

import cv2
import numpy

CASES = 60


def transform(rng):
    angle, scale = rng.uniform(-numpy.pi, numpy.pi), numpy.exp(rng.uniform(-0.69, 0.69))
    turn = numpy.array([[numpy.cos(angle), -numpy.sin(angle)], [numpy.sin(angle), numpy.cos(angle)]])
    linear = scale * turn @ numpy.array([[1, rng.uniform(-0.3, 0.3)], [0, rng.uniform(0.8, 1.25)]])
    h = numpy.eye(3)
    h[:2, :2] = linear
    h[:2, 2] = numpy.array([320, 240]) - linear @ [320, 240] + rng.uniform(-60, 60, 2)
    h[2, :2] = rng.uniform(-2e-4, 2e-4, 2)
    return h


def main():
    rng = numpy.random.default_rng(31)
    cv2.setRNGSeed(1)
    points, masks, cases = [], [], []
    for _ in range(CASES):
        h, good, bad = transform(rng), int(rng.integers(15, 50)), 0
        bad = int(rng.integers(0, int(1.5 * good)))
        a = rng.uniform(0, [640, 480], (good + bad, 2))
        b = cv2.perspectiveTransform(a[None], h)[0] + rng.normal(0, 0.5, (good + bad, 2))
        b[good:] = rng.uniform(b[:good].min(0), b[:good].max(0), (bad, 2))
        order = rng.permutation(good + bad)
        a, b = numpy.round(a[order], 1), numpy.round(b[order], 1)
        found, mask = cv2.findHomography(a, b, cv2.RANSAC, 3.0, maxIters=2000, confidence=0.995)
        h /= h[2, 2]
        cases.append(f"    {{{len(points)}, {good + bad}, {good}, {{{', '.join(f'{x:.9g}' for x in h.flatten())}}}}},")
        points += ["{%g, %g, %g, %g}" % (*p, *q) for p, q in zip(a, b)]
        masks.append("".join(map(str, mask.flatten())))
    text = [f"/* Made by tools/reference/homography.py with OpenCV {cv2.__version__}: do not edit. */\n#include <stddef.h>\n",
            "/* x, y in the first picture, x, y in the second */\nstatic const double fixture_points[][4] = {"]
    text += ["    " + ", ".join(points[i:i + 4]) + "," for i in range(0, len(points), 4)]
    text += ["};\n", "static const struct {\n    size_t first, count, good;\n    double truth[9];\n} fixture_cases[] = {", *cases, "};\n",
             "/* '1' where OpenCV sees an inlier */\nstatic const char *const fixture_masks[] = {", *(f'    "{m}",' for m in masks), "};\n"]
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    with open(os.path.join(root, "tests", "fixtures", "homography.h"), "w") as out:
        out.write("\n".join(text))


if __name__ == "__main__":
    main()
