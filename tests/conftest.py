"""Settings of the whole suite: the Hypothesis profiles, seeded random streams for every test, a web server.

`ci` is the default and draws the same examples every time; `pytest --hypothesis-profile=intense` draws 1,000
new ones per property.
"""

import http.server
import os
import signal
import threading
from collections.abc import Iterator

import pytest
from hypothesis import settings

import minidl
from minidl import streams

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("intense", deadline=None, max_examples=1000)
settings.load_profile("ci")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole suite runs in a process per core, unless `-n` says otherwise; a part of it in this one."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # this is one of those processes
        return
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if whole and config.pluginmanager.has_plugin("xdist") and config.option.numprocesses is None:
        config.option.numprocesses = "auto"


@pytest.fixture(scope="session", autouse=True)
def _share_of_the_cores() -> None:
    """With several processes each takes its share of the threads: more would wait for each other."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        minidl.set_num_threads(max(1, minidl.get_num_threads() // processes))


@pytest.fixture(scope="session", autouse=True)
def _hears_ctrl_c() -> None:
    """A suite that a shell runs in the background would ignore Ctrl-C, and the tests of it could not pass."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    streams.manual_seed(0)


class Web:
    """What a local web server offers, by file name, and what was asked of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A web server on this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/")
            site.asked.append(name)
            data = site.files.get(name)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *args: object) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site = Web(f"http://127.0.0.1:{server.server_address[1]}/")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield site
        server.shutdown()
        thread.join()
