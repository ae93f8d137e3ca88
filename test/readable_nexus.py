"""`spike-nexus` whose key memory can be read from outside, as where the kernel has no memfd_secret(2). For tests alone.

What is searched in its locked pages and not found there is really gone.
"""

from __future__ import annotations

from spike.memory import page
from spike.nexus.__main__ import main

if __name__ == "__main__":
    vars(page)["_MEMFD_SECRET"] = 100_000  # no system call has this number
    main()
