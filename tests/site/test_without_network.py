"""The page that runs models in the browser goes on without the server that it came from."""

from typing import Any


def test_after_loading_no_network_is_needed(window: Any, server: Any) -> None:
    window.driver.get(f"{server.url}/live/index.html")
    window.until(lambda: "works without a network" in window.text("kept"))
    server.stop()
    window.driver.refresh()
    window.until(lambda: window.forecast_by("tau-mmnist"))
    for model in ("tau-ut", "tau-radar"):
        window.find(f"[name=model][value={model}]").click()
        window.until(lambda model=model: window.forecast_by(model))
    assert window.run("return self.crossOriginIsolated")
    window.driver.get(f"{server.url}/live/")  # by its other address, in the same window
    window.until(lambda: window.forecast_by("tau-mmnist"))
