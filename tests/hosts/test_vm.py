"""Cgroup v2 with the controllers on, as every real Debian 12 host has it."""

from pathlib import Path

import pytest

from tests.hosts.fleet import Fleet
from tests.hosts.vm import run_as_vm

SCRIPT = """
until_so() {
    until "$@"; do
        if [ $SECONDS -ge 150 ]; then echo "not so: $*"; journalctl -b -n 40; exit 1; fi
        sleep 0.2
    done
}
serves() { curl -sm 5 http://127.0.0.1:8080/ | grep -q version; }
pid() { systemctl show -P MainPID rollway-agent; }
runs_anew() { test "$(systemctl show -P SubState rollway-agent)" = running && test "$(pid)" != "$was"; }
instances() { cat hello.production.web.*/cgroup.procs | tr '\\n' ' '; }
cd /sys/fs/cgroup/system.slice
until_so serves
cd rollway-apps.service
echo "on: $(cat cgroup.subtree_control)"
echo "bounded: $(ls hello.production.web.*/memory.max hello.production.web.*/pids.max | wc -l)"
echo "before: $(instances)"
was=$(pid); kill -KILL $was; until_so runs_anew; echo "killed: $(instances)"
serves && echo "serves: yes"
leaf=$(ls -d hello.production.limited.*)
main() { cat $leaf/cgroup.procs; }
wants() { install -o daemon /dev/null /tmp/.wish; mv /tmp/.wish /tmp/$1; }
tells() { journalctl -b --no-pager -o cat -u rollway-agent | grep -q "$1"; }
restarted() { now=$(main 2>/dev/null); test -n "$now" -a "$now" != "$was"; }
bounds() { (cd $leaf; cat memory.max memory.swap.max memory.oom.group pids.max cpu.max) | tr '\\n' ' '; }
echo "user: $(stat -c %U /proc/$(main))"
echo "limits: $(bounds)"
wants fork; until_so tells '"message":"fork: 19"'; echo "forks: under the limit"
install -o daemon /dev/null /var/tmp/old
wants stray; until_so tells '"message":"stray: EROFS EROFS"'
echo "kept in: $(rollway agent check | grep -o 'writable is .*')"
echo -500 >/proc/$(pid)/oom_score_adj
was=$(main); wants eat; until_so tells 'how":"ran out of memory",.*"reason":"oom"'; until_so restarted
echo "spared: $(cat /proc/$(main)/oom_score_adj)"
was=$(main); wants eat; until_so tells 'how":"ran out of memory and was ended by SIGKILL",.*"reason":"oom"'
until_so restarted; echo "oom: told twice"
echo "again: $(bounds)"
serves && echo "beside: served"
echo "failed: $(journalctl -b --no-pager | grep -c -e 219/CGROUP -e 'Failed with result .resources' || true)"
"""


@pytest.mark.timeout(400)
@pytest.mark.xdist_group("virtual machine")
def test_an_agent_comes_back_where_controllers_are_on(fleet: Fleet, tmp_path: Path) -> None:
    """With memory and pids controllers on for the instances, a killed agent starts again and they live on.

    The disk of a host that serves is booted without a network: what ran comes back without the coordinator. An instance
    that starts more processes than it may gets none, and it writes nothing but below its folder. One of which a process
    eats more memory than it may ends as a whole, which is told, also by an agent that did not start it; it comes back
    with its limits, and is not spared where memory runs out, though its agent is.
    """
    host = fleet.hosts[1]
    host.stop()
    try:
        printed = run_as_vm(host, SCRIPT, tmp_path)
    finally:
        host.boot()
    said = dict(line.split(": ", 1) for line in printed.splitlines() if ": " in line)
    assert {"memory", "pids"} <= set(said["on"].split()), printed
    assert said["bounded"] == "4", printed
    assert len(said["before"].split()) == 2, printed
    assert said["before"] == said["killed"], printed
    assert (said["serves"], said["failed"]) == ("yes", "0"), printed
    assert said["limits"].split() == [str(64 << 20), "0", "1", "20", "50000", "100000"], printed
    assert said["spared"] == "0", printed
    assert said["again"] == said["limits"], printed
    assert said["user"] == "daemon", printed
    # The kernel of Debian 12 knows no truncate by Landlock alone.
    assert said["kept in"] == "writable is kept: Landlock 2, mounts of its own", printed
    assert (said["forks"], said["oom"], said["beside"]) == ("under the limit", "told twice", "served"), printed
    fleet.serves(host)
    fleet.connects(host)
