#!/usr/bin/env python3
"""Times embedding beside PyTorch, ONNX Runtime and OpenVINO: same weights, same pictures, same machine, in turns.

    bench/embed/run.py --build BUILD [--python PROGRAM | --venv DIR] [--models resnet50,...] [--precisions f32,bf16,int8]
                       [--threads 1,2] [--batches 1,16] [--rounds N] [--seconds S] [--json FILE]

Every contestant gets a turn of S seconds in every round (at least one whole run). Rates are pictures per second, medians
over the rounds: with one thread of processor time, so that what else the machine does is not counted, with more threads by
the clock. "ratio" is our rate over that of the fastest peer at the same precision, round by round: median, smallest and
largest; "other" its median by the other of the two clocks; "of f32" our rate over that of the fastest peer in f32.
int8 of the peers: the ONNX file quantised by ONNX Runtime (static, per channel), which OpenVINO runs as well.
Weights are random (seeded) from timm and transformers; batch norms are given the statistics of their input, so that values
stay sensible. The packages of requirements.txt are installed into DIR, or PROGRAM is a Python that has them.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SIDE = 224
MODELS = ("resnet50", "efficientnet_b0", "vit_base_patch16_224", "clip_vit_b32")


def enter_python(options):
    """Runs this script again with an interpreter that has the packages."""
    if options.python:
        python = options.python
    else:
        python = os.path.join(options.venv, "bin", "python")
        stamp, wanted = os.path.join(options.venv, "likeness-embed"), open(os.path.join(HERE, "requirements.txt")).read()
        if not os.path.exists(stamp) or open(stamp).read() != wanted:
            subprocess.run([sys.executable, "-m", "venv", options.venv], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", os.path.join(HERE, "requirements.txt")], check=True)
            with open(stamp, "w") as out:
                out.write(wanted)
    os.environ["LIKENESS_EMBED_PYTHON"] = python
    os.execv(python, [python, *sys.argv])


def make_model(name, folder):
    """The PyTorch module that maps pictures to embeddings; its directory is written for us, an ONNX file for the others."""
    import timm
    import torch
    import transformers
    torch.manual_seed(0)
    path = os.path.join(folder, name)
    if name == "clip_vit_b32":
        clip = transformers.CLIPModel(transformers.CLIPConfig()).eval()

        class Tower(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.vision, self.projection = clip.vision_model, clip.visual_projection

            def forward(self, x):
                return self.projection(self.vision(pixel_values=x).pooler_output)

        module = Tower().eval()
        if not os.path.exists(path):
            clip.save_pretrained(path)
            transformers.CLIPImageProcessor().save_pretrained(path)
    else:
        module = timm.create_model(name)
        with torch.no_grad():
            module.train()(torch.randn(8, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)))
        if not os.path.exists(path):
            timm.models.save_for_hf(module.eval(), path, safe_serialization=True)
        module.reset_classifier(0)
        module.eval()
    return module, path


def make_onnx(module, path):
    import numpy
    import onnxruntime.quantization as quantization
    import torch
    plain, codes = path + ".onnx", path + ".int8.onnx"
    if not os.path.exists(plain):
        torch.onnx.export(module, (torch.randn(1, 3, SIDE, SIDE),), plain, input_names=["x"], output_names=["y"],
                          dynamic_axes={"x": {0: "n"}, "y": {0: "n"}}, dynamo=False)
    if not os.path.exists(codes):
        class Samples(quantization.CalibrationDataReader):
            def __init__(self):
                rng = numpy.random.default_rng(2)
                self.left = [{"x": rng.standard_normal((1, 3, SIDE, SIDE), dtype=numpy.float32)} for _ in range(2)]

            def get_next(self):
                return self.left.pop() if self.left else None

        prepared = path + ".prepared.onnx"
        quantization.quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(prepared, codes, Samples(), per_channel=True, quant_format=quantization.QuantFormat.QDQ)
    return plain, codes


class Ours:
    def __init__(self, build, path, precision, batch, threads):
        self.process = subprocess.Popen([os.path.join(build, "bench", "bench_embed"), path, precision, str(batch), str(threads)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("bench_embed did not start")

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def turn(self, seconds):
        wall, busy, pictures = map(float, self.ask(f"time {seconds}").split())
        return pictures / wall, pictures / busy

    def embed(self, pictures, folder):
        import numpy
        path = os.path.join(folder, "pictures.f32")
        pictures.tofile(path)
        self.ask("embed " + path)
        return numpy.fromfile(path, dtype=numpy.float32).reshape(len(pictures), -1)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Peer:
    def __init__(self, run, batch):
        self.run, self.batch = run, batch
        run()

    def turn(self, seconds):
        pictures, wall, busy = 0, time.perf_counter(), time.process_time()
        start = wall
        while True:
            self.run()
            pictures += self.batch
            if time.perf_counter() - start >= seconds:
                break
        return pictures / (time.perf_counter() - wall), pictures / (time.process_time() - busy)

    def close(self):
        pass


def make_peers(wanted, module, files, precision, x, threads):
    import onnxruntime
    import openvino
    import torch
    peers = {}
    torch.set_num_threads(threads)
    if "PyTorch" in wanted and precision in ("f32", "bf16"):
        fast = module.to(memory_format=torch.channels_last)
        xt = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)

        def run_torch():
            with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                return fast(xt)
        peers["PyTorch"] = Peer(run_torch, len(x))
    if "ONNX Runtime" in wanted and precision in ("f32", "int8"):
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(files[precision == "int8"], settings, providers=["CPUExecutionProvider"])
        peers["ONNX Runtime"] = Peer(lambda: session.run(None, {"x": x}), len(x))
    if "OpenVINO" not in wanted:
        return peers
    model = openvino.Core().read_model(files[precision == "int8"])
    model.reshape([len(x), 3, SIDE, SIDE])
    hint = "bf16" if precision == "bf16" else "f32"
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint,
                                                            "PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    peers["OpenVINO"] = Peer(lambda: request.infer([x]), len(x))
    return peers


def has_bf16():
    with open("/proc/cpuinfo") as cpuinfo:
        return "avx512_bf16" in cpuinfo.read()


def measure(options, module, path, files, precision, batch, threads, folder):
    import numpy
    import torch
    x = numpy.random.default_rng(5).standard_normal((batch, 3, SIDE, SIDE), dtype=numpy.float32)
    ours = Ours(options.build, path, precision, batch, threads)
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    got = ours.embed(x, folder)
    cosine = min(float((a * b).sum() / numpy.linalg.norm(a) / numpy.linalg.norm(b)) for a, b in zip(got, expected))
    sides = {"Likeness": ours, **make_peers(options.peers.split(","), module, files, precision, x, threads)}
    rates = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, side in sides.items():
            rates[name].append(side.turn(options.seconds))
    for side in sides.values():
        side.close()
    row = {"precision": precision, "batch": batch, "threads": threads, "cosine": cosine,
           "turns": rates}
    for clock, key in ((threads == 1, ""), (threads != 1, "other ")):
        medians = {name: statistics.median(r[clock] for r in turns) for name, turns in rates.items()}
        peer = max((r, name) for name, r in medians.items() if name != "Likeness")[1]
        ratios = [a[clock] / b[clock] for a, b in zip(rates["Likeness"], rates[peer])]
        row |= {key + "rates": medians, key + "peer": peer, key + "ratio": statistics.median(ratios),
                key + "least": min(ratios), key + "most": max(ratios)}
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--python")
    parser.add_argument("--venv", default=os.path.join(tempfile.gettempdir(), "likeness-bench-embed"))
    parser.add_argument("--work", default=os.path.join(tempfile.gettempdir(), "likeness-bench-embed-models"))
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--precisions", default="f32,bf16,int8" if has_bf16() else "f32,int8")
    parser.add_argument("--peers", default="PyTorch,ONNX Runtime,OpenVINO")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--json")
    options = parser.parse_args()
    if "LIKENESS_EMBED_PYTHON" not in os.environ:
        enter_python(options)
    os.makedirs(options.work, exist_ok=True)
    report = []
    print(f"{'model':22}{'threads':>8}{'batch':>6} {'precision':10}{'Likeness':>9}{'PyTorch':>9}{'ONNX RT':>9}{'OpenVINO':>9}"
          f"{'ratio':>7} {'least-most':>10}{'other':>6}{'of f32':>7}{'cosine':>9}   pictures/s", flush=True)
    for name in options.models.split(","):
        module, path = make_model(name, options.work)
        files = make_onnx(module, path)
        for threads in map(int, options.threads.split(",")):
            for batch in map(int, options.batches.split(",")):
                f32 = None
                for precision in options.precisions.split(","):
                    row = measure(options, module, path, files, precision, batch, threads, options.work)
                    row["model"] = name
                    if precision == "f32":
                        f32 = row["rates"][row["peer"]]
                    row["of f32"] = row["rates"]["Likeness"] / f32 if f32 else None
                    report.append(row)
                    cells = [f"{row['rates'][side]:9.1f}" if side in row["rates"] else " " * 9
                             for side in ("Likeness", "PyTorch", "ONNX Runtime", "OpenVINO")]
                    print(f"{name:22}{threads:8}{batch:6} {precision:10}{''.join(cells)}{row['ratio']:7.2f}"
                          f" {row['least']:5.2f}-{row['most']:4.2f}{row['other ratio']:6.2f}"
                          f"{row['of f32'] or 0:7.2f}{row['cosine']:9.5f}", flush=True)
    if options.json:
        with open(options.json, "w") as out:
            json.dump({"rounds": options.rounds, "seconds": options.seconds, "results": report}, out, indent=1)


if __name__ == "__main__":
    main()
