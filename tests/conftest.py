"""Shared by all tests: no network, the same random numbers, command lines that can be called."""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
#: The key that signs recipes, made for these tests alone.
_STATE = tempfile.TemporaryDirectory(prefix="guided-state-")
os.environ["XDG_STATE_HOME"] = _STATE.name

#: No test takes the power away, so none waits for the disk; those of a full disk put in their own.
os.fsync = lambda handle: None

GOLDEN = Path(__file__).resolve().parent / "golden" / "parity"
#: Every attempt to reach another computer, as (event, address).
ATTEMPTS: list[tuple[str, str]] = []
_LOOPBACK = ("localhost", "127.", "::1", "0.0.0.0")


class NetworkTouched(RuntimeError):
    """A test tried to reach another computer."""


def _is_here(host: object) -> bool:
    """Whether an address stays on this computer (also a file system socket, or no host)."""
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    return host is None or not isinstance(host, str) or host == "" or host.startswith(_LOOPBACK)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = arguments[0]
    else:
        return
    if not _is_here(host):
        ATTEMPTS.append((event, str(host)))
        raise NetworkTouched(f"{event} {host}")


sys.addaudithook(_watch)

#: Files of half a minute and more: with several workers they begin first, so that none waits last.
LONG = (
    "tests/api/test_readme.py",
    "tests/worlds/portraits/tasks/test_demo.py",
    "tests/worlds/portraits/training/test_clip_objective.py",
    "tests/zoo/test_foreign_code.py",
    "tests/cli/test_interrupts.py",
    "tests/training/test_distributed.py",
    "tests/tasks/test_every_verb_goes_on.py",
    "tests/recipes/test_shipped.py",
)


def pytest_collection_finish() -> None:
    """What is imported by now stays: leave it out of every later search for garbage."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; the others as they were."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Every test draws the same random numbers in every run, whatever ran before it."""
    import random
    import zlib

    import torch

    seed = zlib.crc32(item.nodeid.encode())
    random.seed(seed)
    torch.manual_seed(seed)


@pytest.fixture(autouse=True)
def no_network() -> Iterator[list[tuple[str, str]]]:
    """Fail any test that tried to reach another computer, even where the error was swallowed."""
    before = len(ATTEMPTS)
    yield ATTEMPTS
    reached = ATTEMPTS[before:]
    del ATTEMPTS[before:]
    assert not reached, f"tried to reach the network: {reached}"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the numbers of the reference implementations are."""
    parser.addoption(
        "--parity",
        default=str(GOLDEN),
        metavar="DIR",
        help="folder with the numbers of the reference implementations (open_clip, zerocap, ...)",
    )


@pytest.fixture(scope="session")
def parity_dir(request: pytest.FixtureRequest) -> Path:
    """The folder given with --parity."""
    return Path(request.config.getoption("--parity")).resolve()


@pytest.fixture(scope="module")
def shared_models() -> Iterator[None]:
    """The runs of a file load no model twice from the same files; see the helper."""
    from tests.helpers.shared_models import sharing

    with sharing():
        yield


@dataclass(frozen=True)
class Said:
    """What a command line gave back."""

    status: int
    out: str
    err: str

    @property
    def answer(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, f"not one line of JSON:\n{self.out}\n{self.err}"
        return json.loads(lines[0])


@pytest.fixture
def guided_cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """``guided_cli("portraits", "--count", 2)`` runs a command line in this process."""

    def call(*words: object) -> Said:
        from guided.cli import main

        capsys.readouterr()
        status = main([str(word) for word in words])
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return call
