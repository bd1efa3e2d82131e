"""Writes the files of web/report/ as C strings: embed.py OUT.c report.html report.css report.js"""
import os
import sys

out, files = sys.argv[1], sys.argv[2:]
with open(out, "w") as c:
    c.write('#include "eval/page.h"\n\n')
    for path in files:
        data = open(path, "rb").read()
        name = "lk_" + os.path.basename(path).replace(".", "_")
        c.write(f"const char {name}[] = {{{','.join(map(str, data + bytes(1)))}}};\n")
