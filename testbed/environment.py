# ruff: noqa: UP031, UP036 -- old interpreters must be able to read this file
"""Finding the project's own Python environment from any interpreter, in any folder.

Scripts call `reexec_in_project_environment()` before they import anything from outside the standard
library. This file must stay readable for old interpreters (Python 2.7 included), so that they, too, get a
sentence and not a syntax error.

Functions: `reexec_in_project_environment`.
"""

import os
import sys

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ENVIRONMENT = os.path.join(PROJECT, ".venv")
#: Two of the packages that everything needs; where both are there, someone set up an environment by hand.
NEEDED = ("mininet", "msgspec")


def reexec_in_project_environment():
    """Start the running script again in the project's `.venv`, unless it is in a usable environment already.

    Returns if the interpreter is new enough and has what the project needs. Otherwise the process is
    replaced by the same script, arguments and working folder under `.venv/bin/python`; without a `.venv` it
    exits with status 2 and says which command makes one. From then on, Ctrl-C shows no traceback.
    """
    sys.excepthook = _report
    python = os.path.join(ENVIRONMENT, "bin", "python")
    inside = os.path.realpath(sys.prefix) == os.path.realpath(ENVIRONMENT)
    if not inside and os.access(python, os.X_OK):
        arguments = getattr(sys, "orig_argv", None)  # keeps interpreter options, `-m module` included
        arguments = arguments[1:] if arguments else sys.argv
        os.execv(python, [python] + list(arguments))
    if sys.version_info < (3, 10):
        _give_up("this needs Python 3.10 or later (here it is %d.%d)" % sys.version_info[:2])
    if not inside and not _has_packages():
        _give_up("the project's Python environment is missing")


def _report(kind, error, traceback):
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("\nflowbind: stopped\n")
    else:
        sys.__excepthook__(kind, error, traceback)


def _has_packages():
    from importlib.util import find_spec
    return all(find_spec(name) is not None for name in NEEDED)


def _give_up(why):
    sys.stderr.write("flowbind: %s: set it up with: sudo %s setup\n" % (why, os.path.join(PROJECT, "run")))
    sys.exit(2)
