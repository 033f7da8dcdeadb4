"""Whether this host can give instances what their types ask for: asked before anything moves, and at each start.

Blocking: the system's databases of users may be asked, and cgroups are tried out. Failures are OSErrors.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from agent.linux import cgroup
from agent.model.process import ProcessType, ReleaseCommand
from agent.supervisor import limits, sandbox
from agent.supervisor.sandbox import user_of


def refusal(cgroup_root: Path | None, types: Iterable[ProcessType | ReleaseCommand]) -> str:
    """Why instances of one of these cannot be started on this host, or nothing."""
    with cgroup.trial(cgroup_root) if cgroup_root else contextlib.nullcontext() as leaf:
        for given in types:
            user = user_of(given.sandbox)
            if refused := limits.refusal(limits.put(leaf, given.limits), given.limits):
                return refused
            if isinstance(user, str):
                return user
            if refused := sandbox.refusal(given.sandbox):
                return refused
    return ""
