"""One JSON object per line on stdout; where the lines go is not the app's business."""

import json
import sys
from datetime import datetime, timezone


def write(**fields: object) -> None:
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    sys.stdout.write(json.dumps({"ts": now, **fields}, separators=(",", ":")) + "\n")
    sys.stdout.flush()
