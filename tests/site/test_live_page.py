"""The page that runs models in the browser, opened in one."""

from pathlib import Path
from typing import Any

import browser
import numpy as np
import onnx.reference
import pytest
from PIL import Image

import stzoo

TAB, RIGHT = "\ue004", "\ue014"  # as WebDriver calls these keys


def choose(page: Any, model: str) -> None:
    page.find(f"[name=model][value={model}]").click()
    page.until(lambda: chosen(page, model))


def chosen(page: Any, model: str) -> bool:
    """Whether the forecast that is shown is by this model."""
    return page.run("return self.stzoo?.shown") == model and " ms on " in page.text("status")


def give(page: Any, *files: Path) -> None:
    page.run("document.getElementById('source').textContent = ''")
    page.find("#file").send_keys("\n".join(map(str, files)))


@pytest.fixture(scope="module")
def page(window: Any, server: Any) -> Any:
    """The page with tau-ut, which has forecast its example."""
    window.driver.get(f"{server.url}/live/index.html")
    window.until(lambda: chosen(window, "tau-mmnist"))
    choose(window, "tau-ut")
    return window


def test_a_forecast_is_that_of_python(page: Any) -> None:
    """Beyond one block, so that the page's own rollout is tried too."""
    y, x = np.mgrid[:64, :64]
    past = np.stack([np.exp(-((y - 30) ** 2 + (x - 20 - 2 * t) ** 2) / 90) for t in range(10)]).astype(np.float32)
    found = page.run_until_done(
        "const [past, done] = arguments;"
        "self.stzoo.forecast(Float32Array.from(past), 64, 64, 25).then(({ future }) => done([...future]));",
        past.ravel().tolist(),
    )
    wanted = stzoo.load("tau-ut").rollout(past, 25)
    np.testing.assert_allclose(np.clip(found, 0, 1).reshape(25, 64, 64), wanted, rtol=0, atol=1e-3)


def test_the_animation_plays_until_it_is_stopped(page: Any) -> None:
    def position() -> int:
        return int(page.run("return self.stzoo.player.position"))

    before = position()
    page.until(lambda: position() not in (before, before + 1))
    page.find("#play").click()
    assert page.text("play") == "Play"
    stopped = position()
    page.run_until_done("setTimeout(arguments[0], 500)")
    assert position() == stopped
    page.find("#play").click()


def test_longer_forecasts_are_shown_when_asked_for(page: Any) -> None:
    page.find("[name=steps][value='20']").click()
    page.until(lambda: page.text("status").startswith("20 frames in "))
    assert page.find("#frame").get_attribute("max") == "29"
    assert page.find("#truth-panel").is_displayed()


def test_an_animation_of_the_readers_is_forecast(page: Any, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (90, 60), (4 * t, 100, 200)) for t in range(12)]
    frames[0].save(tmp_path / "mine.gif", save_all=True, append_images=frames[1:])
    give(page, tmp_path / "mine.gif")
    page.until(lambda: "mine.gif" in page.text("source"))
    assert page.text("message") == ""
    assert not page.find("#truth-panel").is_displayed()
    choose(page, "tau-mmnist")  # which goes on with the file
    assert "mine.gif" in page.text("source")
    choose(page, "tau-ut")
    assert "mine.gif" in page.text("source")


def test_files_that_do_not_fit_get_a_message(page: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.gif").write_text("not a picture")
    give(page, tmp_path / "broken.gif")
    page.until(lambda: "broken.gif could not be read as an animation" in page.text("message"))
    (tmp_path / "notes.txt").write_text("words")
    give(page, tmp_path / "notes.txt")
    page.until(lambda: "notes.txt is neither a picture nor a video" in page.text("message"))
    Image.new("L", (64, 64)).save(tmp_path / "one.gif")
    give(page, tmp_path / "one.gif")
    page.until(lambda: "reads 10 frames, and the file has 1" in page.text("message"))
    page.find("#example").click()
    page.until(lambda: " ms on " in page.text("status") and page.text("message") == "")


def test_it_fits_on_a_phone(page: Any) -> None:
    page.sized(360, 740)
    for model in ("tau-mmnist", "tau-ut"):
        choose(page, model)
        assert page.run("return document.documentElement.scrollWidth") <= 360
    page.sized(1200, 900)


def test_threads_may_be_used(page: Any) -> None:
    assert page.run("return self.crossOriginIsolated")


def test_everything_can_be_done_by_keyboard(page: Any) -> None:
    """A model is chosen, the animation stopped, a digit drawn, and a length chosen, without the mouse."""
    page.driver.refresh()
    page.until(lambda: chosen(page, "tau-mmnist"))
    reach(page, "[name=model]:checked")
    page.press(RIGHT)
    page.until(lambda: chosen(page, "tau-ut"))
    page.press("\ue012")  # left, back to the digits
    page.until(lambda: chosen(page, "tau-mmnist"))
    reach(page, "#play")
    page.press(" ")
    assert page.text("play") == "Play"
    reach(page, "#digit-0")
    page.press("t")  # "the one you draw"
    reach(page, "#sheet")
    before = page.run("return document.getElementById('sheet').toDataURL()")
    page.press(" ", RIGHT, RIGHT, " ")
    assert page.run("return document.getElementById('sheet').toDataURL()") != before
    reach(page, "[name=steps]:checked")
    page.press(RIGHT)
    page.until(lambda: page.text("status").startswith("20 frames in "))


def reach(page: Any, selector: str) -> None:
    """The focus moves there by the key Tab alone, as far as it is visible where it is."""
    for _ in range(30):
        if page.run("return document.activeElement.matches(arguments[0])", selector):
            assert page.run("return document.activeElement.matches(':focus-visible')")
            return
        page.press(TAB)
    pytest.fail(f"{selector} is not reached")


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
