#!/usr/bin/env python3
"""Whole training steps of Ballast and of the same model in PyTorch, in turns, on this machine.

    python3 -m venv build/bench && build/bench/bin/pip install -r tools/bench_peers/requirements.txt
    build/bench/bin/python tools/bench_peers/bench_peers.py --json build/bench.json

A step is forward, backward, clipping and AdamW, in float32, on random tokens. Each program is a process of its own;
they compute in turns, a block of steps each, and never at the same time. The order alternates from round to round, so
that what changes on the machine over time (temperature, neighbours) meets both alike. The ratio is taken within each
round; the table shows the median of the rounds and, in brackets, the lowest and the highest: above 1, Ballast is
faster.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import peers

HERE = Path(__file__).resolve().parent

# Config, number of token ids, and steps of a block.
SHAPES = {
    "p1": ("configs/bench/p1.json", 65, 30),
    "p2": ("configs/bench/p2.json", 65, 3),
    "p3": ("configs/bench/p3.json", 50257, 2),
}


class Model(peers.Worker):
    """A process that first says which model it has, and then makes as many steps as it is told."""

    def __init__(self, command, environment):
        super().__init__(command, environment)
        self.facts = self.read()
        self.answers = []

    def run(self, steps):
        self.answers.append(self.ask(steps))

    @property
    def blocks(self):
        return [answer["seconds"] for answer in self.answers]

    def median(self):
        return statistics.median(second for block in self.blocks for second in block)


def compare(name, options):
    config, vocabulary, steps = SHAPES[name]
    steps = options.steps or steps
    threads = str(options.threads)
    environment = dict(pair.split("=", 1) for pair in options.env)
    command = [options.build / "ballast", "bench", peers.ROOT / config, "--vocabulary", str(vocabulary), "--threads", threads]
    ours = Model([*command, "--worker"], environment)
    with tempfile.TemporaryDirectory() as directory:
        resolved = Path(directory) / "config.json"
        resolved.write_text(json.dumps(ours.facts["config"]))
        command = [sys.executable, HERE / "torch_worker.py", resolved, threads, str(vocabulary)]
        environment |= {"OMP_NUM_THREADS": threads} | dict(pair.split("=", 1) for pair in options.torch_env)
        theirs = Model([*command, *(["--compile"] if options.compile else [])], environment)
    if ours.facts["parameters"] != theirs.facts["parameters"]:
        counts = f"{ours.facts['parameters']} and {theirs.facts['parameters']} parameters"
        sys.exit(f"bench_peers: not the same model: {counts}")

    for turn in range(options.rounds):
        for worker in (ours, theirs) if turn % 2 == 0 else (theirs, ours):
            worker.run(steps)
    ours.close()
    theirs.close()

    ratios = [statistics.median(b) / statistics.median(a) for a, b in zip(ours.blocks, theirs.blocks, strict=True)]
    peaks = sorted(answer["peak_flops"] for answer in ours.answers)
    peak = peaks[len(peaks) * 3 // 4]  # the upper quartile: other programs may have taken some of a try
    flops = ours.facts["flops_per_step"]

    def report(worker):
        return {
            "median_seconds": worker.median(),
            "flops_per_second": flops / worker.median(),
            "share_of_peak": flops / worker.median() / peak,
            "peak_bytes": worker.answers[-1]["peak_bytes"],
            "blocks": worker.blocks,
        }

    return {
        "shape": name,
        "parameters": ours.facts["parameters"],
        "threads": options.threads,
        "machine": ours.facts["machine"],
        "torch": theirs.facts["version"] + (", compiled" if options.compile else ", eager"),
        "environment": {"both": options.env, "torch": options.torch_env},
        "peak_flops": peak,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "ballast": report(ours),
        "pytorch": report(theirs),
    }


HEADER = "shape  threads    Ballast    PyTorch  ratio [range]         GFLOP/s    of peak      memory, MiB"


def row(result):
    ours, theirs = result["ballast"], result["pytorch"]
    low, high = min(result["ratios"]), max(result["ratios"])

    def pair(key, scale, unit=""):
        return f"{scale * ours[key]:.0f}{unit}, {scale * theirs[key]:.0f}{unit}"

    return (
        f"{result['shape']:5}  {result['threads']:7}  "
        f"{1e3 * ours['median_seconds']:6.1f} ms  {1e3 * theirs['median_seconds']:6.1f} ms  "
        f"{result['ratio']:.2f} [{low:.2f} to {high:.2f}]   "
        f"{pair('flops_per_second', 1e-9):>8}   {pair('share_of_peak', 100, ' %'):>10}   {pair('peak_bytes', 2**-20)}"
    )


def parse_options():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], epilog="Example: bench_peers.py --shapes p2 --threads 2 --rounds 9"
    )
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), help="which models [all]")
    peers.add_options(parser, 7, "blocks")
    parser.add_argument("--steps", type=int, help="steps of a block [30, 3 and 2 by shape]")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="set for both programs")
    parser.add_argument("--torch-env", action="append", default=[], metavar="NAME=VALUE", help="set for PyTorch alone")
    return peers.parse(parser)


def main():
    options = parse_options()
    results = []
    for shape in options.shapes:
        results.append(compare(shape, options))
        if len(results) == 1:
            first = results[0]
            machine = first["machine"]
            kernels = f"{machine['simd']}; {machine['blas']}, {machine['blas_core']}"
            print(f"Ballast ({kernels}) and PyTorch {first['torch']}, float32")
            print(f"peak of fused multiply-adds: {1e-9 * first['peak_flops']:.0f} GFLOP/s\n{HEADER}")
        print(row(results[-1]), flush=True)
    peers.write(options, results)


if __name__ == "__main__":
    main()
