"""Seconds and peak memory of `segrefiner refine` on one photo, in a process of its own.

    python -m benchmarks.cost.one_photo IMAGE MASK [refine's options]

Prints the time of the refinement alone (the best of three runs), of the whole command, and the peak resident memory.
"""

import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Run the command three times."""
    refinement, command = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(3):
            arguments = [*sys.argv[1:], "-o", str(Path(folder) / "refined.png")]
            started = time.perf_counter()
            done = subprocess.run(["segrefiner", "refine", *arguments], check=True, capture_output=True, text=True)
            command.append(time.perf_counter() - started)
            refinement.append(float(re.search(r"([\d.]+) s \(", done.stdout).group(1)))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    print(done.stdout.strip())
    print(f"refinement {min(refinement):.2f} s, whole command {min(command):.2f} s, peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
