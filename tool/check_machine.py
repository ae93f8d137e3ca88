"""Say in one sentence what this machine lacks to run SPIKE; used by make before anything is installed.

Runs on any Python 3, so it uses nothing newer.
"""

import sys


def problem():
    """Return what is wrong with this machine and what to do, or an empty string."""
    if not sys.platform.startswith("linux"):
        return (
            "SPIKE runs on Linux only (this is %s): use a Linux machine or container."
            % sys.platform
        )
    if sys.implementation.name != "cpython" or sys.version_info < (3, 11):
        return (
            "SPIKE needs CPython 3.11 or newer (this is %s %d.%d): install it and run `make PYTHON=python3.11 ...`."
            % (sys.implementation.name, sys.version_info[0], sys.version_info[1])
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return "Python's venv module is missing: install it (on Debian: apt install python3-venv)."
    return ""


if __name__ == "__main__":
    sentence = problem()
    if sentence:
        sys.exit(sentence)
