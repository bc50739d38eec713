"""The server under load: throughput against the bare `Refiner`, latency, errors, and memory over many requests.

    python -m benchmarks.service.serve [--clients 1,4,16] [--seconds 30] [--requests 1000]

Server and clients are on this machine and share its cores; the photo is synthetic. The bare `Refiner` is measured
before and after each load, with the same photo, decoded for each mask.
"""

import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import numpy as np

from benchmarks.common.scenes import scene
from benchmarks.common.tables import aligned
from segrefiner import Refiner, SegRefinerError
from segrefiner.imaging.coco_masks import encode_rle
from segrefiner.imaging.files import png_bytes
from segrefiner.serving.client import Client


class Load:
    """Clients that ask one after the other for as long as they may."""

    def __init__(self, url: str, photo: bytes, mask: np.ndarray) -> None:
        self.url, self.photo, self.mask = url, photo, mask
        self.seconds: list[float] = []
        self.busy, self.errors = 0, []

    def run(self, clients: int, seconds: float) -> float:
        """Requests per second of so many clients."""
        begun = time.perf_counter()
        threads = [threading.Thread(target=self._ask_until, args=(begun + seconds,)) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(self.seconds) / (time.perf_counter() - begun)

    def _ask_until(self, until: float) -> None:
        client = Client(self.url)
        while (begun := time.perf_counter()) < until:
            try:
                client.refine(self.photo, self.mask)
            except SegRefinerError as error:
                if "try again later" in str(error):
                    self.busy += 1
                    time.sleep(1)
                else:
                    self.errors.append(str(error))
            else:
                self.seconds.append(time.perf_counter() - begun)


def bare(refiner: Refiner, photo: bytes, mask: np.ndarray, seconds: float) -> float:
    """Masks per second of the refiner alone, from the photo's bytes to an encoded mask."""
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        encode_rle(refiner(photo, mask).mask)
        count += 1
    return count / (time.perf_counter() - begun)


def resident(process: subprocess.Popen[str]) -> float:
    """Memory of a process, in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def memory(process: subprocess.Popen[str], load: Load, requests: int) -> list[list[str]]:
    """Rows of a table: how much of it after how many requests, of four clients."""
    rows, client = [["requests", "MiB"], ["0", f"{resident(process):.0f}"]], Client(load.url)
    for part in range(1, 6):
        threads = [
            threading.Thread(target=lambda: [client.refine(load.photo, load.mask) for _ in range(requests // 20)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rows.append([str(part * 4 * (requests // 20)), f"{resident(process):.0f}"])
    return rows


@click.command()
@click.option("--clients", default="1,4,16", show_default=True)
@click.option("--seconds", default=30.0, show_default=True, help="For each number of clients.")
@click.option("--requests", default=1000, show_default=True, help="For memory.")
@click.option("--megapixels", default=0.5, show_default=True)
def main(clients: str, seconds: float, requests: int, megapixels: float) -> None:
    """Print two tables."""
    made = scene(megapixels, 1)
    photo, mask = png_bytes(made.image), made.coarse[0]
    refiner = Refiner.from_pretrained()
    refiner(photo, mask)
    program = "from segrefiner.cli.main import main; main()"
    arguments = [sys.executable, "-c", program, "serve", "--port", "0", "--no-page"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split(": ")[0]
        try:
            Client(url).refine(photo, mask)
            # Before and after each load: other programs on the machine change its speed.
            before = bare(refiner, photo, mask, seconds / 2)
            rows = [["clients", "masks/s", "bare Refiner", "of it", "p50 s", "p95 s", "503", "other errors"]]
            for count in map(int, clients.split(",")):
                load = Load(url, photo, mask)
                rate = load.run(count, seconds)
                after = bare(refiner, photo, mask, seconds / 2)
                alone, before = (before + after) / 2, after
                p50, p95 = np.percentile(load.seconds, (50, 95))
                times = [f"{p50:.2f}", f"{p95:.2f}", str(load.busy), str(len(load.errors))]
                rows.append([str(count), f"{rate:.2f}", f"{alone:.2f}", f"{100 * rate / alone:.0f} %", *times])
            print(aligned(rows))
            print(aligned(memory(process, load, requests)))
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
