"""Photos embedded by the workers of a Dask cluster instead of processes of this machine.

Workers read the photos and load the models for themselves. What is sent to them is which photos, and the
table `recognition`. What comes back are embeddings: both are encrypted between machines with `tls://` only.
The name of no photo reaches the log of a worker.

- A worker whose edge, libraries or models differ, or that does not see the photos, is told in one line before
  any work, and one that joins later stops the work.
- What a worker that died was at is given to another. Where several died over it, its photos are given out
  singly after all others, and one that kills is told.
- Without any worker, or without the scheduler, the work ends in one line.
"""

import logging
import socket
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, TypeVar

import edge
from edge.camera.photo_store import told_of_store
from edge.core.errors import ClusterError, EdgeError
from edge.recognition.recognizer import Recognizer

CONNECT_S = 10.0
"""Longest wait for the scheduler."""

JOIN_S = 30.0
"""Longest wait for the first worker to join the scheduler."""

LOOK_S = 5.0
"""How often it is looked whether there is any worker left, while no answer comes."""

PATIENCE_LOOKS = 12
"""Looks in a row that find no worker, before the work ends: a minute, in which a worker may be replaced."""

COMPUTING = ("numpy", "onnxruntime", "opencv-python-headless")
"""Packages whose versions decide over the last bits of an embedding."""

Load = Callable[[], Recognizer]
Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a worker must have: packages of these versions, models of these ids, and this photo."""

    versions: dict[str, str]
    models: tuple[str, str]
    photo: Path = field(repr=False)

    @classmethod
    def of(cls, recognizer: Recognizer, photo: Path) -> "Needs":
        """Return what makes a worker do the same as `recognizer` does here."""
        return cls(_versions(), _models(recognizer), photo)

    def lacking(self, recognizer: Recognizer) -> str | None:
        """Return what this process has instead; None: all is as it must be."""
        for package, there in _versions().items():
            if there != self.versions[package]:
                return f"has {package} {there}, and {self.versions[package]} is needed"
        for there, needed in zip(_models(recognizer), self.models, strict=True):
            if there != needed:
                return f"has the model {there}, and {needed} is needed"
        with told_of_store(self.photo):
            if not self.photo.exists():
                return f"cannot read {self.photo}; share the folder of photos under the same path"
        return None


def _versions() -> dict[str, str]:
    return {"edge": edge.__version__} | {package: version(package) for package in COMPUTING}


def _models(recognizer: Recognizer) -> tuple[str, str]:
    return recognizer.detector.model_id, recognizer.embedder.model_id


class _Parcel(Generic[Item]):
    """What a worker is to do, which its log must not show."""

    def __init__(self, item: Item) -> None:
        self.item = item

    def __repr__(self) -> str:
        return "photos"


class _DeadlyError(ClusterError):
    """The workers that had this task died, as many as the scheduler allows."""


class Cluster:
    """Workers that do the same as this machine would; see `joined`."""

    def __init__(self, client: Any, needs: Needs, load: Load) -> None:
        self._client = client
        self._needs = needs
        self._load = load

    def check(self) -> None:
        """Let every worker load its models and say what it has.

        Raises:
            ClusterError: One is not what is needed, or there is none.
        """
        try:
            answers = self._client.run(_said_of_itself, self._needs, self._load, on_error="return")
        except OSError:
            raise _gone() from None
        if not answers:
            raise ClusterError("the last worker of the cluster is gone; start one, and run this again")
        for address, answer in sorted(answers.items()):
            if isinstance(answer, Exception):
                answer = f"cannot do the work: {' '.join(str(answer).split())}"
            if answer is not None:
                raise ClusterError(f"worker {address} {answer}; nothing was done")

    def map(
        self, work: Callable[[Load, Sequence[Item]], list[Answer]], chunks: Sequence[Sequence[Item]]
    ) -> Iterator[tuple[Sequence[Item], list[Answer | ClusterError]]]:
        """Yield each chunk with what `work` makes of it: an answer for each of its items.

        `work` is given what loads a worker's models. Chunks come in order, and those over which workers died
        at the end. An item that kills every worker that has it alone has an error for an answer.

        Raises:
            ClusterError: The scheduler or all workers are gone, or one that joined is not what is needed.
            EdgeError: What `work` raised.
        """
        task = partial(_done, self._needs, self._load, work)
        parcels = [_Parcel(chunk) for chunk in chunks]
        futures = deque(self._client.map(task, parcels, pure=False, key="edge"))
        deadly = []
        try:
            for chunk in chunks:
                try:
                    answers = self._answer(futures[0])
                except _DeadlyError:
                    deadly.append(chunk)
                else:
                    yield chunk, answers
                futures.popleft()  # the worker forgets the answers
        finally:
            if self._client.status == "running":
                self._client.cancel(list(futures), force=True)
        for chunk in deadly:  # nothing else is at work any more: what dies now dies by its own doing
            yield chunk, [self._alone(task, item) for item in chunk]

    def _alone(self, task: Callable[[_Parcel[list[Item]]], Any], item: Item) -> Any:
        try:
            [answer] = self._answer(self._client.submit(task, _Parcel([item]), pure=False))
        except _DeadlyError as error:
            return error
        return answer

    def _answer(self, future: Any) -> Any:
        from distributed import CancelledError, KilledWorker

        alone = 0
        while True:
            try:
                answer = future.result(timeout=LOOK_S)
                break
            except TimeoutError:
                alone = 0 if self._workers() else alone + 1
            except KilledWorker:
                raise _DeadlyError(
                    "every worker that looked at it died; see their memory, or leave it out"
                ) from None
            except ImportError as error:
                raise ClusterError(f"a worker that joined cannot do the work: {error}") from None
            except (CancelledError, OSError):
                raise _gone() from None
            if alone == PATIENCE_LOOKS:
                raise ClusterError("the cluster has no worker left; start one, and run this again to go on")
        if isinstance(answer, EdgeError):
            raise answer
        return answer

    def _workers(self) -> int:
        try:
            return len(self._client.nthreads())
        except OSError:
            raise _gone() from None


def _gone() -> ClusterError:
    return ClusterError("the scheduler is gone; run this again to go on")


@contextmanager
def joined(scheduler: str, needs: Needs, load: Load) -> Iterator[Cluster]:
    """Join the cluster of a scheduler, `tcp://host:8786` or `tls://host:8786`, and check its workers.

    Each worker calls `load` for itself, so it must be picklable.

    Raises:
        ClusterError: The scheduler cannot be reached, has no worker, or one that lacks something; or the
            extra `dask` is not installed.
    """
    try:
        from distributed import Client, Security
    except ImportError:
        raise ClusterError("--scheduler: install the extra `dask` to embed on a cluster") from None
    _be_silent()
    try:
        security: Any = Security()  # type: ignore[no-untyped-call]
        encrypted = security.get_connection_args("client")["ssl_context"] is not None
        if encrypted != scheduler.startswith("tls:"):
            needed = "certificates ask for tls://" if encrypted else "no certificate of this machine is set"
            raise ClusterError(f"--scheduler: {scheduler}: {needed}; see deploy/FLEET.md, several machines")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other versions there; `Needs` tells of those that matter
            client: Any = Client(scheduler, timeout=CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError, RuntimeError, AssertionError) as error:
        why = str(error) or "Dask's own thread did not start within 10 s"  # its assertion, on a busy machine
        raise ClusterError(f"--scheduler: {scheduler}: no Dask scheduler can be reached: {why}") from None
    try:
        try:
            client.wait_for_workers(1, timeout=JOIN_S)
        except TimeoutError:
            raise ClusterError(
                f"--scheduler: {scheduler} has no worker; start one: dask worker {scheduler}"
            ) from None
        cluster = Cluster(client, needs, load)
        cluster.check()
        yield cluster
    finally:
        client.close(timeout=CONNECT_S)


def _be_silent() -> None:
    """Let Dask write nothing to standard error here: what matters is raised."""
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _said_of_itself(needs: Needs, load: Load) -> str | None:
    try:
        return needs.lacking(load())
    except EdgeError as error:
        return f"cannot do the work: {error}"


def _done(
    needs: Needs, load: Load, work: Callable[[Load, Item], Answer], parcel: _Parcel[Item]
) -> Answer | EdgeError:
    """Do the work, on a worker; an error is returned: one that is raised is written to the worker's log."""
    try:
        recognizer = load()
        if lacking := needs.lacking(recognizer):
            return ClusterError(f"a worker on {socket.gethostname()} {lacking}")
        return work(lambda: recognizer, parcel.item)
    except EdgeError as error:
        return error
