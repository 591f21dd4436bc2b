#!/usr/bin/env python3
"""Norms of Ballast and of PyTorch, forward and backward, in turns, on this machine.

    python3 -m venv build/bench && build/bench/bin/pip install -r tools/bench_peers/requirements.txt
    build/bench/bin/python tools/bench_peers/bench_norms.py --json build/norms.json

A call is the norm of a matrix of float32 and the gradients of x, gain and bias, as far as the kind has them, and of the
scalars of scalenorm, dyt and derf. Those three are no functions of PyTorch's: there they are written with its own, one
after the other. Each program is a process
of its own; they compute in turns and never at the same time, and the order alternates from round to round. The ratio is
taken within each round; the table shows the median of the rounds and, in brackets, the lowest and the highest: above 1,
Ballast is faster.

PyTorch allocates its results anew in every call. Where the C library gets such memory from the system each time, the
system's zeroing of pages is a large part of the time; unless --default-allocator is given, PyTorch runs with settings
that make the C library keep it.
"""

import argparse
import json
import statistics
import sys
import time

import peers

KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 40),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 28),
}


def torch_worker(threads, seconds):
    """Answers each line of the standard input, "KIND ROWS WIDTH", with a line, as `ballast bench norms --worker` does."""
    import torch
    import torch.nn.functional as F

    # What each kind computes of x, gain, bias and two scalars, and how many of these it has: x, gain, bias, a, b.
    kinds = {
        "layernorm": (lambda x, gain, bias, a, b: F.layer_norm(x, gain.shape, gain, bias, 1e-5), 3),
        "rmsnorm": (lambda x, gain, bias, a, b: F.rms_norm(x, gain.shape, gain, 1e-5), 2),
        "batchnorm": (lambda x, gain, bias, a, b: F.batch_norm(x, None, None, gain, bias, True, 0.1, 1e-5), 3),
        "scalenorm": (lambda x, a, *_: a * (x / x.norm(dim=-1, keepdim=True).clamp(min=1e-5)), 2),
        "dyt": (lambda x, gain, bias, a, b: torch.tanh(a * x) * gain + bias, 4),
        "derf": (lambda x, gain, bias, a, b: torch.erf(a * x + b) * gain + bias, 5),
    }
    torch.set_num_threads(threads)
    for line in sys.stdin:
        kind, rows, width = line.split()
        x, dy = torch.randn(int(rows), int(width), requires_grad=True), torch.randn(int(rows), int(width))
        gain, bias = (torch.randn(int(width), requires_grad=True) for _ in range(2))
        a, b = (torch.tensor(value, requires_grad=True) for value in (0.5, 0.0))
        of = [x, a] if kind == "scalenorm" else [x, gain, bias, a, b]
        function, count = kinds[kind]
        leaves = of[:count]
        times = []
        begin = time.perf_counter()
        while len(times) < 4 or time.perf_counter() - begin < seconds:
            start = time.perf_counter()
            y = function(*of)
            middle = time.perf_counter()
            gradients = torch.autograd.grad(y, leaves, dy)
            times.append((middle - start, time.perf_counter() - middle))
            del y, gradients
        forward_seconds, backward_seconds = (min(t) for t in zip(*times[1:], strict=True))
        answer = {"forward_seconds": forward_seconds, "backward_seconds": backward_seconds, "version": torch.__version__}
        print(json.dumps(answer), flush=True)


def compare(ours, theirs, kind, width, size, rounds):
    rows = max(int(size * 2**18 / width), 1)
    results = {ours: [], theirs: []}
    for turn in range(rounds):
        for worker in (ours, theirs) if turn % 2 == 0 else (theirs, ours):
            results[worker].append(worker.ask(kind, rows, width))

    def ratios(*keys):
        pairs = zip(results[ours], results[theirs], strict=True)
        each = [sum(b[key] for key in keys) / sum(a[key] for key in keys) for a, b in pairs]
        return {"median": statistics.median(each), "low": min(each), "high": max(each)}

    def seconds(worker, key):
        return statistics.median(result[key] for result in results[worker])

    keys = ("forward_seconds", "backward_seconds")
    return {
        "kind": kind,
        "width": width,
        "rows": rows,
        "mib": size,
        "ratio": ratios(*keys),
        "forward_ratio": ratios(keys[0]),
        "backward_ratio": ratios(keys[1]),
        "ballast": {key: seconds(ours, key) for key in keys},
        "pytorch": {key: seconds(theirs, key) for key in keys},
        "torch": results[theirs][0]["version"],
    }


HEADER = "kind       width    MiB      Ballast      PyTorch  ratio [range]           forward  backward"


def row(result):
    def total(name):
        return 1e6 * sum(result[name].values())

    ratio = result["ratio"]
    return (
        f"{result['kind']:9}  {result['width']:5}  {result['mib']:5g}  {total('ballast'):8.0f} us  "
        f"{total('pytorch'):8.0f} us  {ratio['median']:5.2f} [{ratio['low']:.2f} to {ratio['high']:.2f}]     "
        f"{result['forward_ratio']['median']:7.2f}   {result['backward_ratio']['median']:7.2f}"
    )


def parse_options():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], epilog="Example: bench_norms.py --widths 128 768 --threads 2 --rounds 9"
    )
    kinds = ["layernorm", "rmsnorm", "batchnorm", "scalenorm", "dyt", "derf"]
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds, help="which norms [all]")
    widths = [32, 64, 128, 256, 512, 768, 1024, 4096]
    parser.add_argument("--widths", nargs="+", type=int, default=widths, help="features a row [32 to 4096]")
    parser.add_argument("--sizes", nargs="+", type=float, default=[64, 1], help="MiB of x [64 1]")
    peers.add_options(parser, 3, "measurements")
    parser.add_argument("--seconds", type=float, default=0.1, help="time of a measurement [0.1]")
    parser.add_argument("--default-allocator", action="store_true", help="leave PyTorch's C library as it is")
    parser.add_argument("--torch-worker", action="store_true", help=argparse.SUPPRESS)
    return peers.parse(parser)


def main():
    options = parse_options()
    if options.torch_worker:
        torch_worker(options.threads, options.seconds)
        return
    common = ["--threads", str(options.threads), "--seconds", str(options.seconds)]
    ours = peers.Worker([options.build / "ballast", "bench", "norms", "--worker", *common], {})
    environment = {"OMP_NUM_THREADS": str(options.threads)} | ({} if options.default_allocator else KEEP_MEMORY)
    theirs = peers.Worker([sys.executable, __file__, "--torch-worker", *common], environment)
    results = []
    for size in options.sizes:
        for kind in options.kinds:
            for width in options.widths:
                results.append(compare(ours, theirs, kind, width, size, options.rounds))
                if len(results) == 1:
                    print(f"Ballast and PyTorch {results[0]['torch']}, {options.threads} threads, float32\n{HEADER}")
                print(row(results[-1]), flush=True)
    ours.close()
    theirs.close()
    peers.write(options, results)


if __name__ == "__main__":
    main()
