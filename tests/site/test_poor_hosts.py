"""The page that runs models in the browser, from servers that do not give all of it."""

from collections.abc import Callable
from typing import Any


def test_without_its_service_worker_the_page_works(window: Any, serve_without: Callable[[str], Any]) -> None:
    """Which is not installed when a file that it keeps cannot be loaded."""
    window.driver.get(f"{serve_without('/live/favicon.svg').url}/live/index.html")
    window.until(lambda: window.forecast_by("tau-mmnist"))
    assert window.text("message") == ""
    assert not window.run("return self.crossOriginIsolated")


def test_a_server_need_not_know_an_index(window: Any, serve_without: Callable[[str], Any]) -> None:
    server = serve_without("/live/")
    window.driver.get(f"{server.url}/live/index.html")
    window.until(lambda: window.run("return self.crossOriginIsolated"))
    window.driver.get(f"{server.url}/live/")  # which the service worker answers
    window.until(lambda: window.forecast_by("tau-mmnist"))


def test_a_page_without_its_models_says_so(window: Any, serve_without: Callable[[str], Any]) -> None:
    window.driver.get(f"{serve_without('/live/models.json').url}/live/index.html")
    window.until(lambda: "the server answers 404 for models.json" in window.text("message"))
    assert window.text("status") == ""
