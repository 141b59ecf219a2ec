"""Bringing files from the Hub: in parts that stay when the line breaks, checked when they are whole.

huggingface-hub names its own partial files at random and removes them on the first error, so nothing of a
shard of many gigabytes would outlive a lost connection, a Ctrl-C or a closed terminal. Here the part keeps its name.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol
from urllib.parse import quote

from ...foundation.errors import TunewrightError
from ...foundation.hub import endpoint, host, http_library
from ...foundation.text import one_line
from .cache import HubFile, HubName, Repository
from .errors import explain

if TYPE_CHECKING:
    import httpx

PARALLEL_FILES = 8
READ_BYTES = 2**20
DURABLE_BYTES = 2**20
"""Files from this size on are flushed to the disk at once; what a power failure leaves of others has another size."""
LARGEST_RANGE_BYTES = 16 * 2**30
"""No more is asked for at once: what stands before the Hub's store refuses answers of over 50 GB."""
ATTEMPTS = 6
"""So often a file is tried without one more byte having arrived."""
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 8.0
LONGEST_PAUSE_SECONDS = 120.0
"""For so long it is waited when the Hub asks for a pause."""
TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
TURN_SECONDS = 0.1


class Stopped(Exception):
    """Raised in the threads of a transfer that was stopped."""


class Hash(Protocol):
    """What hashlib's hashes can do."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class Transfer:
    """Brings files of one commit into the cache, several at once, each in a thread; it can be stopped at any time."""

    def __init__(self, name: HubName, repository: Repository, commit: str, files: tuple[HubFile, ...]) -> None:
        self.name = name
        self.repository = repository
        self.commit = commit
        self.files = files
        self.arrived: dict[str, int] = {each.blob: self._here(each) for each in files}
        """The bytes that are on the disk, by content."""
        self._whole = {each.blob for each in files if repository.is_here(each)}
        self.note = ""
        """What is being waited for."""
        self.failure: TunewrightError | Exception | None = None
        self._stopped = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._waiting: queue.SimpleQueue[HubFile] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def _here(self, file: HubFile) -> int:
        if self.repository.is_here(file):
            return file.size_bytes
        try:
            return min(part_of(self.repository, file).stat().st_size, file.size_bytes)
        except OSError:
            return 0

    @property
    def arrived_bytes(self) -> int:
        return sum(self.arrived.values())

    @property
    def files_done(self) -> int:
        return sum(each.blob in self._whole for each in self.files)

    def start(self) -> None:
        """Begin with the largest files, so that none of them is left over at the end."""
        missing = {each.blob: each for each in self.files if each.blob not in self._whole}
        for each in sorted(missing.values(), key=lambda file: -file.size_bytes):
            self._waiting.put(each)
        for number in range(min(PARALLEL_FILES, len(missing))):
            thread = threading.Thread(target=self._work, name=f"fetching-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for the end, for so long at most; tell whether it is reached."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """End all threads at once, also those that wait for a byte; what has arrived stays."""
        self._stopped.set()
        with self._guard:
            for each in self._sockets:
                with contextlib.suppress(OSError):  # it is closed already
                    socket.socket.shutdown(each, socket.SHUT_RDWR)

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                file = self._waiting.get_nowait()
            except queue.Empty:
                return
            try:
                self._bring(file)
            except Stopped:
                return
            except Exception as error:  # noqa: BLE001  # told by the thread that asked for the transfer
                if not self._stopped.is_set():
                    self.failure = error
                    self.stop()

    def _bring(self, file: HubFile) -> None:
        """Bring one file, from the part that is there to the checked whole."""
        self.repository.blobs.mkdir(parents=True, exist_ok=True)
        with self._alone(file):
            if self.repository.is_here(file):  # another process has brought it
                self.arrived[file.blob] = file.size_bytes
                self._whole.add(file.blob)
                return
            part = part_of(self.repository, file)
            for _ in range(2):
                with part.open("a+b") as out:
                    digest = self._resume(file, out)
                    self._receive(file, out, digest)
                    out.flush()
                    if file.size_bytes >= DURABLE_BYTES:
                        os.fsync(out.fileno())
                if digest() == file.blob:
                    os.replace(part, self.repository.blobs / file.blob)
                    self._whole.add(file.blob)
                    return
                part.unlink()  # a part from elsewhere, or damaged on the way: once more from its first byte
                self.arrived[file.blob] = 0
        raise TunewrightError(
            "Not what the Hub lists",
            f"What {host()} sent for {one_line(file.path, 120)} has another checksum than the Hub lists, twice.",
            "Try again later. If HF_ENDPOINT names a mirror, it may be out of date: try without it.",
        )

    def _resume(self, file: HubFile, out: BinaryIO) -> _Digest:
        """Return the digest of the part that is there; a part longer than the whole is none."""
        have = out.seek(0, os.SEEK_END)
        if have > file.size_bytes:
            have = out.truncate(0)
        digest = _Digest(file)
        out.seek(0)
        while block := out.read(READ_BYTES):
            self._check()
            digest.update(block)
        self.arrived[file.blob] = have
        return digest

    def _receive(self, file: HubFile, out: BinaryIO, digest: _Digest) -> None:
        """Append what is missing, over as many lines as it takes."""
        from huggingface_hub.errors import HfHubHTTPError

        httpx = http_library()
        failed = 0
        while (have := self.arrived[file.blob]) < file.size_bytes:
            problem: Exception | None = None
            pause: float | None = None
            try:
                self._receive_once(file, out, digest)
            except httpx.ProxyError:
                raise
            except httpx.TransportError as error:
                problem = error
            except HfHubHTTPError as error:
                if error.response.status_code not in TRANSIENT:
                    raise
                problem, pause = error, asked_pause(error.response.headers)
            self._check()
            if self.arrived[file.blob] > have:
                failed = 0
                continue
            failed += 1
            if failed >= ATTEMPTS or (pause or 0.0) > LONGEST_PAUSE_SECONDS:
                raise problem or httpx.RemoteProtocolError("the answer ended before its first byte")
            wait = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (failed - 1)) if pause is None else pause
            self.note = f"{host()} {_trouble(problem)}; trying again in {wait:.0f} s"
            if self._stopped.wait(wait):
                raise Stopped

    def _receive_once(self, file: HubFile, out: BinaryIO, digest: _Digest) -> None:
        """Append what one answer holds, which may break off."""
        have = self.arrived[file.blob]
        headers = request_headers()
        if have or file.size_bytes > LARGEST_RANGE_BYTES:
            headers["Range"] = f"bytes={have}-{min(file.size_bytes, have + LARGEST_RANGE_BYTES) - 1}"
        with self._answer(address_of(self.repository, self.commit, file), headers) as response:
            if have and not response.headers.get("content-range", "").startswith(f"bytes {have}-"):
                out.truncate(0)  # the server cannot go on in the middle and sends all of it again
                digest.reset()
                self.arrived[file.blob] = 0
            for block in response.iter_bytes():
                self._check()
                taken = block[: file.size_bytes - self.arrived[file.blob]]
                out.write(taken)
                digest.update(taken)
                self.arrived[file.blob] += len(taken)
                self.note = ""

    @contextmanager
    def _answer(self, url: str, headers: dict[str, str]) -> Generator[httpx.Response]:
        """Ask for `url`, over a line that `stop` can cut."""
        from huggingface_hub import get_session
        from huggingface_hub.utils import hf_raise_for_status

        with get_session().stream("GET", url, headers=headers, timeout=silence_seconds()) as response:
            line = response.extensions["network_stream"].get_extra_info("socket")
            with self._guard:
                if isinstance(line, socket.socket):
                    self._sockets.add(line)
            try:
                self._check()
                hf_raise_for_status(response)
                yield response
            finally:
                with self._guard:
                    self._sockets.discard(line)

    @contextmanager
    def _alone(self, file: HubFile) -> Generator[None]:
        """Keep all other processes from fetching `file`, once they have let go of it."""
        place = self.repository.lock_file(file)
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("a") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    self.note = f"another process is fetching {one_line(file.path, 60)}; waiting for it"
                    if self._stopped.wait(TURN_SECONDS):
                        raise Stopped from None
                except OSError:
                    break  # a file system without locks
            yield

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Stopped

    def explained(self) -> TunewrightError:
        """Return the page for the failure; raises what is no failure of the Hub, the line or the disk."""
        assert self.failure is not None, "the caller has looked"
        return explain(self.failure, self.name, self.repository.kind)


class _Digest:
    """The checksum by which the Hub names a content: SHA-256 of large files, Git's SHA-1 of small ones."""

    def __init__(self, file: HubFile) -> None:
        self._file = file
        self.reset()

    def reset(self) -> None:
        self._hash: Hash
        if len(self._file.blob) == 64:
            self._hash = hashlib.sha256()
        else:
            self._hash = hashlib.sha1(f"blob {self._file.size_bytes}\0".encode(), usedforsecurity=False)

    def update(self, block: bytes) -> None:
        self._hash.update(block)

    def __call__(self) -> str:
        return self._hash.hexdigest()


def part_of(repository: Repository, file: HubFile) -> Path:
    """Return the place of what has arrived of a file that is not whole."""
    return repository.blobs / f"{file.blob}.incomplete"


def address_of(repository: Repository, commit: str, file: HubFile) -> str:
    """Return where the Hub gives a file of a commit."""
    prefix = "" if repository.kind == "model" else "datasets/"
    return f"{endpoint()}/{prefix}{repository.name}/resolve/{commit}/{quote(file.path)}"


def request_headers() -> dict[str, str]:
    """Return the headers of every request: who asks, with the token where there is one; nothing is to be compressed."""
    from huggingface_hub import constants, utils

    from ... import __version__

    constants.HF_HUB_DISABLE_TELEMETRY = True  # as in the trainer: what is installed here is nobody's business
    hub: Any = utils
    headers: dict[str, str] = hub.build_hf_headers(library_name="tunewright", library_version=__version__)
    return {**headers, "Accept-Encoding": "identity"}


def silence_seconds() -> float:
    """Return how long a line may be silent: HF_HUB_DOWNLOAD_TIMEOUT."""
    from huggingface_hub import constants

    return float(constants.HF_HUB_DOWNLOAD_TIMEOUT)


def asked_pause(headers: httpx.Headers) -> float | None:
    """Return for how many seconds the Hub asks to be left alone, None where it does not say."""
    retry = headers.get("retry-after", "").strip()
    if retry.isdigit():
        return float(retry)
    fields = dict(each.strip().partition("=")[::2] for each in headers.get("ratelimit", "").split(";"))
    reset = fields.get("t", "")
    return float(reset) + 1 if fields.get("r") == "0" and reset.isdigit() else None


def _trouble(problem: Exception | None) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(problem, HfHubHTTPError):
        status = problem.response.status_code
        return "asks to slow down" if status == 429 else f"answered with status {status}"
    return "was silent for too long" if isinstance(problem, http_library().TimeoutException) else "broke the line"


def try_often(ask: Callable[[], httpx.Response], cancelled: Callable[[], bool]) -> httpx.Response | None:
    """Return the answer to a short question, asked again while the Hub is busy; None when it was `cancelled`."""
    from huggingface_hub.utils import hf_raise_for_status

    httpx = http_library()
    wait = FIRST_WAIT_SECONDS
    for attempt in range(ATTEMPTS):
        pause: float | None = None
        try:
            response = ask()
            pause = asked_pause(response.headers)
            busy = response.status_code in TRANSIENT and (pause or 0.0) <= LONGEST_PAUSE_SECONDS
            if not busy or attempt == ATTEMPTS - 1:
                hf_raise_for_status(response)
                return response
        except (httpx.ReadError, httpx.RemoteProtocolError):
            if attempt == ATTEMPTS - 1:
                raise
        deadline = time.monotonic() + (wait if pause is None else pause)
        while (left := deadline - time.monotonic()) > 0:
            if cancelled():
                return None
            time.sleep(min(TURN_SECONDS, left))
        wait = min(LONGEST_WAIT_SECONDS, 2 * wait)
    raise AssertionError("the last attempt returns or raises")
