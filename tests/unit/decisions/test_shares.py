"""`total = N`: so many in the environment, over the hosts that there are."""

from hypothesis import given
from hypothesis import strategies as st

from agent.decisions import shares
from agent.decisions.shares import LOST_MS, Table, spread
from agent.model.ids import AppName, EnvironmentName, HostName, ProcessName
from agent.model.lease import WITHOUT_END, LeaseAsk, LeaseName

NAME = LeaseName(AppName("shop"), EnvironmentName("production"), ProcessName("worker"))
H1, H2, H3 = HOSTS = tuple(HostName(f"h{number}") for number in range(1, 4))


class Story:
    """A table as hosts ask one after the other."""

    def __init__(self, total: int, table: Table | None = None) -> None:
        self.total, self.table = total, table or Table()

    def asks(self, host: HostName, now_ms: int, *, wants: bool = True, expected: tuple[HostName, ...] = ()) -> int:
        ask = LeaseAsk(name=NAME, hold_ms=WITHOUT_END, total=self.total)
        told = shares.asked(self.table, host, (ask,) if wants else (), {NAME[:2]: expected}, now_ms)
        self.table = told.table
        return sum(answer.share for answer in told.answers)

    @property
    def all(self) -> dict[HostName, int]:
        return dict(self.table.shares[NAME])


def test_hosts_that_come_take_their_part() -> None:
    """The first has all, until others are there; then nobody has two more than another."""
    story = Story(3)
    assert story.asks(H1, 0) == 3
    assert story.asks(H2, 1) == 1
    assert story.asks(H1, 2) == 2
    assert story.asks(H3, 3) == 1
    assert story.all == {H1: 1, H2: 1, H3: 1}


def test_the_first_host_of_a_rollout_does_not_run_all() -> None:
    """Those that will move soon have their part left to them; one that never came is not waited for any more."""
    story = Story(6)
    assert story.asks(H2, 0, expected=HOSTS) == 2
    assert story.asks(H1, 1, expected=HOSTS) == 2
    assert story.asks(H1, 2) == 3
    assert story.all == {H1: 3, H2: 3}


def test_a_host_that_is_lost_leaves_its_part_to_others() -> None:
    """Not heard for a minute it counts no more; a shorter absence moves nothing."""
    story = Story(4)
    story.asks(H1, 0)
    story.asks(H2, 0)
    assert story.asks(H1, LOST_MS - 1) == 2
    assert story.asks(H1, LOST_MS) == 4
    assert story.asks(H2, LOST_MS + 1) == 2, "back again it gets a part"


def test_a_host_that_is_drained_leaves_its_part_at_once() -> None:
    """Who would have none has none."""
    story = Story(4)
    story.asks(H1, 0)
    story.asks(H2, 0)
    story.asks(H2, 1, wants=False)
    assert story.all == {H1: 4}


def test_a_coordinator_that_starts_moves_nothing() -> None:
    """What is stored stays where it is while hosts come back."""
    story = Story(4, shares.opened({NAME: {H1: 1, H2: 2, H3: 1}}, 0))
    assert story.asks(H3, 5) == 1
    assert story.asks(H1, 6) == 1
    assert story.all == {H1: 1, H2: 2, H3: 1}


@given(st.integers(0, 40), st.sets(st.sampled_from([f"h{n}" for n in range(8)]), min_size=1), st.data())
def test_all_are_placed_evenly_and_stay_where_they_can(total: int, names: set[str], data: st.DataObject) -> None:
    """The sum is the total, no host has two more than another, and asking again moves nothing."""
    hosts = [HostName(name) for name in sorted(names)]
    before = {HostName(name): data.draw(st.integers(0, 9)) for name in sorted(names | {"h9"})}
    after = spread(total, hosts, before)
    counts = [after.get(host, 0) for host in hosts]
    assert (sum(counts), max(counts) - min(counts) <= 1) == (total, True)
    assert spread(total, hosts, after) == after
    least = total // len(hosts)
    assert all(after.get(host, 0) >= min(before.get(host, 0), least) for host in hosts)
