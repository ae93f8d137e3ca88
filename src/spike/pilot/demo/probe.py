"""A workload of the demo's own: knocks at Nexus with the identity it was started with.

    spike-authority run --id ID -- python -m spike.pilot.demo.probe PORT TARGET BODY

Prints one line of JSON: {"status": 200} or {"refused": "…"}.
"""

from __future__ import annotations

import json
import sys
from typing import Final

from spike.pilot.demo.knock import Answered, knock
from spike.spiffe.workload_source import fetch_material

_TIMEOUT_S: Final = 10.0


def main() -> None:
    """Knock once and say what came of it."""
    port, target, body = sys.argv[1:]
    outcome = knock(int(port), fetch_material(None, _TIMEOUT_S), target, body.encode())
    told = {"status": outcome.status} if isinstance(outcome, Answered) else {"refused": outcome.why}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
