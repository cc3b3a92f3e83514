"""The page that runs models in the browser, opened in one."""

import base64
import io
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
    page.until(lambda: page.forecast_by(model))


def give(page: Any, *files: Path) -> None:
    page.run("document.getElementById('source').textContent = ''")
    page.find("#file").send_keys("\n".join(map(str, files)))


@pytest.fixture(scope="module")
def page(window: Any, server: Any) -> Any:
    """The page with tau-ut, which has forecast its example."""
    window.driver.get(f"{server.url}/live/index.html")
    window.until(lambda: window.forecast_by("tau-mmnist"))
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
    page.find("#example").click()  # another forecast is no wish to see it play
    page.until(lambda: position() == 10)
    page.run_until_done("setTimeout(arguments[0], 500)")
    assert (position(), page.text("play")) == (10, "Play")
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


def test_a_choice_that_is_slow_to_read_gives_way_to_a_newer_one(page: Any, tmp_path: Path) -> None:
    frames = [Image.new("L", (64, 64), 4 * t) for t in range(12)]
    frames[0].save(tmp_path / "slow.gif", save_all=True, append_images=frames[1:])
    page.run(
        "const read = File.prototype.arrayBuffer;"
        "const waits = new Promise((resolve) => { self.goOn = resolve; });"
        "File.prototype.arrayBuffer = function () { return waits.then(() => read.call(this)); };"
    )
    give(page, tmp_path / "slow.gif")
    page.until(lambda: page.text("status").startswith("Reading"))
    page.find("#example").click()
    page.until(lambda: "UT-Interaction" in page.text("source"))
    page.run_until_done("self.goOn(); setTimeout(arguments[0], 2000)")
    assert "UT-Interaction" in page.text("source")
    assert " ms on " in page.text("status")
    page.find("[name=steps][value='10']").click()  # which forecasts from what was chosen
    page.until(lambda: page.text("status").startswith("10 frames in "))
    assert "UT-Interaction" in page.text("source")


def read(page: Any, *files: tuple[str, str, bytes]) -> list[float]:
    """The first pixel of each frame that the page takes from files: (name, type, content)."""
    found = page.run_until_done(
        "const [files, done] = arguments;"
        "const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));"
        "const made = files.map(([name, type, text]) => new File([bytes(text)], name, { type }));"
        "import(new URL('./files.js', location.href)).then(({ framesOf }) => framesOf(made, 8))"
        ".then(({ frames }) => done(frames.map((frame) => frame[0])), (error) => done(error.message));",
        [(name, kind, base64.b64encode(content).decode("ascii")) for name, kind, content in files],
    )
    assert isinstance(found, list), found
    return found


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_long_files_are_read_at_their_end(page: Any) -> None:
    frames = [Image.new("L", (8, 8), t) for t in range(205)]
    last = np.arange(5, 205) / 255
    animation = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(read(page, ("a.gif", "image/gif", animation)), last, atol=1e-6)
    pictures = [(f"{t}.png", "image/png", encoded(frame, "PNG")) for t, frame in enumerate(frames)]
    np.testing.assert_allclose(read(page, *pictures), last, atol=1e-6)


def test_what_is_transparent_is_black(page: Any) -> None:
    """And shows nothing of the picture before."""
    pictures = [encoded(Image.new("RGBA", (8, 8), (255, 255, 255, alpha)), "PNG") for alpha in (255, 0, 255)]
    assert read(page, *((f"{t}.png", "image/png", picture) for t, picture in enumerate(pictures))) == [1, 0, 1]


def test_a_recording_that_does_not_say_its_length_is_read(page: Any) -> None:
    """Browsers make such files from cameras: this one makes one from a canvas that grows lighter for two seconds."""
    length, shades = page.run_until_done("""
        const done = arguments[0];
        const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
        const pen = canvas.getContext("2d");
        const recorder = new MediaRecorder(canvas.captureStream(), { mimeType: "video/webm" });
        const parts = [];
        recorder.ondataavailable = ({ data }) => parts.push(data);
        recorder.onstop = async () => {
          const file = new File(parts, "mine.webm", { type: "video/webm" });
          const video = Object.assign(document.createElement("video"), { src: URL.createObjectURL(file) });
          await new Promise((resolve) => { video.onloadeddata = resolve; });
          const { framesOf } = await import(new URL("./files.js", location.href));
          const { frames } = await framesOf([file], 8);
          done([String(video.duration), frames.map((frame) => frame[0])]);
        };
        recorder.start(100); // in parts, as whoever sends or keeps a recording while it goes on
        let shade = 0;
        const timer = setInterval(() => {
          pen.fillStyle = `rgb(${shade} ${shade} ${shade})`;
          pen.fillRect(0, 0, 64, 64);
          shade = Math.min(255, shade + 4);
        }, 40);
        setTimeout(() => { clearInterval(timer); recorder.stop(); }, 2000);
    """)
    assert length == "Infinity"
    assert 10 <= len(shades) <= 30
    assert shades[0] < 0.2 < shades[-1]


def test_rain_has_a_key_and_a_unit(page: Any) -> None:
    assert not page.find("#key").is_displayed()
    assert page.text("unit") == ", of values from 0 to 1"
    choose(page, "tau-radar")
    page.sized(360, 740)
    assert page.find("#key").is_displayed()
    assert page.run("return document.documentElement.scrollWidth") <= 360
    page.sized(1200, 900)
    key = page.text("key")
    assert all(part in key for part in ("mm/h", "below 0.1", "0.1 to 0.5", "50 and more"))
    assert page.text("unit") == ", in (mm/h)²"
    choose(page, "tau-ut")
    assert not page.find("#key").is_displayed()


def test_each_picture_says_what_it_shows(page: Any) -> None:
    script = "return [...document.querySelectorAll('canvas')].filter((canvas) => !canvas.ariaLabel).length"
    assert page.run(script) == 0
    assert page.find("#curve").get_attribute("aria-label").startswith("The error is of frame 1 ")


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
    page.until(lambda: page.forecast_by("tau-mmnist"))
    reach(page, "[name=model]:checked")
    page.press(RIGHT)
    page.until(lambda: page.forecast_by("tau-ut"))
    page.press("\ue012")  # left, back to the digits
    page.until(lambda: page.forecast_by("tau-mmnist"))
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
