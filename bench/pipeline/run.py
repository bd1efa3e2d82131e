#!/usr/bin/env python3
"""Times JPEG files on disk to vectors beside PyTorch's DataLoader with timm: same weights, same files, in turns.

    bench/pipeline/run.py --build BUILD [--python PROGRAM | --venv DIR] [--models resnet50,...] [--pictures N] [--rounds N]
                          [--threads N] [--precision f32] [--json FILE]

The pictures are JPEG files of one megapixel, warm in the page cache. Ours is `likeness embed`, the whole process from start
to written file; the peer is timed from the first batch to the last vector, its imports and the loading of the model left
out. Memory is the largest sum of the proportional set sizes of a side's processes, looked at ten times a second.
"ratio" is pictures per second over the peer's, the median over the rounds. The share of decoding is of our processor time.
Weights are random (seeded) from timm, batch norms with the statistics of their input; the cosine between both sides' vectors is
printed, because faster but other vectors would be no gain.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PACKAGES = ["numpy==2.4.6", "pillow==13.0.0", "safetensors==0.8.0", "timm==1.0.31", "torch==2.15.0", "torchvision==0.29.2"]


def enter_python(options):
    """Runs this script again with an interpreter that has the packages."""
    python = options.python
    if not python:
        python, stamp = os.path.join(options.venv, "bin", "python"), os.path.join(options.venv, "likeness-pipeline")
        if not os.path.exists(stamp):
            subprocess.run([sys.executable, "-m", "venv", options.venv], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
            open(stamp, "w").close()
    os.environ["LIKENESS_PIPELINE_PYTHON"] = python
    os.execv(python, [python, *sys.argv])


def make_pictures(folder, count):
    """Soft blotches of several sizes with some grain, 1152x864."""
    import numpy
    from PIL import Image

    rng = numpy.random.default_rng(5)
    for i in range(count):
        total = numpy.zeros((864, 1152, 3), "float32")
        for size in (12, 48, 192):
            coarse = Image.fromarray(rng.integers(0, 256, (864 // size + 2, 1152 // size + 2, 3), dtype="uint8"))
            total += numpy.asarray(coarse.resize((1152, 864), Image.BICUBIC), "float32") * size**0.5
        total += rng.normal(0, 60, total.shape)
        total = (total - total.min()) / (total.max() - total.min()) * 255
        Image.fromarray(total.astype("uint8")).save(folder / f"{i:04}.jpg", quality=90)
    return sorted(folder.glob("*.jpg"))


def make_model(name, folder):
    import timm
    import torch
    from timm.models import save_for_hf

    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for m in norms:
        m.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.nn.functional.interpolate(torch.randn(8, 3, 9, 9), 224, mode="bicubic"))
    save_for_hf(model.eval(), str(folder), safe_serialization=True)


def peer(arguments):
    """The other side, in a process of its own: prints seconds and memory, writes the vectors."""
    import numpy
    import timm
    import torch
    from PIL import Image
    from safetensors.torch import load_file
    from timm.data import create_transform, resolve_data_config

    folder, listed, out, threads = arguments
    threads = int(threads)
    config = json.loads(pathlib.Path(folder, "config.json").read_text())
    model = timm.create_model(config["architecture"], num_classes=0)
    model.load_state_dict({k: v for k, v in load_file(folder + "/model.safetensors").items() if k in model.state_dict()})
    model.eval()
    transform = create_transform(**resolve_data_config({}, pretrained_cfg=config["pretrained_cfg"]))
    paths = open(listed).read().split("\n")[:-1]

    class Files(torch.utils.data.Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, i):
            return transform(Image.open(paths[i]).convert("RGB"))

    torch.set_num_threads(threads)
    start = time.time()
    rows = []
    with torch.inference_mode():
        for batch in torch.utils.data.DataLoader(Files(), batch_size=16, num_workers=threads):
            rows.append(torch.nn.functional.normalize(model(batch)).numpy())
    seconds = time.time() - start
    numpy.save(out, numpy.concatenate(rows))
    print(json.dumps({"seconds": seconds}))


def processes(pid):
    """A process and its children."""
    found = [pid]
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except (OSError, ValueError):
            pass
    return found


def watch(command):
    """Runs a command: seconds, largest MiB, what it printed."""
    start, most = time.time(), 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        total = 0
        for pid in processes(process.pid):
            try:
                total += int(pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().split("Pss:")[1].split()[0])
            except (OSError, IndexError):
                pass
        most = max(most, total)
        time.sleep(0.1)
    seconds, (printed, errors) = time.time() - start, process.communicate()
    if process.returncode:
        sys.exit(f"{command[0]}: exit status {process.returncode}\n{errors}")
    return seconds, most / 1024, printed


def ours(program, folder, listed, out, threads, precision):
    seconds, mib, _ = watch([program, "embed", "--model", folder, "--out", out, "--threads", str(threads), "--precision", precision, "-q", listed])
    return {"seconds": seconds, "mib": mib}


def theirs(folder, listed, out, threads):
    _, mib, printed = watch([sys.executable, __file__, "--peer", folder, listed, out, str(threads)])
    return {"seconds": json.loads(printed.strip().split("\n")[-1])["seconds"], "mib": mib}


def decoding_share(program, folder, pictures, threads, work):
    """From the report of `likeness index`, which times both."""
    collection = str(work / "share.lk")
    subprocess.run(["rm", "-rf", collection], check=True)
    done = subprocess.run([program, "index", str(pictures), "--into", collection, "--model", folder, "--threads", str(threads), "--json", "-q"], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    return report["decode_seconds"] / (report["decode_seconds"] + report["embed_seconds"])


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--peer":
        return peer(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--python")
    parser.add_argument("--venv", default="build/venv-bench-pipeline")
    parser.add_argument("--models", default="resnet50,efficientnet_b0")
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--json")
    options = parser.parse_args()
    if os.environ.get("LIKENESS_PIPELINE_PYTHON") != (options.python or os.path.join(options.venv, "bin", "python")):
        enter_python(options)
    import numpy

    program, results = os.path.join(options.build, "src", "cli", "likeness"), []
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        (work / "pictures").mkdir()
        listed = work / "list"
        listed.write_text("".join(f"{p}\n" for p in make_pictures(work / "pictures", options.pictures)))
        print(f"{options.pictures} JPEG files of 1 megapixel, {options.threads} threads, {options.rounds} rounds, ours {options.precision}, peer f32")
        print(f"{'model':18} {'ours/s':>8} {'peer/s':>8} {'ratio':>6} {'MiB':>6} {'peer':>6} {'of peer':>8} {'decoding':>9} {'cosine':>8}")
        for model in options.models.split(","):
            folder = work / model
            make_model(model, folder)
            a, b = [], []
            for _ in range(options.rounds):
                a.append(ours(program, str(folder), str(listed), str(work / "a.npy"), options.threads, options.precision))
                b.append(theirs(str(folder), str(listed), str(work / "b.npy"), options.threads))
            cosine = float((numpy.load(work / "a.npy") * numpy.load(work / "b.npy")).sum(1).min())
            row = {"model": model, "ours": options.pictures / statistics.median(x["seconds"] for x in a), "peer": options.pictures / statistics.median(x["seconds"] for x in b),
                   "ratio": statistics.median(y["seconds"] / x["seconds"] for x, y in zip(a, b)), "mib": max(x["mib"] for x in a), "peer_mib": max(x["mib"] for x in b),
                   "decoding": decoding_share(program, str(folder), work / "pictures", options.threads, work), "cosine": cosine}
            results.append(row)
            print(f"{model:18} {row['ours']:8.1f} {row['peer']:8.1f} {row['ratio']:6.2f} {row['mib']:6.0f} {row['peer_mib']:6.0f} {row['mib'] / row['peer_mib']:8.2f} {row['decoding']:9.0%} {cosine:8.5f}", flush=True)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"threads": options.threads, "precision": options.precision, "rows": results}, indent=1) + "\n")


main()
