"""An environment's settings, and an app as it runs in an environment."""

import pytest

from agent.errors import SettingsError
from agent.model.environment import LOCAL_DEFAULTS, EnvironmentSettings, RollbackSettings, RollingSettings, Share
from agent.model.process import AppSpec
from agent.settings.appfile import load_app
from agent.settings.environment import in_environment, load_environment
from agent.settings.procfile import load_procfile

FILE = "production.toml"
SHOP = load_app(
    'app = "shop"\n[process.web]\ncommand = "w"\nlisten = ["0.0.0.0:80"]\n[process.worker]\ncommand = "x"\n',
    "rollway.toml",
)
PROCFILE_SHOP = load_procfile("web: serve\n", "Procfile", SHOP.app)


def test_an_empty_file_is_the_defaults() -> None:
    """Every key of an environment can be left out."""
    assert load_environment("", FILE) == EnvironmentSettings()


def test_every_key_reaches_its_setting() -> None:
    """Hosts, counts, addresses and both paces are what the file says."""
    text = """
        hosts = ["h1", "h2"]
        strategy = "rolling"
        scale = { web = 0 }
        listen = { web = ["[::1]:80"] }
        [rolling]
        batch = 3
        max_unavailable = "50%"
        min_ready = "1s"
        deadline = "2m"
        progress_deadline = "3m"
        on_failure = "pause"
        pause_between = "4s"
        [rollback]
        batch = "20%"
        max_unavailable = 5
    """
    assert load_environment(text, FILE) == EnvironmentSettings(
        hosts=("h1", "h2"),
        scale={SHOP.processes[0].name: 0},
        listen={SHOP.processes[0].name: ("[::1]:80",)},
        rolling=RollingSettings(
            batch=Share(count=3),
            max_unavailable=Share(percent=50),
            min_ready_ms=1_000,
            deadline_ms=120_000,
            progress_deadline_ms=180_000,
            on_failure="pause",
            pause_between_ms=4_000,
        ),
        rollback=RollbackSettings(batch=Share(percent=20), max_unavailable=Share(count=5)),
    )


def test_local_settings_keep_the_quick_defaults_for_what_the_file_leaves_out() -> None:
    """`rollway env set shop local` with one key does not make `local` slow."""
    local = load_environment("[rolling]\nbatch = 1\n", FILE, LOCAL_DEFAULTS)
    assert (local.rolling.batch, local.rolling.min_ready_ms, local.rolling.deadline_ms) == (
        Share(count=1),
        1_000,
        30_000,
    )
    assert local.linger_ms == 2_000


WRONG: dict[str, tuple[str, tuple[str, ...]]] = {
    "an unknown key": (
        "[rolling]\nbatches = 1\n",
        ("production.toml:2: rolling.batches: expected a known key", '"batch"'),
    ),
    "an unknown table": ("[role]\n", (":1: role: expected", "unknown key")),
    "linger, which belongs to the app": ('linger = "1s"\n', (":1: linger:", "unknown key")),
    "promotion": ('requires = ["staging"]\n', (":1: requires:", "not supported by this version of Rollway")),
    "a freeze": ('[[freeze]]\nfor = "1h"\n', (":1: freeze:", "not supported by this version")),
    "blue-green": ('strategy = "blue-green"\n', (':1: strategy: expected "rolling"', "not supported by this version")),
    "a strategy that nobody has": ('strategy = "yolo"\n', (":1: strategy: expected", 'found "yolo"')),
    "a first batch": ("[rolling]\nfirst = 1\n", (":2: rolling.first:", "not supported by this version")),
    "a batch of no host": (
        "[rolling]\nbatch = 0\n",
        (":2: rolling.batch: expected a number of hosts from 1", "found 0"),
    ),
    "a batch of no part": ('[rolling]\nbatch = "0%"\n', (":2: rolling.batch: expected", 'found "0%"')),
    "a batch of more than all": ('[rolling]\nbatch = "101%"\n', ("rolling.batch: expected", 'found "101%"')),
    "a batch without a sign": ('[rolling]\nbatch = "25"\n', ("rolling.batch: expected", 'found "25"')),
    "a batch that is true": ("[rolling]\nbatch = true\n", ("rolling.batch: expected", "found true")),
    "a host list with nobody": ("hosts = []\n", (":1: hosts: expected labels such as", "found an empty list")),
    "labels that ask nothing": ("hosts = {}\n", (":1: hosts: expected at least one label", "found an empty table")),
    "a host by its capital": ('hosts = ["H1"]\n', (":1: hosts[0]: expected a host name", 'found "H1"')),
    "a label that is a number": ("hosts = { rack = 3 }\n", (":1: hosts.rack: expected a string", "found 3")),
    "a scale below nothing": ("[scale]\nweb = -1\n", (":2: scale.web: expected an integer from 0", "found -1")),
    "no address to listen on": (
        "[listen]\nweb = []\n",
        (":2: listen.web: expected a list of at least 1", "found an empty list"),
    ),
    "a deadline that cannot be met": (
        '[rolling]\ndeadline = "10s"\n',
        (":2: rolling.deadline: expected more than min_ready",),
    ),
    "no progress sooner than a host": (
        '[rolling]\nprogress_deadline = "1m"\n',
        (":2: rolling.progress_deadline: expected at least deadline",),
    ),
    "a word for on_failure": (
        '[rolling]\non_failure = "retry"\n',
        (':2: rolling.on_failure: expected "rollback" or "pause"', '"retry"'),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_by_place_expectation_and_finding(case: str) -> None:
    """Each mistake is told with the file, the line, the key path, what was expected and what was found."""
    text, fragments = WRONG[case]
    with pytest.raises(SettingsError) as caught:
        load_environment(text, FILE)
    for fragment in fragments:
        assert fragment in caught.value.error


def test_an_app_takes_counts_addresses_and_linger_of_its_environment() -> None:
    """The environment is over the app's own values, and touches nothing else of it."""
    settings = load_environment("scale = { worker = 7 }\nlisten = { web = ['127.0.0.1:9000'] }\n", FILE, LOCAL_DEFAULTS)
    web, worker = in_environment(SHOP, settings, FILE).processes
    assert (web.count, web.listen, web.stop.linger_ms) == (1, ("127.0.0.1:9000",), 2_000)
    assert (worker.count, worker.listen, worker.stop.linger_ms) == (7, (), 2_000)
    assert in_environment(SHOP, EnvironmentSettings(), FILE) == SHOP


DOES_NOT_FIT: dict[str, tuple[AppSpec, str, str]] = {
    "a count for a type that the app lacks": (
        SHOP,
        "[scale]\napi = 1\n",
        "scale.api: expected a process type of shop: web, worker",
    ),
    "an address for a type that the app lacks": (
        SHOP,
        "[listen]\napi = ['0.0.0.0:1']\n",
        "listen.api: expected a process type",
    ),
    "an address for a type that takes none": (
        SHOP,
        "[listen]\nworker = ['0.0.0.0:1']\n",
        "listen.worker: expected a process type that",
    ),
    "two instances of what binds its own port": (
        PROCFILE_SHOP,
        "[scale]\nweb = 2\n",
        "process.web.count: expected at most 1",
    ),
}


@pytest.mark.parametrize("case", DOES_NOT_FIT)
def test_settings_that_do_not_fit_the_app_are_refused(case: str) -> None:
    """A rollout with settings made for another app fails before it begins."""
    spec, text, fragment = DOES_NOT_FIT[case]
    with pytest.raises(SettingsError) as caught:
        in_environment(spec, load_environment(text, FILE), FILE)
    assert f"{FILE}: {fragment}" in caught.value.error
