"""Run the peer until standard input ends: ``python -m tests.peers.xapi --folder DIR``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .pool import Pool


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.peers.xapi", description="A XenAPI pool for tests.")
    parser.add_argument("--folder", type=Path, required=True, help="where the sockets and the disks are")
    parser.add_argument("--users", type=Path, required=True, help="a file of lines USER PASSWORD")
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--size", type=int, default=0, help="bytes of each place that SRs are made on")
    parser.add_argument("--certificate", type=Path, help="key and certificate in one file; without it there is no TLS")
    options = parser.parse_args()
    lines = [line.split(" ", 1) for line in options.users.read_text().splitlines() if line.strip()]
    pool = Pool(options.folder, dict(lines), options.hosts, options.size, options.certificate)
    pool.serve()
    print(json.dumps(pool.facts()), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
