"""Node, Ruby, Go and Rust: how their own files say that they are built and started.

Rules: a server that cannot be told to take a socket binds $PORT itself; the file says what that costs.
"""

import re
from typing import Final

from agent.settings.guess.found import Command, Found, Tree, left_out, parsed_json, parsed_toml, table, text_of

_NODE: Final = re.compile(r"node(?: [\w./=-]+)+")
_GEM: Final = re.compile(r"^\s*gem\s+['\"]([\w-]+)['\"]", re.MULTILINE)
_MODULE: Final = re.compile(r"^module\s+(\S+)", re.MULTILINE)
_COMMAND: Final = re.compile(r"cmd/([\w-]+)/main\.go")
_INSTALLS: Final = {
    "package-lock.json": ("npm ci", "npm prune --omit=dev"),
    "pnpm-lock.yaml": ("pnpm install --frozen-lockfile", "pnpm prune --prod"),
    "yarn.lock": ("yarn install --frozen-lockfile", ""),
}


def node(tree: Tree) -> Found | None:
    if "package.json" not in tree:
        return None
    package = parsed_json(tree, "package.json")
    scripts = table(package, "scripts")
    start = text_of(scripts.get("start"))
    main = next((name for name in (text_of(package.get("main")), "server.js", "index.js") if name in tree), None)
    if start is None and main is None:
        return None
    command = start or f"node {main}"
    if _NODE.fullmatch(command):
        web = Command(name="web", command=command, listens="port")
    else:
        line = f'export PATH="$PWD/node_modules/.bin:$PATH"; exec {command}'
        note = "the start script itself: `npm start` would stand between it and its signals"
        web = Command(name="web", command=line, shell=True, listens="port", note=note)  # noqa: S604 - nothing runs here
    install, prune = next((lines for lock, lines in _INSTALLS.items() if lock in tree), ("npm install", ""))
    built = (f"{install.split()[0]} run build",) if text_of(scripts.get("build")) else ()
    return Found(
        commands=(web,),
        build=tuple(line for line in (install, *built, prune) if line),
        exclude=left_out(tree),
        seen="package.json: its start script" if start else f"package.json and {main}",
        name=text_of(package.get("name")),
    )


def ruby(tree: Tree) -> Found | None:
    gems = set(_GEM.findall(tree.get("Gemfile", "")))
    is_rails = "rails" in gems
    if not is_rails and "config.ru" not in tree:
        return None
    config = " -C config/puma.rb" if "config/puma.rb" in tree else " -p {port}"
    commands = [Command(name="web", command=f"bundle exec puma{config}", listens="port")]
    if "sidekiq" in gems:
        commands.append(Command(name="worker", command="bundle exec sidekiq"))
    precompile = ("SECRET_KEY_BASE_DUMMY=1 bundle exec rails assets:precompile",) if is_rails else ()
    return Found(
        commands=tuple(commands),
        build=("bundle config set --local path vendor/bundle", "bundle install", *precompile),
        exclude=left_out(tree),
        release="bundle exec rails db:migrate" if is_rails else None,
        seen="Rails: the Gemfile" if is_rails else "Rack: config.ru",
        doubts=() if "puma" in gems else ("puma is not in the Gemfile: add it",),
    )


def go(tree: Tree) -> Found | None:
    module = _MODULE.search(tree.get("go.mod", ""))
    if module is None:
        return None
    name = re.sub(r"/v\d+$", "", module[1]).rpartition("/")[2]
    programs = sorted(match[1] for path in tree if (match := _COMMAND.fullmatch(path)))
    if "main.go" in tree:
        package, program = ".", name
    elif programs:
        program = name if name in programs else programs[0]
        package = f"./cmd/{program}"
    else:
        return None
    others = [other for other in programs if other != program]
    return Found(
        commands=(Command(name="web", command=f"bin/{program}", listens="port"),),
        build=(f"go build -trimpath -o bin/{program} {package}",),
        seen=f"Go: go.mod, and {package}",
        doubts=(f"not written: {', '.join(others)} in cmd/",) if others else (),
        name=name,
    )


def rust(tree: Tree) -> Found | None:
    name = text_of(table(parsed_toml(tree, "Cargo.toml"), "package").get("name"))
    if name is None or "src/main.rs" not in tree:
        return None
    return Found(
        commands=(Command(name="web", command=f"bin/{name}", listens="port"),),
        build=("cargo build --release --locked", f"mkdir -p bin && cp target/release/{name} bin/"),
        exclude=("target/",),
        seen="Rust: Cargo.toml and src/main.rs",
        name=name,
    )
