"""The built site, served on loopback, and Debian's Chromium to open it in, driven through its own driver."""

import functools
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


class Quiet(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, refused: Collection[str], **options: Any):
        self.refused = refused
        super().__init__(*arguments, **options)  # which answers at once

    def do_GET(self) -> None:
        if urlsplit(self.path).path in self.refused:
            self.send_error(404)
        else:
            super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server:
    """A folder over http, without the paths `refused`. `stop` takes it away, as a network that is lost does."""

    def __init__(self, folder: Path, refused: Collection[str] = ()):
        handler = functools.partial(Quiet, directory=str(folder), refused=refused)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()  # or connections would still be taken, and never answered


class Window:
    """A window of the browser, with a profile of its own."""

    def __init__(self, profile: Path):
        webdriver = pytest.importorskip("selenium.webdriver")
        options = webdriver.ChromeOptions()
        for switch in (*SWITCHES, f"--user-data-dir={profile}"):
            options.add_argument(switch)
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        self.driver.set_script_timeout(60)

    def run(self, script: str, *arguments: Any) -> Any:
        """What the script returns."""
        return self.driver.execute_script(script, *arguments)

    def run_until_done(self, script: str, *arguments: Any) -> Any:
        """What the script hands to the function that is its last argument."""
        return self.driver.execute_async_script(script, *arguments)

    def text(self, name: str) -> str:
        """The text of the element with this id; "" if there is none."""
        return str(self.run("return document.getElementById(arguments[0])?.textContent ?? ''", name))

    def forecast_by(self, model: str) -> bool:
        """Whether the forecast on the live page is by this model."""
        return self.run("return self.stzoo?.shown") == model and " ms on " in self.text("status")

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def until(self, holds: Callable[[], Any]) -> Any:
        """The first of its values that is true, or not 0; fails after a minute and a half."""
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.driver, 90).until(lambda _: holds(), f"{self.text('status')} {self.text('message')}")

    def press(self, *keys: str) -> None:
        """Each key, wherever the focus is."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def sized(self, width: int, height: int) -> None:
        """The screen of a phone, if it is narrow."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def coloured(self, scheme: str) -> None:
        """As if the reader's system were "light" or "dark"."""
        self._prefers("color-scheme", scheme)

    def moving(self, wish: str) -> None:
        """As if the reader's system asked to "reduce" motion, or had "no-preference"."""
        self._prefers("reduced-motion", wish)

    def _prefers(self, name: str, value: str) -> None:
        features = [{"name": f"prefers-{name}", "value": value}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@pytest.fixture(scope="session")
def site() -> Path:
    folder = os.environ.get("STZOO_SITE")
    if not folder:
        pytest.skip("build the site by docs/site/build.py, and name its folder html in STZOO_SITE")
    if not all(map(shutil.which, ("chromium", "chromedriver"))):
        pytest.skip("Debian's packages chromium and chromium-driver are needed")
    return Path(folder).resolve()


@pytest.fixture(scope="module")
def server(site: Path) -> Iterator[Server]:
    server = Server(site)
    yield server
    server.stop()


@pytest.fixture
def serve_without(site: Path) -> Iterator[Callable[[str], Server]]:
    """Serves the site without the one path that it is given."""
    servers: list[Server] = []

    def serve(path: str) -> Server:
        servers.append(Server(site, {path}))
        return servers[-1]

    yield serve
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def window(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    window = Window(tmp_path_factory.mktemp("profile"))
    yield window
    window.driver.quit()
