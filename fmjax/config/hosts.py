"""The processes that work as one, where there are several."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fmjax.config.checks import require

AUTO = "auto"
ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):(\d{1,5})")
FLAGS = ("coordinator", "count", "index")


@dataclass(frozen=True, kw_only=True)
class HostsConfig:
    """Processes that compute together, one or more on each host. `srun` and `mpirun` say all of it themselves, so that
    no flag is needed there; without them, and without flags, a process works alone."""

    # HOST:PORT of the first one; "auto" asks the cluster (a Kubernetes JobSet, a Cloud TPU)
    coordinator: str = ""
    count: int = 0  # how many there are; 0 is what the launcher says, 1 is this one alone
    index: int = -1  # which of them this one is, from 0; -1 is what the launcher says
    join_timeout_s: int = 300  # for all of them to be there

    def __post_init__(self) -> None:
        place, port = self.coordinator, ADDRESS.fullmatch(self.coordinator)
        known = place in ("", AUTO) or (port is not None and 0 < int(port[2]) < 65536)
        require(known, "--hosts.coordinator", place, "HOST:PORT, or auto")
        require(self.count >= 0, "--hosts.count", self.count, "1 or more")
        require(self.index >= -1, "--hosts.index", self.index, "0 or more")
        timeout = self.join_timeout_s
        require(timeout >= 1, "--hosts.join-timeout-s", timeout, "1 or more")
        below = self.index < max(self.count, 1) or not self.count
        require(below, "--hosts.index", self.index, f"below --hosts.count {self.count}")
