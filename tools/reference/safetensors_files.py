#!/usr/bin/env python3
"""Makes tests/fixtures/safetensors: a file with every element type, written by the safetensors package, and the values in it.

    safetensors_files.py             writes the fixture
    safetensors_files.py --read FILE prints what the package reads from a file that Likeness wrote

Needs safetensors 0.8.0, torch 2.15.0. (Not called safetensors.py, which would hide the package.)
"""
import json
import math
import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file

TYPES = {"BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "F8_E5M2": torch.float8_e5m2, "F8_E4M3": torch.float8_e4m3fn,
         "I16": torch.int16, "U16": torch.uint16, "F16": torch.float16, "BF16": torch.bfloat16, "I32": torch.int32,
         "U32": torch.uint32, "F32": torch.float32, "F64": torch.float64, "I64": torch.int64, "U64": torch.uint64}


def values(kind):
    if kind == "BOOL":
        return torch.tensor([True, False, True, True])
    if kind.startswith("F8"):
        return torch.arange(256, dtype=torch.uint8).view(TYPES[kind])
    if kind == "F16":
        return torch.cat([torch.arange(0, 65536, 331, dtype=torch.int32), torch.tensor([0, 1, 0x3ff, 0x400, 0x7bff, 0x7c00, 0x7e00, 0x8000, 0x8001, 0xfc00])]).to(torch.uint16).view(torch.float16)
    if kind == "BF16":
        return torch.tensor([0, 1, -1.5, 3.140625, 1e38, 1e-40, math.inf, -math.inf, math.nan], dtype=torch.bfloat16)
    if kind in ("F32", "F64"):
        return torch.tensor([0.0, -0.0, 1.1, -2.5e-40, 3.3e38, math.inf, math.nan, 1 / 3], dtype=TYPES[kind])
    info = torch.iinfo(TYPES[kind])
    return torch.tensor([info.min, info.max, 0, 1, 77], dtype=torch.int64 if kind != "U64" else torch.uint64).to(TYPES[kind]) if kind != "U64" else torch.tensor([0, 1, 77, 2**63 + 2**40 + 1], dtype=torch.uint64)


def plain(x):
    return [("nan" if math.isnan(v) else "inf" if v == math.inf else "-inf" if v == -math.inf else v) for v in x.to(torch.float32).flatten().tolist()]


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--read":
        for name, tensor in sorted(load_file(sys.argv[2]).items()):
            print(name, tensor.dtype, tuple(tensor.shape), plain(tensor))
        return
    out = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/safetensors"
    out.mkdir(parents=True, exist_ok=True)
    tensors = {kind: values(kind) for kind in TYPES}
    tensors["scalar"] = torch.tensor(2.5)
    tensors["empty"] = torch.zeros(3, 0, 2)
    tensors["matrix"] = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    path, metadata = out / "every_type.safetensors", {"format": "pt", "note": "é"}
    save_file(tensors, str(path), metadata)
    # The library writes the metadata in another order each time.
    saved = path.read_bytes()
    end = 8 + int.from_bytes(saved[:8], "little")
    header = json.loads(saved[8:end]) | {"__metadata__": metadata}
    path.write_bytes(saved[:8] + json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(end - 8) + saved[end:])
    rows = {name: {"shape": list(t.shape), "values": plain(t)} for name, t in tensors.items()}
    (out / "every_type.json").write_text("{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(v)}" for n, v in rows.items()) + "\n}\n")


main()
