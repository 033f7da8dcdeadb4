"""`agent.toml` and `coordinator.toml`: defaults, and how each mistake is told."""

from collections.abc import Callable

import pytest

from agent.errors import SettingsError
from agent.model.ids import EnvironmentName, HostName
from agent.model.roles import AgentSettings, CoordinatorSettings, TlsFiles
from agent.settings.agentfile import load_agent
from agent.settings.coordinatorfile import load_coordinator

AGENT = 'name = "h1"\ncoordinators = ["https://c.example:7070"]\n'


def test_an_agent_needs_a_name_and_a_coordinator() -> None:
    """Two keys are a whole file; the rest lies where a system's files lie."""
    agent = load_agent(AGENT, "agent.toml")
    assert agent == AgentSettings.below(HostName("h1"), ("https://c.example:7070",))
    assert (agent.state_dir, agent.run_dir, agent.address) == ("/var/lib/rollway", "/run/rollway", None)
    assert agent.environments == ()


def test_one_key_moves_all_state_of_an_agent() -> None:
    """Keys and certificates follow `state_dir` unless they are named themselves."""
    agent = load_agent(f'{AGENT}state_dir = "/d"\n[tls]\nkey = "/k.pem"\n', "agent.toml")
    assert (agent.tls.ca, agent.tls.certificate, agent.tls.key) == ("/d/tls/ca.pem", "/d/tls/certificate.pem", "/k.pem")
    assert agent.age_key == "/d/age.key"


def test_an_empty_file_is_a_whole_coordinator() -> None:
    """Every key of a coordinator has a default."""
    assert load_coordinator("", "coordinator.toml") == CoordinatorSettings.below()


def test_one_key_moves_all_state_of_a_coordinator() -> None:
    """Database, builds and certificates follow `state_dir`."""
    moved = load_coordinator('state_dir = "/d"\n', "coordinator.toml")
    assert (moved.database, moved.store, moved.tls.ca) == (
        "sqlite:////d/coordinator.db",
        "file:///d/store",
        "/d/tls/ca.pem",
    )


Loader = Callable[[str, str], object]
WRONG: dict[str, tuple[Loader, str, tuple[str, ...]]] = {
    "an agent without a name": (
        load_agent,
        'coordinators = ["https://c:1"]\n',
        ("F: name: expected a host name", "found nothing"),
    ),
    "an agent without a coordinator": (
        load_agent,
        'name = "h1"\n',
        ("F: coordinators: expected a list", "found nothing"),
    ),
    "an agent with none": (
        load_agent,
        'name = "h1"\ncoordinators = []\n',
        ("F:2: coordinators: expected a list of at least 1",),
    ),
    "a link without TLS": (
        load_agent,
        'name = "h1"\ncoordinators = ["http://c:1"]\n',
        ("F:2: coordinators[0]: expected a URL such as",),
    ),
    "a coordinator with a path": (
        load_agent,
        'name = "h1"\ncoordinators = ["https://c:1/x"]\n',
        ("F:2: coordinators[0]: expected a URL",),
    ),
    "a port that is none": (
        load_agent,
        'name = "h1"\ncoordinators = ["https://c:99999"]\n',
        ("F:2: coordinators[0]: expected a URL",),
    ),
    "half an IPv6 address": (
        load_agent,
        'name = "h1"\ncoordinators = ["https://[::1"]\n',
        ("F:2: coordinators[0]: expected a URL",),
    ),
    "a password in a URL": (
        load_agent,
        'name = "h1"\ncoordinators = ["https://a:b@c"]\n',
        ("F:2: coordinators[0]: expected a URL",),
    ),
    "a relative folder": (
        load_agent,
        f'{AGENT}state_dir = "x"\n',
        ("F:3: state_dir: expected an absolute path", 'found "x"'),
    ),
    "a folder that climbs": (
        load_agent,
        f'{AGENT}state_dir = "/x/../y"\n',
        ("F:3: state_dir: expected an absolute path",),
    ),
    "an address that is a name": (
        load_agent,
        f'{AGENT}address = "h1"\n',
        ("F:3: address: expected an IP address", 'found "h1"'),
    ),
    "an environment with a capital": (
        load_agent,
        f'{AGENT}environments = ["Prod"]\n',
        ("F:3: environments[0]: expected a name",),
    ),
    "an empty label": (load_agent, f'{AGENT}[labels]\nzone = ""\n', ("F:4: labels.zone: expected a string",)),
    "a ring of nothing": (
        load_agent,
        f'{AGENT}[logs]\nring = "1KiB"\n',
        ('F:4: logs.ring: expected a size from "16KiB" to "64MiB"', 'found "1KiB"'),
    ),
    "logs that are thrown away": (
        load_agent,
        f'{AGENT}[logs]\non_full = "ignore"\n',
        ('F:4: logs.on_full: expected "block" or "drop"', 'found "ignore"'),
    ),
    "no launch at all": (
        load_agent,
        f"{AGENT}[limits]\nlaunches = 0\n",
        ("F:4: limits.launches: expected", "found 0"),
    ),
    "an agent-check by name": (
        load_agent,
        f'{AGENT}[drivers.haproxy]\nagent_check = ["h1:7072"]\n',
        ("F:4: drivers.haproxy.agent_check[0]: expected an address",),
    ),
    "a driver that is none": (load_agent, f"{AGENT}[drivers.nginx]\nx = 1\n", ("drivers.nginx",)),
    "downloads at once": (
        load_agent,
        f"{AGENT}[limits]\ndownloads = 2\n",
        ("F:4: limits.downloads:", "not supported by this version of Rollway"),
    ),
    "a misspelled key of an agent": (
        load_agent,
        f'{AGENT}stat_dir = "/x"\n',
        ("F:3: stat_dir: expected a known key", '"state_dir"'),
    ),
    "a coordinator that listens nowhere": (
        load_coordinator,
        "listen = []\n",
        ("F:1: listen: expected a list of at least 1",),
    ),
    "a relative database": (
        load_coordinator,
        'database = "sqlite:///x.db"\n',
        ("F:1: database: expected a URL such as",),
    ),
    "a relative store": (load_coordinator, 'store = "file://x"\n', ("F:1: store: expected a URL such as",)),
    "a database option": (
        load_coordinator,
        'database = "sqlite:////x.db?mode=ro"\n',
        ("F:1: database: expected a URL",),
    ),
    "S3": (
        load_coordinator,
        'store = "s3://b"\n',
        ("F:1: store: expected", "not supported by this version of Rollway"),
    ),
    "retention": (load_coordinator, "[retention]\n", ("F:1: retention:", "not supported by this version")),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_by_place_expectation_and_finding(case: str) -> None:
    """Each mistake is told with the file, the line, the key path, what was expected and what was found."""
    load, text, fragments = WRONG[case]
    with pytest.raises(SettingsError) as caught:
        load(text, "F")
    for fragment in fragments:
        assert fragment in caught.value.error


def test_the_password_of_a_refused_database_is_not_shown() -> None:
    """An error about a database URL may be logged: it holds no password."""
    with pytest.raises(SettingsError) as caught:
        load_coordinator('database = "postgresql+psycopg://u:SECRET123@h/d"\n', "F")
    assert "F:1: database: expected" in caught.value.error
    assert "not supported by this version of Rollway" in caught.value.error
    assert "SECRET123" not in str(caught.value)


def test_every_key_of_an_agent_reaches_its_setting() -> None:
    """Labels, environments, folders and files are what the file says."""
    text = f"""{AGENT}
        environments = ["staging", "local"]
        state_dir = "/s"
        run_dir = "/r"
        address = "10.0.0.5"
        labels = {{ role = "web" }}
        http.listen = []
        tls = {{ ca = "/a", certificate = "/b", key = "/c" }}
        identity.age_key = "/d"
        logs.ring = "1MiB"
        logs.on_full = "drop"
        limits.launches = 3
        drivers.haproxy.agent_check = ["10.0.0.5:7072"]
    """
    assert load_agent(text, "agent.toml") == AgentSettings(
        name=HostName("h1"),
        coordinators=("https://c.example:7070",),
        labels={"role": "web"},
        environments=(EnvironmentName("staging"), EnvironmentName("local")),
        state_dir="/s",
        run_dir="/r",
        address="10.0.0.5",
        http_listen=(),
        tls=TlsFiles(ca="/a", certificate="/b", key="/c"),
        age_key="/d",
        logs_on_full="drop",
        ring_bytes=1 << 20,
        launches=3,
        agent_check=("10.0.0.5:7072",),
    )
