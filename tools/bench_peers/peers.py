"""What the comparisons with PyTorch share: processes that compute when they are told to, and their options."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = Path(sys.argv[0]).stem


class Worker:
    """A process that answers each line of its standard input with a line of JSON, once it has done what that says."""

    def __init__(self, command, environment):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment
        )

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{NAME}: {self.process.args[0]} ended with status {self.process.wait()}")
        return json.loads(line)

    def ask(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        answer = self.read()
        time.sleep(0.05)  # until this process's threads are asleep
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def add_options(parser, rounds, what):
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each program [all]")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"{what} of each program [{rounds}]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    build = Path(os.environ.get("BALLAST_BUILD", ROOT / "build" / "release"))
    parser.add_argument("--build", type=Path, default=build, help="build folder [$BALLAST_BUILD or build/release]")


def parse(parser):
    options = parser.parse_args()
    options.build = options.build.resolve()
    if not (options.build / "ballast").exists():
        parser.error(f"{options.build}/ballast is missing: build Ballast first, or say --build")
    return options


def write(options, results):
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
