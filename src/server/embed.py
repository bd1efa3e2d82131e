"""Writes the files of web/ as C arrays: embed.py OUT.c FILE..."""
import hashlib
import os
import sys

TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".svg": "image/svg+xml"}
out, files = sys.argv[1], sys.argv[2:]
with open(out, "w") as c:
    c.write('#include "server/server.h"\n\n')
    for i, path in enumerate(files):
        data = open(path, "rb").read()
        c.write(f"static const unsigned char file{i}[] = {{{','.join(map(str, data))}}};\n")
    c.write("const lk_web_file lk_web_files[] = {\n")
    for i, path in enumerate(files):
        tag = hashlib.sha256(open(path, "rb").read()).hexdigest()[:16]
        c.write(f'    {{"/{os.path.basename(path)}", "{TYPES[os.path.splitext(path)[1]]}", file{i}, sizeof file{i}, "\\"{tag}\\""}},\n')
    c.write("};\nconst size_t lk_web_file_count = sizeof lk_web_files / sizeof *lk_web_files;\n")
