"""The report in Chromium, driven by Playwright. Skips if either is not installed."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from report_fixtures import HEARD, TRAIN, build, evaluation, made, small, write
from test_report import EVIL, evil_dataset

from emovox.dataset.reader import load
from emovox.media.audio import SAMPLE_RATE
from emovox.reporting.page import report
from emovox.testing import write_clip

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        program = CHROMIUM or running.chromium.executable_path
        if not Path(program).exists():
            pytest.skip("chromium is not installed")
        chromium = running.chromium.launch(executable_path=program, args=list(OPTIONS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page without media, with many tracks and a student."""
    folder = tmp_path_factory.mktemp("plain")
    evaluation().write(folder / "run")
    write(folder / "dataset", small())
    report(folder / "dataset", folder / "page.html", student=[folder / "run"])
    return folder


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a face and a sound of 2.4 s."""
    folder = tmp_path_factory.mktemp("filmed")
    frames = (np.full((224, 224, 3), 20 + 3 * k, np.uint8) for k in range(60))
    write_clip(folder / "corpus/mp4/id1/v/00001.mp4", frames)
    time = np.arange(int(2.4 * SAMPLE_RATE)) / SAMPLE_RATE
    (folder / "corpus/wav/id1/v").mkdir(parents=True)
    sound = 0.3 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(folder / "corpus/wav/id1/v/00001.wav", sound, SAMPLE_RATE)
    build("voxceleb2", folder / "corpus", folder / "dataset")
    report(folder / "dataset", folder / "page.html", media=folder / "corpus")
    return folder


def wait(page: Any, code: str) -> None:
    """Wait until an expression is true; wait_for_function would violate the page's policy."""
    for _ in range(100):
        if page.evaluate(code):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"still false: {code}")


class Visit:
    """An open page, and the errors, warnings, dialogs and requests on it."""

    def __init__(self, browser: Any, path: Path, hash_: str = "", **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.trouble: list[str] = []
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("request", self._note_request)
        self.page.on("dialog", lambda dialog: self.trouble.append(dialog.message))
        self.page.goto(path.as_uri() + hash_)

    def _note_message(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.trouble.append(message.text)

    def _note_request(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.trouble.append(f"request to {request.url}")

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.context.close()
        if kind is None:
            assert not self.trouble

    def listed(self) -> list[str]:
        """Return the tracks that the list shows."""
        found = self.page.locator("#list li:not([hidden]) .id").all_inner_texts()
        return [str(text) for text in found]

    def time(self) -> float:
        return float(self.page.locator("#time").inner_text().split("/")[0])


def test_filters(browser: Any, plain: Path) -> None:
    tracks = load(plain / "dataset").to_pandas("tracks").set_index("track_id")
    with Visit(browser, plain / "page.html") as visit:
        page = visit.page
        assert sorted(visit.listed()) == sorted(tracks.index)
        page.fill("#search", "idx v2")
        assert sorted(visit.listed()) == [t for t in sorted(tracks.index) if t.startswith("idx/v2")]
        page.fill("#search", "")
        page.select_option("#split", HEARD)
        assert set(visit.listed()) == set(tracks.index[tracks["split"] == HEARD])
        page.select_option("#split", "")
        page.select_option("#identity", "idb")
        assert set(visit.listed()) == set(tracks.index[tracks["identity_id"] == "idb"])
        page.select_option("#identity", "")
        label = tracks["label"].iloc[0]
        chip = page.locator("#chips button", has_text=label)
        chip.click()
        assert chip.get_attribute("aria-pressed") == "true"
        assert set(visit.listed()) == set(tracks.index[tracks["label"] == label])
        assert f"{len(visit.listed())} of {len(tracks)}" in page.inner_text("#count")
        page.fill("#search", "nobody")
        assert page.is_visible("#nothing") and visit.listed() == []
        page.click("#reset")
        assert len(visit.listed()) == len(tracks)


def test_open_track_shows_its_numbers(browser: Any, plain: Path) -> None:
    data = load(plain / "dataset")
    with Visit(browser, plain / "page.html") as visit:
        page = visit.page
        page.click("#list button >> nth=2")
        name = page.inner_text("#name")
        assert name == visit.listed()[2]
        gaps = int((np.diff(data.frame_index(name)) > 1).sum())
        assert page.locator("#plot polyline").count() == 8 * (1 + gaps)
        assert page.locator("#plot svg").get_attribute("aria-label").startswith("8 logits")
        cells = page.locator("#numbers tbody tr >> nth=1").locator("td").all_text_contents()
        np.testing.assert_allclose([float(c) for c in cells], data.logits(name)[1], atol=0.006)
        values = page.locator("#values .v").all_inner_texts()
        np.testing.assert_allclose([float(v) for v in values], data.logits(name)[0], atol=0.006)
        page.click("#close")
        assert page.is_visible("#hint") and not page.is_visible("#track")


def test_keyboard(browser: Any, plain: Path) -> None:
    with Visit(browser, plain / "page.html") as visit:
        page = visit.page
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "search"
        page.keyboard.type("id")
        listed = visit.listed()
        page.keyboard.press("ArrowDown")
        assert page.inner_text("#name") == listed[0]
        for _ in range(3):
            page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowUp")
        assert page.inner_text("#name") == listed[2]
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert visit.time() == pytest.approx(0.48)
        page.keyboard.press("ArrowLeft")
        assert visit.time() == pytest.approx(0.24)
        page.keyboard.press(" ")
        wait(page, "parseFloat(document.getElementById('time').textContent) > 0.6")
        page.keyboard.press(" ")
        stopped = visit.time()
        page.wait_for_timeout(200)
        assert visit.time() == stopped
        page.keyboard.press("Escape")
        assert page.is_visible("#hint")


def test_cursor_follows_the_scrub_bar_and_clicks(browser: Any, plain: Path) -> None:
    with Visit(browser, plain / "page.html") as visit:
        page = visit.page
        page.click("#list button >> nth=0")
        before = page.locator("#plot g.cursor").get_attribute("transform")
        page.locator("#scrub").fill("1")
        assert visit.time() == 1
        assert page.locator("#plot g.cursor").get_attribute("transform") != before
        box = page.locator("#plot").bounding_box()
        # The click of a locator waits until the plot is in view and stable.
        page.locator("#plot").click(position={"x": box["width"] / 2, "y": 60})
        end = float(page.locator("#scrub").get_attribute("max"))
        assert visit.time() == pytest.approx(end / 2, rel=0.1)


def test_sound_and_cursor_are_synchronous(browser: Any, filmed: Path) -> None:
    watch = "window.Audio = class extends Audio { constructor() { super(); window.sound = this; } }"
    context = browser.new_context()
    context.add_init_script(watch)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.goto((filmed / "page.html").as_uri())
    page.click("#list button >> nth=0")
    wait(page, "window.sound.readyState >= 1")
    assert page.evaluate("window.sound.duration") == pytest.approx(2.4, abs=0.2)
    page.click("#play")
    wait(page, "window.sound.currentTime > 0.5 && !window.sound.paused")
    heard, shown = page.evaluate(
        "[window.sound.currentTime, parseFloat(document.getElementById('scrub').value)]"
    )
    assert shown == pytest.approx(heard, abs=0.15)
    page.click("#play")
    assert page.evaluate("window.sound.paused")
    page.keyboard.press("ArrowRight")
    moved = page.evaluate("[window.sound.currentTime, +document.getElementById('scrub').value]")
    assert moved[0] == pytest.approx(moved[1], abs=0.02) and moved[0] > heard
    assert page.get_attribute("#play", "aria-label") == "Play"
    context.close()
    assert not errors


def test_faces_are_shown(browser: Any, filmed: Path) -> None:
    with Visit(browser, filmed / "page.html") as visit:
        page = visit.page
        assert page.is_visible(".notice") and "Personal data" in page.inner_text(".notice")
        page.click("#list button >> nth=0")
        widths = page.evaluate(
            "[...document.querySelectorAll('#film img')].map(i => i.naturalWidth)"
        )
        assert len(widths) >= 5 and set(widths) == {144}
        page.click("#film button >> nth=2")
        wanted = int(page.locator("#film button >> nth=2").get_attribute("data-index"))
        assert visit.time() == pytest.approx(wanted * 0.24, abs=0.01)


def luminance(colour: str) -> float:
    red, green, blue = (int(c) for c in re.findall(r"\d+", colour)[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(browser: Any, plain: Path, scheme: str) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.body).color"
    with Visit(browser, plain / "page.html", color_scheme=scheme) as visit:
        page = visit.page
        before = [luminance(page.evaluate(code)) for code in (ground, ink)]
        assert (before[0] < before[1]) == (scheme == "dark")
        page.click("#theme")
        after = [luminance(page.evaluate(code)) for code in (ground, ink)]
        assert (after[0] < after[1]) != (scheme == "dark")


@pytest.mark.parametrize("width", [320, 400, 900])
def test_no_page_is_wider_than_the_screen(browser: Any, plain: Path, width: int) -> None:
    viewport = {"width": width, "height": 800}
    with Visit(browser, plain / "page.html", viewport=viewport) as visit:
        page = visit.page
        scroll = "document.documentElement.scrollWidth"
        assert page.evaluate(scroll) <= width
        for summary in page.locator("main summary").all():
            if summary.is_visible():
                summary.click()
        assert page.evaluate(scroll) <= width
        page.click("#list button >> nth=1")
        assert page.is_visible("#plot svg") and page.evaluate(scroll) <= width
        page.keyboard.press("Escape")
        assert not page.is_visible("#track")


def test_names_with_markup_are_escaped(browser: Any, tmp_path: Path) -> None:
    folder = evil_dataset(tmp_path / "dataset")
    report(folder, tmp_path / "page.html")
    with Visit(browser, tmp_path / "page.html") as visit:
        page = visit.page
        assert page.locator("main img").count() == 0
        assert any(EVIL in name for name in visit.listed())
        for place in (0, 1):
            page.click(f"#list button >> nth={place}")
            assert page.inner_text("#name") == visit.listed()[place]
        page.select_option("#identity", EVIL)
        assert len(visit.listed()) == 1
        assert page.evaluate("document.title").startswith(EVIL)


def test_policy_blocks_requests(browser: Any, plain: Path) -> None:
    """The policy also applies to an injected script."""
    visit = Visit(browser, plain / "page.html")
    blocked = visit.page.evaluate(
        "fetch('http://127.0.0.1:9/').then(() => 'sent', error => error.message)"
    )
    assert "Failed to fetch" in blocked
    assert any("Content Security Policy" in line for line in visit.trouble)
    assert not any(line.startswith("request to") for line in visit.trouble)
    visit.context.close()


def test_link_to_a_track(browser: Any, plain: Path) -> None:
    with Visit(browser, plain / "page.html") as visit:
        visit.page.click("#list button >> nth=3")
        name, place = visit.page.inner_text("#name"), visit.page.evaluate("location.hash")
    with Visit(browser, plain / "page.html", place) as visit:
        assert visit.page.inner_text("#name") == name
    with Visit(browser, plain / "page.html", "#track=%E0%A4%A") as visit:
        assert visit.page.is_visible("#hint")


def test_long_track_and_gaps(browser: Any, tmp_path: Path) -> None:
    tracks = [made(TRAIN, "ida", "v", 1, 3000), made(TRAIN, "ida", "v", 2, 1)]
    tracks.append(made(TRAIN, "ida", "v", 3, 20, gap=True, duration_ms=None))
    folder = write(tmp_path / "dataset", tracks)
    report(folder, tmp_path / "page.html")
    with Visit(browser, tmp_path / "page.html") as visit:
        for place in range(3):
            visit.page.click(f"#list button >> nth={place}")
            assert visit.page.locator("#plot rect").count() >= 1
        visit.page.locator("#scrub").fill("0.8")
        if visit.page.inner_text("#name").endswith("00003"):
            assert set(visit.page.locator("#values .v").all_inner_texts()) == {"-"}
