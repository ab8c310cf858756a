"""Several processes that work as one: joined by JAX, they say the same, write once, and end together.

One process stays as it is: nothing here waits, or asks anybody.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax

from fmjax.config.hosts import HostsConfig
from fmjax.console import console
from fmjax.engine import last_words
from fmjax.engine.launchers import Place, place
from fmjax.engine.peers import Peers, died
from fmjax.errors import Stopped, UsageError, safe

# as JAX's own, of which a process has one
_peers: Peers | None = None


@contextmanager
def joined(config: HostsConfig) -> Iterator[None]:
    """The processes that a launcher or the flags tell of, as one: an error of one ends all, with its sentence.

    To be entered before a device is used. Raises UsageError where they cannot be joined.
    """
    global _peers
    where = place(config, os.environ)
    if where is None or _peers is not None:
        yield
        return
    # from here on all end together: an error of one, whatever it is, must not leave the others waiting
    _initialise(where, config)
    _peers = _met()
    console.quiet = not is_first()
    with last_words.kept(died(name(0)), _address()) as _peers.before_exit:
        _peers.start()
        try:
            yield
            _peers.finish()
        except Stopped:
            _peers.finish()
            raise
        except BaseException as error:
            _peers.fail(error)


def is_first() -> bool:
    """Whether this process writes and prints for all."""
    return _peers is None or _peers.index == 0


def exchanged(value: Any) -> list[Any]:
    """What each process says, in their order. value: as JSON has it."""
    return [value] if _peers is None else _peers.exchanged(value)


def by_first(work: Callable[[], Any]) -> Any:
    """Does it in the first process, while the others wait; what it returns is, as JSON has it, returned to all."""
    return exchanged(work() if is_first() else None)[0]


def stop_here(asked: bool) -> bool:
    """Whether to stop at this place, which all processes pass: they do it at the same one, whoever was asked."""
    return asked if _peers is None else _peers.stops(asked=asked)


def name(index: int) -> str:
    """A process in words."""
    return f"process {index} ({_peers.names[index] if _peers else socket.gethostname()})"


def _initialise(where: Place, config: HostsConfig) -> None:
    seconds = config.join_timeout_s
    address = where.coordinator or "the address that the launcher gives"
    # JAX ends the process without a sentence where the time is over, so ours is over before
    timer = threading.Timer(seconds, _not_joined, [where, address, seconds])
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            where.coordinator,
            where.count,
            where.index,
            where.local_devices,
            initialization_timeout=seconds + 60,
        )
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(
            f"the processes cannot be joined at {address}: {reason}; pass --hosts.coordinator HOST:PORT, --hosts.count "
            f"and --hosts.index, or --hosts.count 1 for this process alone"
        ) from error
    finally:
        timer.cancel()
    if threading.current_thread() is threading.main_thread():
        # JAX has put its own in the place of what the process does when it is asked to end
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _not_joined(where: Place, address: str, seconds: int) -> None:
    who = f"process {where.index} of {where.count}"
    lacking = "process 0 cannot be reached" if where.index else "not all of them came"
    said = (
        f"{who} waited {seconds} s at {address} for the others: {lacking}; start all of them, see that the port is "
        f"open, or pass a longer --hosts.join-timeout-s"
    )
    os.write(2, f"fmjax: {safe(said)}\n".encode())
    os._exit(2)


def _met() -> Peers:
    """The processes that have joined, by the names of their hosts."""
    state = _service()
    # by the same exchange that all later ones take
    alone = Peers(state.client, state.process_id, [""] * state.num_processes)
    names = alone.exchanged(socket.gethostname())
    alone.names = names
    return alone


def _address() -> str:
    return str(_service().coordinator_address)


def _service() -> Any:
    """JAX's side of the coordination service, whose store has no public door; Orbax takes this one too."""
    from jax._src import distributed

    return distributed.global_state
