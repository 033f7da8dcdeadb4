"""A small shop: orders come in by HTTP, wait in a table, and are fulfilled by a worker."""

import os
from pathlib import Path

VERSION = Path(__file__).parent.with_name("VERSION").read_text(encoding="utf-8").strip()
RELEASE = os.environ.get("ROLLWAY_RELEASE", "none")
