"""`rollway init`: what a folder shows becomes a rollway.toml that holds, says whence it is, and invents nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.ids import AppName
from agent.model.process import AppSpec, ProcessType
from agent.settings.appfile import load_app
from agent.settings.guess.app import name_of, sketch

MANAGE = 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")\n'
FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"
FLASK = "import flask\nsite: flask.Flask = flask.Flask(__name__)\n"
UV = '[project]\nname = "My_Shop"\ndependencies = ["fastapi>=0.1", "uvicorn[standard]"]\n'
LIB = "env PYTHONPATH=lib python3 -m"


def guessed(tree: dict[str, str], folder: str = "shop") -> AppSpec:
    """The app that the file for `tree` declares."""
    return load_app(sketch(tree, folder).text, "rollway.toml")


def the(spec: AppSpec, name: str) -> ProcessType:
    found = spec.process(name)
    assert found is not None
    return found


SERVED = {
    "Django with gunicorn": (
        {"manage.py": MANAGE, "requirements.txt": "Django\ngunicorn==23\n"}, f"{LIB} gunicorn mysite.wsgi", "fd",
    ),
    "Django with uvicorn": (
        {"manage.py": MANAGE, "requirements.txt": "django\nuvicorn\n"},
        f"{LIB} uvicorn mysite.asgi:application --fd {{fd}}", "fd",
    ),
    "FastAPI": ({"main.py": FASTAPI, "pyproject.toml": UV}, f"{LIB} uvicorn main:app --fd {{fd}}", "fd"),
    "FastAPI in a package": (
        {"shop/api/main.py": FASTAPI}, f"{LIB} uvicorn shop.api.main:app --fd {{fd}}", "fd"
    ),
    "FastAPI in src": (
        {"src/shop/__init__.py": FASTAPI}, "env PYTHONPATH=lib:src python3 -m uvicorn shop:app --fd {fd}", "fd"
    ),
    "not an app of the tests": (
        {"tests/app.py": FASTAPI, "src/shop/api/main.py": FASTAPI},
        "env PYTHONPATH=lib:src python3 -m uvicorn shop.api.main:app --fd {fd}", "fd",
    ),
    "Flask": ({"app.py": FLASK, "requirements.txt": "flask\ngunicorn"}, f"{LIB} gunicorn app:site", "fd"),
    "Flask with a factory": (
        {"shop/__init__.py": "def create_app():\n", "requirements.txt": "flask"},
        f"{LIB} gunicorn 'shop:create_app()'", "fd",
    ),
    "Rails": ({"Gemfile": "gem 'rails'", "config/puma.rb": ""}, "bundle exec puma -C config/puma.rb", "port"),
    "Rack": ({"Gemfile": 'gem "puma"', "config.ru": ""}, "bundle exec puma -p {port}", "port"),
    "Node": ({"package.json": '{"scripts": {"start": "node server.js"}}'}, "node server.js", "port"),
    "Node without a script": ({"package.json": "{}", "index.js": ""}, "node index.js", "port"),
    "a start script that is no node": (
        {"package.json": '{"scripts": {"start": "next start"}}'},
        'export PATH="$PWD/node_modules/.bin:$PATH"; exec next start', "port",
    ),
    "Go": ({"go.mod": "module example.com/ada/shop/v2\n", "main.go": ""}, "bin/shop", "port"),
    "Go with cmd": ({"go.mod": "module shop\n", "cmd/api/main.go": "", "cmd/shop/main.go": ""}, "bin/shop", "port"),
    "Rust": ({"Cargo.toml": '[package]\nname = "shop"', "src/main.rs": ""}, "bin/shop", "port"),
    "a Procfile for gunicorn": (
        {"Procfile": "web: gunicorn shop:app -b 0.0.0.0:$PORT --workers 3\n"}, "gunicorn shop:app --workers 3", "fd",
    ),
    "a Procfile for uvicorn": (
        {"Procfile": "web: exec uvicorn a:app --host=0.0.0.0 --port ${PORT:-80}\n"}, "uvicorn a:app --fd {fd}", "fd",
    ),
    "a Procfile with $PORT": ({"Procfile": "web: node server.js -p $PORT"}, "node server.js -p {port}", "port"),
    "a Procfile with a variable": ({"Procfile": "web: NODE_ENV=x node a.js"}, "env NODE_ENV=x node a.js", "port"),
    "a Procfile for a shell": ({"Procfile": "web: cd site && serve $PORT"}, "cd site && serve $PORT", "port"),
    "a Procfile that reloads": (
        {"Procfile": "web: uvicorn a:b --reload --port $PORT"}, "uvicorn a:b --reload --port {port}", "port"
    ),
    "nothing": ({"README.md": "hello"}, "bin/web", "port"),
}  # fmt: skip


@pytest.mark.parametrize(("tree", "command", "bind"), SERVED.values(), ids=list(SERVED))
def test_how_it_is_served(tree: dict[str, str], command: str, bind: str) -> None:
    """By a socket that it is handed where its server takes one, by a port of its own where nobody knows better."""
    web = the(guessed(tree), "web")
    assert (web.command, web.bind, len(web.listen)) == (command, bind, 1)
    assert web.swap == ("start-first" if bind == "fd" else "stop-first")


def test_a_procfile_says_how_and_the_rest_how_it_is_built() -> None:
    """All its lines are taken over; build lines come from what else is there."""
    spec = guessed({
        "Procfile": "web: gunicorn a:b\nworker: celery -A a worker\nclock: tick; tock\nrelease: ./migrate && ok\n",
        "requirements.txt": "gunicorn\n", "app.py": FLASK, "tests/test_a.py": "",
    })  # fmt: skip
    assert [(one.name, one.command) for one in spec.processes] == [
        ("web", f"{LIB} gunicorn a:b"), ("worker", f"{LIB} celery -A a worker"), ("clock", "tick; tock")
    ]  # fmt: skip
    assert spec.release is not None
    assert spec.release.command == "/bin/sh -c './migrate && ok'"
    plain = guessed({"Procfile": "web: x\nrelease: python manage.py migrate", "requirements.txt": "x"})
    assert plain.release is not None
    assert plain.release.command == "env PYTHONPATH=lib python3 manage.py migrate"
    assert spec.build.run == ("python3 -m pip install --no-compile --target lib -r requirements.txt",)
    assert spec.build.exclude == ("tests/",)


def test_builds_follow_the_lock() -> None:
    """What the project itself locks is what is installed."""
    uv = guessed({"main.py": FASTAPI, "pyproject.toml": UV, "uv.lock": ""})
    assert "uv export" in uv.build.run[0]
    pnpm = guessed({"package.json": '{"scripts": {"start": "node a.js", "build": "vite build"}}', "pnpm-lock.yaml": ""})
    assert pnpm.build.run == ("pnpm install --frozen-lockfile", "pnpm run build", "pnpm prune --prod")


def test_workers_and_migrations() -> None:
    """What the frameworks have beside the web is found by its own file or dependency."""
    django = guessed({"manage.py": MANAGE, "mysite/celery.py": "", "requirements.txt": "django\ncelery[redis]"})
    assert the(django, "worker").command == f"{LIB} celery -A mysite worker"
    assert django.release is not None
    assert "manage.py migrate" in django.release.command
    rails = guessed({"Gemfile": "gem 'rails'\ngem 'sidekiq'"})
    assert the(rails, "worker").command == "bundle exec sidekiq"


def test_config_is_declared_without_its_values() -> None:
    """The keys of .env.example are required, what looks like a secret is one, and no value is written down."""
    made = sketch(
        {".env.example": "# x\nexport DATABASE_URL=db\nAPI_KEY=hunter2\nPORT=1\nlower=2\n", ".env": "Z=1"}, "shop"
    )
    spec = load_app(made.text, "rollway.toml")
    assert {name: (key.required, key.secret) for name, key in spec.config.items()} == {
        "DATABASE_URL": (True, False), "API_KEY": (True, True),
    }  # fmt: skip
    assert "hunter2" not in made.text


DOUBTS = {
    "no server": ({"app.py": FLASK, "requirements.txt": "flask"}, "gunicorn is not among the dependencies"),
    "no packages": ({"app.py": FLASK}, "says what to install"),
    "two stacks": ({"app.py": FLASK, "package.json": '{"main": "a.js"}', "a.js": ""}, "not written"),
    "other programs": ({"go.mod": "module a", "cmd/a/main.go": "", "cmd/b/main.go": ""}, "not written: b in cmd/"),
    "packages out of reach": (
        {"Procfile": "web: bin/serve $PORT\nrelease: python m.py", "requirements.txt": "x"},
        "see that web finds its packages",
    ),
    "nothing at all": ({}, "put its command into"),
}


@pytest.mark.parametrize(("tree", "doubt"), DOUBTS.values(), ids=list(DOUBTS))
def test_doubts_are_said(tree: dict[str, str], doubt: str) -> None:
    """Where it is not certain, a person is told what to look at."""
    assert any(doubt in one for one in sketch(tree, "shop").doubts)


def test_the_command_that_a_person_gives() -> None:
    """What nothing shows can be said."""
    spec = load_app(sketch({}, "shop", command="./serve --port $PORT | tee log").text, "rollway.toml")
    assert the(spec, "web").command == "./serve --port $PORT | tee log"


NAMES = {"Shop": "shop", "@ada/My_Shop": "my-shop", "2024-site": "site", "x" * 40: "x" * 32, "---": "app", "": "app"}


@pytest.mark.parametrize(("text", "name"), NAMES.items(), ids=list(NAMES))
def test_names(text: str, name: str) -> None:
    """An app is called as near to its own name as a name can be."""
    assert name_of(text, AppName("app")) == name


@given(
    st.dictionaries(
        st.sampled_from(
            ["Procfile", "package.json", "Gemfile", "go.mod", "pyproject.toml", "app.py", ".env", "main.go"]
        ),
        st.one_of(st.text(), st.sampled_from([FASTAPI, FLASK, UV, '{"scripts": {"start": "\\u007f\\"\'"}}'])),
    ).filter(lambda tree: "Procfile" not in tree),
    st.text(),
)
def test_whatever_is_there_the_file_holds(tree: dict[str, str], folder: str) -> None:
    """No content of a file makes a rollway.toml that is wrong."""
    assert guessed(tree, folder).processes
