"""A real Dask cluster on this machine: a scheduler and its workers, each a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

from tests.support.ports import free_port
from tests.support.waits import LIMIT_S

LOCAL = ("--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0")


@dataclass
class DaskCluster:
    """`address` is the scheduler's; `client` is not the product's, and sees everything."""

    address: str
    scheduler: "subprocess.Popen[bytes]"
    client: Client
    log: Path
    start_worker: Callable[[], object]

    def kill_a_busy_worker(self) -> None:
        """Kill a worker, -9, that has tasks; where all are done, one that holds answers."""
        pids = self.client.run(os.getpid)
        tasks = self.client.processing()
        busy = max(pids, key=lambda address: len(tasks.get(address, ())))
        os.kill(pids[busy], 9)


@contextmanager
def dask_cluster(
    folder: Path, models_dir: Path, *, workers: int, protocol: str = "tcp", variables: Mapping[str, str] = {}
) -> Iterator[DaskCluster]:
    """Start a cluster whose workers take the models from `models_dir`, and stop it."""
    port = free_port()
    address = f"{protocol}://127.0.0.1:{port}"
    log = folder / "cluster.log"
    environment = {**os.environ, "EDGE_MODELS_DIR": str(models_dir), **variables}
    with ExitStack() as stack, log.open("wb") as written:

        def start(*arguments: str) -> "subprocess.Popen[bytes]":
            command = [sys.executable, "-m", "dask", *arguments, *LOCAL]
            process = subprocess.Popen(command, stdout=written, stderr=written, cwd=folder, env=environment)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        def start_worker() -> "subprocess.Popen[bytes]":
            return start("worker", address, "--nthreads", "1", "--no-nanny", "--memory-limit", "0")

        scheduler = start("scheduler", "--port", str(port), "--protocol", protocol)
        for _ in range(workers):
            start_worker()
        client = stack.enter_context(Client(address, timeout=LIMIT_S, set_as_default=False))
        client.wait_for_workers(workers, timeout=LIMIT_S)
        yield DaskCluster(address, scheduler, client, log, start_worker)
