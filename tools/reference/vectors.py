#!/usr/bin/env python3
"""Makes tests/fixtures/vectors/: small files of vectors as numpy and h5py write them, for tests/unit/test_formats.c.

Row r, component c of every file is 7 r + c (for the types that have a sign minus 10; for floats plus 0.5).
Needs numpy 2.4.6 and h5py 3.16.0. The formats of one header and rows have no writer of their own: their bytes are laid
out with struct as their specifications say.
"""
import pathlib
import struct

import h5py
import numpy
from numpy.lib import format as npy

ROWS, DIM = 5, 7
folder = pathlib.Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "vectors"


def table(dtype):
    whole = numpy.arange(ROWS * DIM).reshape(ROWS, DIM)
    kind = numpy.dtype(dtype)
    return (whole if kind.kind == "u" else whole - 10 if kind.kind == "i" else whole - 9.5).astype(kind)


def save(name, array, version=None):
    with open(folder / name, "wb") as out:
        npy.write_array(out, array, version=version)


def counted(name, array):
    with open(folder / name, "wb") as out:
        for row in array:
            out.write(struct.pack("<i", len(row)) + row.tobytes())


def headed(name, array, more=b""):
    (folder / name).write_bytes(struct.pack("<II", *array.shape) + array.tobytes() + more)


def main():
    folder.mkdir(parents=True, exist_ok=True)
    for dtype in ("f4", "f2", "f8", "i1", "u1", "i4"):
        save(f"{dtype}.npy", table(dtype))
    for version in ((1, 0), (2, 0), (3, 0)):
        save(f"version{version[0]}.npy", table("f4"), version)
    save("big_endian.npy", table(">f4"))
    save("fortran.npy", numpy.asfortranarray(table("f4")))
    save("flat.npy", table("f4").ravel())
    save("complex.npy", table("f4").astype("c8"))
    save("records.npy", numpy.zeros(3, dtype=[("a", "f4"), ("b", "i4")]))
    save("empty.npy", table("f4")[:0])
    counted("f.fvecs", table("f4"))
    counted("u.bvecs", table("u1"))
    counted("i.ivecs", table("i4"))
    headed("f.fbin", table("f4"))
    headed("u.u8bin", table("u1"))
    headed("i.i8bin", table("i1"))
    headed("i.ibin", table("i4"))
    headed("both.ibin", table("i4"), table("f4").tobytes())  # neighbours and their distances
    with h5py.File(folder / "ann.hdf5", "w") as out:
        out["train"], out["test"] = table("f4"), table("f8")[:2]
        out["neighbors"], out["distances"] = table("i8"), table("f2")
        out["line"] = numpy.arange(5)
        out["text"] = "not numbers"
    with h5py.File(folder / "zipped.h5", "w") as out:
        out.create_dataset("train", data=table("f4"), chunks=(2, 7), compression="gzip")


if __name__ == "__main__":
    main()
