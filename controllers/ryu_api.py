"""The Ryu API, from os-ken (maintained, the default) or from Ryu 4.34 itself.

$FLOWBIND_CONTROLLER_LIBRARY, "os_ken" or "ryu", says which; else the first that is installed. Both run on
eventlet, so that the app has one thread to think of. Import this module before anything that uses sockets: it
patches those of the standard library.
"""

import importlib
import importlib.util
import os
import warnings
from importlib.metadata import version
from types import ModuleType

LIBRARY_VARIABLE = "FLOWBIND_CONTROLLER_LIBRARY"
LIBRARIES = ("os_ken", "ryu")


class LibraryMissing(Exception):
    """Neither library can be used; the text is one sentence with the remedy."""


def _choose() -> str:
    wanted = os.environ.get(LIBRARY_VARIABLE)
    if wanted and wanted not in LIBRARIES:
        raise LibraryMissing(f"${LIBRARY_VARIABLE}: expected os_ken or ryu, not {wanted!r}.")
    for name in [wanted] if wanted else LIBRARIES:
        if importlib.util.find_spec(name):
            return name
    raise LibraryMissing(
        f"the controller needs {wanted or 'os_ken'}: `pip install os-ken==4.2.2` (or `ryu==4.34`)."
    )


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{LIBRARY}.{name}")


warnings.filterwarnings("ignore", r"\s*Eventlet is deprecated")  # nobody here has the choice
LIBRARY = _choose()
VERSION = f"{LIBRARY} {version(LIBRARY.replace('_', '-'))}"
os.environ["OSKEN_HUB_TYPE"] = "eventlet"
if LIBRARY == "ryu":
    import eventlet.wsgi

    if not hasattr(eventlet.wsgi, "ALREADY_HANDLED"):  # gone since eventlet 0.30.3, but ryu.app.wsgi wants it
        eventlet.wsgi.ALREADY_HANDLED = object()

hub = _module("lib.hub")
hub.patch(thread=False)  # everything but threads ...
hub.patch(thread=True)  # ... and threads; that is what ryu-manager does
app_manager = _module("base.app_manager")
App = app_manager.RyuApp if LIBRARY == "ryu" else app_manager.OSKenApp
cfg = _module("cfg")
controller = _module("controller.controller")
handler = _module("controller.handler")
ofp_event = _module("controller.ofp_event")
ofproto = _module("ofproto.ofproto_v1_3")
parser = _module("ofproto.ofproto_v1_3_parser")
