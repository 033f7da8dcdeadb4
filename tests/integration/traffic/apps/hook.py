"""A load balancer in a file, told by a hook as docs/drivers.md has it: `hook.py STATE [FAULT]`."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

state, fault = Path(sys.argv[1]), (sys.argv[2:] or [""])[0]
asked = json.load(sys.stdin)
if fault == "fails":
    sys.exit("no route to the balancer\nat all")
if fault == "hangs":
    child = subprocess.Popen(["/bin/sleep", "1000"])
    state.write_text(f"{os.getpid()} {child.pid}")
    time.sleep(1000)
if fault == "floods":
    while True:
        print("x" * 65536)
if fault == "mumbles":
    print("it is done")
    sys.exit(0)
has = json.loads(state.read_text()) if state.exists() else {}
wished = {server["name"]: server for server in asked["servers"]}
for name in [name for name in has if name.startswith(asked["prefix"]) and name not in wished]:
    del has[name]
answer = {}
for name, server in wished.items():
    has[name] = server["address"] if server["admitted"] else ""
    answer[name] = {"state": "admitted" if server["admitted"] else "drained"}
state.write_text(json.dumps(has))
print(json.dumps({"servers": answer}))
