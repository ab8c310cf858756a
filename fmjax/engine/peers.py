"""The other processes of a run: what they say, whether they live, and an end for all when one of them ends.

All of it goes over the key-value store of JAX's coordination service, which process 0 keeps.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, NoReturn

from jax.errors import JaxRuntimeError

from fmjax.errors import FmjaxError, exit_code, safe, sentence

BEAT_S = 1.0  # between two signs of life, and two looks at those of the others
LOST_S = 15.0  # without a sign: a process is taken for dead
LINGER_S = 5.0  # that process 0 stays at most, so that the others can read in its store why all end
END_S = 30.0  # within which all have ended after one has: LOST_S, LINGER_S, and beats
DAY_MS = 24 * 3600 * 1000  # as good as forever: the watch ends a process whose peer is gone
AGAIN = "run the same command again on all hosts: training goes on from its last checkpoint"
CODE = (
    75  # of a process whose peer has died: sysexits.h, a failure that passes when it is tried again
)
INTERRUPTED = ("KeyboardInterrupt", "Terminated")  # by a signal, outside of training


@dataclass(frozen=True)
class Fault:
    """Why all processes end: which of them was first, its sentence ("" where it died without one), and the code."""

    process: int
    said: str
    code: int


class Peers:
    """The other processes. `client` is that of JAX's coordination service; `names` are the hosts of all processes."""

    def __init__(self, client: Any, index: int, names: list[str]) -> None:
        self.client, self.index, self.names = client, index, names
        self.before_exit: Callable[[], Any] = lambda: None
        self._calls = count()
        # the signs of life of each process, and when they were last seen to change
        now = time.monotonic()
        self._signs = {other: ("", now) for other in range(len(names)) if other != index}
        self._reached = now
        # places where a run may stop: how many were passed, and the one that all processes stop at
        self._turn = threading.Lock()
        self._passed, self._asked, self._target = 0, False, None
        # whoever ends the process does it alone
        self._ending = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="fmjax-peers", daemon=True)

    def __len__(self) -> int:
        return len(self.names)

    def start(self) -> None:
        """Begins to watch the others."""
        self._thread.start()

    def finish(self) -> None:
        """Waits until all processes have come here, and ends the watch."""
        self.exchanged(None)
        self._done.set()
        self._thread.join()

    def exchanged(self, value: Any) -> list[Any]:
        """What each process says, in their order; all must call this as often, and wait for each other. JSON values."""
        number = next(self._calls)
        self._say(f"said/{number}/{self.index:06}", json.dumps(value))
        self.client.wait_at_barrier(f"fmjax/said/{number}", DAY_MS)
        heard = self._heard(f"said/{number}")
        # all have passed this barrier, so that nobody reads what was said before it any more
        if number:
            self.client.key_value_delete(f"fmjax/said/{number - 1}/{self.index:06}")
        return [json.loads(heard[key]) for key in sorted(heard)]

    def stops(self, *, asked: bool) -> bool:
        """Whether to stop here, at a place that all processes pass in the same order: true for all at the same one,
        soon after any of them was asked to."""
        with self._turn:
            self._passed += 1
            if asked and not self._asked:
                self._asked = True
                self._say(f"stop/{self.index}", "asked")
            return self._target is not None and self._passed >= self._target

    def fail(self, error: BaseException) -> NoReturn:
        """Ends this process by an error, and the others with it."""
        if _is_of_a_peer(error):
            # the connection breaks at once, and a little later it is known whose end has broken it
            time.sleep(LOST_S + 3 * BEAT_S)
        said, code = _last_words(error)
        fault = Fault(self.index, said, code)
        self._end(fault, said if isinstance(error, FmjaxError | OSError) else _traced(error, said))

    def _watch(self) -> None:
        while not self._done.wait(BEAT_S):
            self._look()
            if self._target is None and self._read("stop"):
                self._agree()

    def _look(self) -> None:
        """One sign of life, and a look at those of the others; ends the process where a peer has ended."""
        # every process has its own clock: what counts is when a sign was last seen to change here
        now = time.monotonic()
        self._try(lambda: self._say(f"alive/{self.index}", str(now)))
        alive, faults = self._read("alive"), self._read("fault")
        for fault in faults.values():
            self._leave(Fault(**json.loads(fault)))
        for other, (sign, seen) in self._signs.items():
            found = alive.get(str(other), "")
            if found != sign:
                self._signs[other] = found, now
            elif now - seen > LOST_S and now - self._reached < LOST_S:
                self._leave(Fault(other, "", CODE))
        if time.monotonic() - self._reached > LOST_S:
            self._leave(Fault(0, "", CODE))

    def _agree(self) -> None:
        """Fixes the place to stop at: the next one of the process that is furthest. Nobody passes one meanwhile."""
        with self._turn:
            self._say(f"at/{self.index}", str(self._passed))
            while len(places := self._read("at")) < len(self):
                time.sleep(BEAT_S / 10)
                self._look()
            self._target = max(map(int, places.values())) + 1

    def _leave(self, fault: Fault) -> NoReturn:
        who = f"process {fault.process} ({self.names[fault.process]})"
        if fault.process == self.index:
            time.sleep(END_S)  # this process's own: `fail` ends it
        self._end(fault, f"{who} stopped: {fault.said}" if fault.said else died(who))

    def _end(self, fault: Fault, said: str) -> NoReturn:
        """Says why on the last line, tells the others, and ends the process: a collective call that waits for one who
        is gone cannot be broken off otherwise."""
        self._ending.acquire()
        self._try(lambda: self._say("fault/first", json.dumps(vars(fault)), once=True))
        self._try(lambda: self._say(f"left/{self.index}", ""))
        last = time.monotonic() + LINGER_S
        while self.index == 0 and time.monotonic() < last and not self._all_left(fault):
            time.sleep(BEAT_S / 10)
        sys.stdout.flush()
        sys.stderr.write(f"fmjax: {safe(said)}\n")
        sys.stderr.flush()
        self.before_exit()
        os._exit(fault.code)

    def _all_left(self, fault: Fault) -> bool:
        dead = {fault.process} if not fault.said else set()
        return len(self._read("left").keys() | {str(one) for one in dead}) == len(self)

    def _say(self, key: str, value: str, *, once: bool = False) -> None:
        self.client.key_value_set(f"fmjax/{key}", value, allow_overwrite=not once)

    def _heard(self, key: str) -> dict[str, str]:
        """What is said below a key, by the rest of its name."""
        found = self.client.key_value_dir_get(f"fmjax/{key}")
        return {name.rpartition("/")[2]: value for name, value in found}

    def _read(self, key: str) -> dict[str, str]:
        """The same; nothing where the store cannot be reached."""
        heard: dict[str, str] = {}
        self._try(lambda: heard.update(self._heard(key)))
        return heard

    def _try(self, call: Callable[[], Any]) -> None:
        try:
            call()
            self._reached = time.monotonic()
        except JaxRuntimeError as error:
            # the answer that a key is there already has reached us too
            if "ALREADY_EXISTS" in str(error) or "NOT_FOUND" in str(error):
                self._reached = time.monotonic()


def died(who: str) -> str:
    """The sentence for a process that is gone without a word."""
    return f"{who} died; {AGAIN}"


def _is_of_a_peer(error: BaseException) -> bool:
    """Whether a call failed because it needs another process."""
    text = str(error)
    of_xla = isinstance(error, JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in text
    return of_xla or any(word in text for word in ("Gloo", "NCCL", "coordination service"))


def _last_words(error: BaseException) -> tuple[str, int]:
    """The sentence and the exit code of an error."""
    kind = type(error).__name__
    if isinstance(error, Exception) and (code := exit_code(error)) is not None:
        return sentence(error), code
    if kind in INTERRUPTED:
        return "stopped by a signal; run the same command to go on", CODE
    words = " ".join(str(error).split())[:300]
    return f"{kind}: {words}" if words else kind, 1


def _traced(error: BaseException, said: str) -> str:
    """A bug's traceback, and its sentence as the last line; an interruption has none."""
    if type(error).__name__ in INTERRUPTED:
        return said
    return "".join(traceback.format_exception(error)) + f"fmjax: {said}"
