"""The page that runs models in the browser, opened in one: Debian's Chromium, driven through its own driver."""

import functools
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stzoo

webdriver = pytest.importorskip("selenium.webdriver")
wait = pytest.importorskip("selenium.webdriver.support.wait")
onnx = pytest.importorskip("onnx")
SITE = Path(__file__).parents[2] / "docs" / "site"
sys.path.insert(0, str(SITE))
import browser  # noqa: E402
import build  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, ("chromium", "chromedriver", "npm"))),
        reason="Chromium, its driver and npm are needed",
    ),
]
SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    browser.write(out / "live", build.install(out), SITE.parent / "models", (browser.Shown("tau-ut", "people"),))
    return out / "live"


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page, its first forecast made."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(60)
    try:
        driver.get(f"http://127.0.0.1:{server.server_port}/live/index.html")
        until(driver, lambda: " ms on " in text(driver, "status"))
        yield driver
    finally:
        driver.quit()
        server.shutdown()
        server.server_close()


def until(page: Any, holds: Any) -> None:
    wait.WebDriverWait(page, 90).until(lambda _: holds(), f"status: {text(page, 'status')}; {text(page, 'message')}")


def text(page: Any, name: str) -> str:
    return str(page.execute_script("return document.getElementById(arguments[0])?.textContent ?? ''", name))


def give(page: Any, *files: Path) -> None:
    page.execute_script("document.getElementById('source').textContent = ''")
    page.find_element("id", "file").send_keys("\n".join(map(str, files)))


def test_a_forecast_is_that_of_python(page: Any) -> None:
    """Beyond one block, so that the page's own rollout is tried too."""
    y, x = np.mgrid[:64, :64]
    past = np.stack([np.exp(-((y - 30) ** 2 + (x - 20 - 2 * t) ** 2) / 90) for t in range(10)]).astype(np.float32)
    found = page.execute_async_script(
        "const [past, done] = arguments;"
        "self.stzoo.forecast(Float32Array.from(past), 64, 64, 25).then(({ future }) => done([...future]));",
        past.ravel().tolist(),
    )
    wanted = stzoo.load("tau-ut").rollout(past, 25)
    np.testing.assert_allclose(np.clip(found, 0, 1).reshape(25, 64, 64), wanted, rtol=0, atol=1e-3)


def test_the_animation_plays_until_it_is_stopped(page: Any) -> None:
    def position() -> int:
        return int(page.execute_script("return self.stzoo.player.position"))

    before = position()
    until(page, lambda: position() not in (before, before + 1))
    page.find_element("id", "play").click()
    assert text(page, "play") == "Play"
    stopped = position()
    page.execute_async_script("setTimeout(arguments[0], 500)")
    assert position() == stopped
    page.find_element("id", "play").click()


def test_longer_forecasts_are_shown_when_asked_for(page: Any) -> None:
    page.find_element("css selector", "[name=steps][value='20']").click()
    until(page, lambda: text(page, "status").startswith("20 frames in "))
    assert page.find_element("id", "frame").get_attribute("max") == "29"
    assert page.find_element("id", "truth-panel").is_displayed()


def test_an_animation_of_the_readers_is_forecast(page: Any, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (90, 60), (4 * t, 100, 200)) for t in range(12)]
    frames[0].save(tmp_path / "mine.gif", save_all=True, append_images=frames[1:])
    give(page, tmp_path / "mine.gif")
    until(page, lambda: "mine.gif" in text(page, "source"))
    assert text(page, "message") == ""
    assert not page.find_element("id", "truth-panel").is_displayed()


def test_files_that_do_not_fit_get_a_message(page: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.gif").write_text("not a picture")
    give(page, tmp_path / "broken.gif")
    until(page, lambda: "broken.gif could not be read as an animation" in text(page, "message"))
    (tmp_path / "notes.txt").write_text("words")
    give(page, tmp_path / "notes.txt")
    until(page, lambda: "notes.txt is neither a picture nor a video" in text(page, "message"))
    Image.new("L", (64, 64)).save(tmp_path / "one.gif")
    give(page, tmp_path / "one.gif")
    until(page, lambda: "reads 10 frames, and the file has 1" in text(page, "message"))
    page.find_element("id", "example").click()
    until(page, lambda: " ms on " in text(page, "status") and text(page, "message") == "")


def test_it_fits_on_a_phone(page: Any) -> None:
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    )
    assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_threads_may_be_used(page: Any) -> None:
    assert page.execute_script("return self.crossOriginIsolated")


def test_half_is_taken_only_where_nothing_is_lost() -> None:
    values = {"exact": np.arange(100, dtype=np.float32) / 8, "inexact": np.full(100, 0.1, np.float32)}
    helper = onnx.helper
    nodes = [helper.make_node("Add", ["exact", "inexact"], ["sum"])]
    output = helper.make_tensor_value_info("sum", onnx.TensorProto.FLOAT, [100])
    weights = [onnx.numpy_helper.from_array(v, k) for k, v in values.items()]
    made = browser.in_half(helper.make_model(helper.make_graph(nodes, "g", [], [output], weights)))
    kinds = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert kinds == {"exact.half": onnx.TensorProto.FLOAT16, "inexact": onnx.TensorProto.FLOAT}
    found = onnx.reference.ReferenceEvaluator(made).run(None, {})[0]
    np.testing.assert_array_equal(found, values["exact"] + values["inexact"])
