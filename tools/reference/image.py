#!/usr/bin/env python3
"""Makes tests/fixtures/image/ and tests/fixtures/image.h: small files of every format, and what Pillow decodes them to.

Needs pillow 13.0.0 and numpy 2.4.6. For tests/unit/test_image.c; tests/fuzz begins from the same files.
"""
import io
import os
import struct
import zlib

import numpy
from PIL import Image, ImageCms, ImageOps

WIDTH, HEIGHT = 24, 16
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "fixtures")


def png(path, width, height, depth, colour, rows):
    """A PNG of depths that Pillow does not write. rows: bytes of each row."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    with open(path, "wb") as out:
        out.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
                  + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def swapped_profile():
    """An ICC profile (v2, matrix and gamma 2.2) of the primaries of sRGB in the wrong order: blue, red, green."""
    fixed = lambda x: struct.pack(">i", round(x * 65536))
    xyz = lambda *v: b"XYZ \0\0\0\0" + b"".join(map(fixed, v))
    red, green, blue = (0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)
    text = b"swapped\0"
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78, b"cprt": b"text\0\0\0\0none\0",
            b"wtpt": xyz(0.9642, 1, 0.8249), b"rXYZ": xyz(*blue), b"gXYZ": xyz(*red), b"bXYZ": xyz(*green)}
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        tags[name] = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256))
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", at + len(body), len(value))
        body += value + b"\0" * (-len(value) % 4)
    header = (struct.pack(">I", at + len(body)) + b"none" + b"\x02\x10\0\0" + b"mntrRGB XYZ " + struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
              + b"acsp" + b"\0" * 28 + fixed(0.9642) + fixed(1) + fixed(0.8249))
    return header + b"\0" * (128 - len(header)) + struct.pack(">I", len(tags)) + table + body


def main():
    folder = os.path.join(ROOT, "image")
    os.makedirs(folder, exist_ok=True)
    at = lambda name: os.path.join(folder, name)
    y, x = numpy.mgrid[0:HEIGHT, 0:WIDTH]
    # Four colours in no symmetry, exact in every lossless format, palettes included.
    corner = (x < 12) * 2 + (y < 6)
    colours = numpy.array([[230, 40, 30], [20, 180, 60], [30, 60, 220], [250, 240, 200]], "uint8")
    flat = Image.fromarray(colours[corner])
    smooth = Image.fromarray(numpy.stack([x * 10, y * 15, (x + y) * 5 + 20], -1).astype("uint8"))
    alpha = numpy.where(x < 8, 0, numpy.where(x < 16, 128, 255)).astype("uint8")
    rgba = Image.fromarray(numpy.dstack([colours[corner], alpha]))
    grey = smooth.convert("L")

    flat.save(at("rgb.png"))
    flat.save(at("rgb.bmp"))
    flat.save(at("rgb.tif"), compression="tiff_lzw")
    flat.save(at("rgb.webp"), lossless=True)
    flat.quantize(4, dither=Image.Dither.NONE).save(at("palette.gif"))
    flat.quantize(4, dither=Image.Dither.NONE).save(at("palette.png"))
    flat.quantize(4, dither=Image.Dither.NONE).save(at("palette.bmp"))
    smooth.save(at("rgb.jpg"), quality=95, subsampling=0)
    smooth.save(at("progressive.jpg"), quality=95, subsampling=0, progressive=True)
    smooth.save(at("lossy.webp"), quality=95)
    smooth.save(at("rgb.avif"), quality=95, subsampling="4:4:4")
    smooth.convert("CMYK").save(at("cmyk.jpg"), quality=95)
    rgba.save(at("rgba.png"))
    rgba.save(at("rgba.webp"), lossless=True)
    rgba.convert("LA").save(at("la.png"))
    grey.save(at("grey.png"))
    grey.save(at("grey.jpg"), quality=95)
    smooth.save(at("icc.png"), icc_profile=swapped_profile())
    deep = (numpy.asarray(smooth).astype("uint32") * 257).astype(">u2")
    png(at("rgb16.png"), WIDTH, HEIGHT, 16, 2, [row.tobytes() for row in deep])
    png(at("grey16.png"), WIDTH, HEIGHT, 16, 0, [row.tobytes() for row in deep[:, :, 0]])
    Image.fromarray(numpy.asarray(grey).astype("uint16") * 257).save(at("grey16.tif"))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        grey.save(at(f"orient{orientation}.jpg"), quality=95, exif=exif)

    def decoded(name):
        image = ImageOps.exif_transpose(Image.open(at(name)))
        if name == "icc.png":
            return numpy.asarray(ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(swapped_profile())),
                                                           ImageCms.createProfile("sRGB"), renderingIntent=0))
        if name == "rgb16.png":
            return numpy.asarray(smooth)
        if name == "grey16.png":
            return numpy.repeat(numpy.asarray(smooth)[:, :, :1], 3, 2)
        if name == "grey16.tif":
            return numpy.repeat(numpy.asarray(grey)[:, :, None], 3, 2)
        if image.mode in ("RGBA", "LA"):
            under = Image.new("RGBA", image.size, "white")
            under.alpha_composite(image.convert("RGBA"))
            image = under
        return numpy.asarray(image.convert("RGB"))

    # name, how far a component may be off (lossy formats are decoded by other libraries than Pillow's)
    exact = ["rgb.png", "rgb.bmp", "rgb.tif", "rgb.webp", "palette.gif", "palette.png", "palette.bmp", "grey.png"]
    near = {"rgb.jpg": 2, "progressive.jpg": 2, "grey.jpg": 2, "lossy.webp": 3, "rgb.avif": 4, "rgba.png": 1, "rgba.webp": 1, "la.png": 1,
            "rgb16.png": 1, "grey16.png": 1, "grey16.tif": 1, "icc.png": 3, **{f"orient{i}.jpg": 2 for i in range(1, 9)}}
    lines = [f"/* Made by tools/reference/image.py with Pillow {Image.__version__}: do not edit. */\n#include <stdint.h>\n"]
    rows, seen = [], {}
    for name in exact + list(near):
        pixels = decoded(name)
        array = "pixels_" + name.replace(".", "_")
        key = pixels.tobytes()
        if key in seen:
            array = seen[key]
        else:
            seen[key] = array
            lines.append(f"static const uint8_t {array}[] = {{\n" + "\n".join(
                "    " + ", ".join(map(str, row.ravel())) + "," for row in pixels) + "\n};\n")
        rows.append(f'    {{"{name}", {pixels.shape[1]}, {pixels.shape[0]}, {near.get(name, 0)}, {array}}},')
    lines.append("static const struct {\n    const char *name;\n    uint32_t width, height;\n    int tolerance;\n"
                 "    const uint8_t *rgb; /* on white */\n} decoded_pictures[] = {\n" + "\n".join(rows) + "\n};\n")
    with open(os.path.join(ROOT, "image.h"), "w") as out:
        out.write("\n".join(lines))


if __name__ == "__main__":
    main()
