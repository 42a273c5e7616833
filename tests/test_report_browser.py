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
from test_report import EVIL, evil_dataset, windows_file

from emovox.dataset import schema
from emovox.dataset.reader import load
from emovox.media.audio import SAMPLE_RATE
from emovox.reporting.report import report
from emovox.scores import softmax
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
        """Return the tracks of all pages of the list, and show the first page."""
        while self.turn("#previous"):
            pass
        found = self.shown()
        while self.turn("#next"):
            found += self.shown()
        while self.turn("#previous"):
            pass
        return found

    def shown(self) -> list[str]:
        """Return the tracks of the page of the list."""
        return [str(text) for text in self.page.locator("#list .id").all_inner_texts()]

    def turn(self, button: str) -> bool:
        """Press a button of the pages; False if there is no further page."""
        found = self.page.locator(button)
        if not found.is_visible() or found.is_disabled():
            return False
        found.evaluate("button => button.click()")
        return True

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


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with 300 tracks, and its dataset."""
    folder = tmp_path_factory.mktemp("large")
    tracks = [made(TRAIN, "ida", "v", k, 6 + k % 9, gap=k % 4 == 0) for k in range(1, 320)]
    report(write(folder / "dataset", tracks), folder / "page.html")
    return folder


def test_long_lists_have_pages(browser: Any, large: Path) -> None:
    viewport = {"width": 400, "height": 900}
    with Visit(browser, large / "page.html", viewport=viewport) as visit:
        page = visit.page
        assert len(visit.shown()) == 20
        assert page.evaluate("document.documentElement.scrollHeight") < 9000
        assert page.inner_text("#page") == "1 to 20 of 300"
        assert page.is_disabled("#previous")
        found = visit.listed()
        assert len(found) == len(set(found)) == 300
        page.click("#next")
        assert visit.shown() == found[20:40]
        assert 0 <= page.locator("#count").bounding_box()["y"] < 200
        page.fill("#search", found[299])
        assert visit.shown() == [found[299]] and page.is_hidden("#pages")
        page.click("#list button")
        page.keyboard.press("Escape")
        page.fill("#search", "")
        assert visit.shown() == found[:20]
    place = f"#track={found[50]}"
    with Visit(browser, large / "page.html", place) as visit:
        assert visit.shown() == found[40:60] and visit.page.inner_text("#name") == found[50]
        for _ in range(9):
            visit.page.keyboard.press("ArrowDown")
        assert visit.shown() == found[40:60]
        visit.page.keyboard.press("ArrowDown")
        assert visit.shown() == found[60:80] and visit.page.inner_text("#name") == found[60]


def strip_of(page: Any, name: str) -> list[tuple[bool, float, float]]:
    """Return the parts of a track's strip in the list: is it a face, and start and end in 0..1."""
    button = page.locator("#list button", has_text=name)
    picture = button.locator(".strip").evaluate("strip => strip.style.backgroundImage")
    [gradient] = re.findall(r"linear-gradient\(90deg, (.*)\), var", picture)
    parts = re.findall(r"(transparent|var\(--e\d\)) ([\d.]+)% ([\d.]+)%", gradient)
    return [(kind != "transparent", float(a) / 100, float(b) / 100) for kind, a, b in parts]


def test_strips_and_durations_are_those_of_the_dataset(browser: Any, tmp_path: Path) -> None:
    steps = schema.STEP_MS / 1000
    durations = {1: 24 * 240, 2: 12 * 240 - 170, 3: 2500, 4: None, 5: 1}
    gapless = {number: number != 3 for number in durations}
    tracks = [
        made(TRAIN, "ida", "v", number, 12 if gapless[number] else 8, gap=not gapless[number],
             duration_ms=duration)
        for number, duration in durations.items()
    ]  # fmt: skip
    report(write(tmp_path / "dataset", tracks), tmp_path / "page.html")
    with Visit(browser, tmp_path / "page.html") as visit:
        for number, duration in durations.items():
            track = tracks[number - 1]
            row = visit.page.locator("#list button", has_text=track.row.track_id)
            text = f"{duration / 1000:.2f} s" if duration else "2.88 s of grid"
            assert row.locator(".under > span").last.inner_text() == text
            end = duration / 1000 if duration and duration > 11 * 240 else 12 * steps
            end = 2.5 if number == 3 else end
            parts = strip_of(visit.page, track.row.track_id)
            assert parts[0][1] == 0 and parts[-1][2] == pytest.approx(1, abs=2e-4)
            covered = np.zeros(5000, bool)
            for is_face, start, stop in parts:
                if is_face:
                    covered[round(start * 5000) : round(stop * 5000)] = True
            times = (np.arange(5000) + 0.5) / 5000 * end
            expected = np.isin(np.floor(times / steps), track.index)
            assert (covered != expected).mean() < 0.002
            row.click()
            if number != 5:
                assert visit.page.inner_text("#time") == f"0.00 / {end:.2f} s"
            assert text in visit.page.inner_text("#meta")


def test_probabilities_are_the_softmax_of_the_logits(browser: Any, plain: Path) -> None:
    data = load(plain / "dataset")
    with Visit(browser, plain / "page.html") as visit:
        page = visit.page
        page.click("#list button >> nth=2")
        name = page.inner_text("#name")
        page.click("#as-probabilities")
        assert page.get_attribute("#as-probabilities", "aria-pressed") == "true"
        values = [float(v) for v in page.locator("#values .v").all_inner_texts()]
        np.testing.assert_allclose(values, softmax(data.logits(name))[0], atol=0.011)
        cells = page.locator("#numbers tbody tr >> nth=1").locator("td").all_text_contents()
        expected = softmax(data.logits(name))[1]
        np.testing.assert_allclose([float(c) for c in cells], expected, atol=0.011)
        page.keyboard.press("ArrowDown")
        assert page.get_attribute("#plot svg", "aria-label").startswith("8 probabilities")
        page.click("#as-logits")
        assert page.get_attribute("#plot svg", "aria-label").startswith("8 logits")


def test_label_majority_and_strongest_are_explained(browser: Any, tmp_path: Path) -> None:
    """The label follows one strong frame, the majority most frames."""
    differ = np.zeros((10, 8), np.float32)
    differ[:, 0], differ[4, 4], differ[6, 6] = 2, 9, 1.5
    same = np.zeros((10, 8), np.float32)
    same[:, 0] = 3
    tracks = [made(TRAIN, "ida", "v", k + 1, 10, logits=x) for k, x in enumerate((differ, same))]
    report(write(tmp_path / "dataset", tracks), tmp_path / "page.html")
    with Visit(browser, tmp_path / "page.html") as visit:
        page = visit.page
        page.locator("#list button", has_text="ida/v/00001").click()
        assert "label anger, majority neutral" in page.inner_text("#meta")
        lines = page.locator("#terms li").all_inner_texts()
        assert lines[:2] == [
            "Label anger: has the highest logit of all frames, 9.00.",
            "Majority neutral: dominant in the most frames, 9 of 10.",
        ]
        assert (
            "Strongest fear: the highest logit of fear in all tracks, 1.50. The label is anger, "
            "whose logit reaches 9.00."
        ) in lines
        page.locator("#list button", has_text="ida/v/00002").click()
        assert not [text for text in page.locator("#terms li").all_inner_texts()
                    if not text.startswith("Strongest")]  # fmt: skip


def test_student_is_drawn_over_the_teacher(browser: Any, tmp_path: Path) -> None:
    tracks = [made(TRAIN, "ida", "v", number, 20) for number in (1, 2)]
    folder = write(tmp_path / "dataset", tracks)
    scores = [0.1, 0.6, 0.3, *[0.0] * 5]
    logits = np.array([2.0, -1.0, *[0.0] * 6])
    path, silence = "wav/ida/v/00001.wav", ["silent", *[""] * 9]
    rows = [(path, 0, 2, "heard", "", *scores), (path, 1, 3, *silence)]
    rows.append((path, 2, 9, "heard", "", *scores[::-1]))
    runs = [windows_file(tmp_path / EVIL.replace("/", ""), rows)]
    row = ("ida/v/00002.wav", 0, 4.8, "heard", "", *logits)
    runs.append(windows_file(tmp_path / "logits", [row]))
    report(folder, tmp_path / "page.html", student=runs)
    with Visit(browser, tmp_path / "page.html") as visit:
        page = visit.page
        page.locator("#list button", has_text="ida/v/00001").click()
        assert page.locator("#trace option").all_inner_texts() == ["none", runs[0].name]
        assert page.locator("#plot polyline.heard").count() == 0
        page.select_option("#trace", runs[0].name)
        assert page.get_attribute("#as-probabilities", "aria-pressed") == "true"
        assert page.locator("#plot polyline.heard").count() == 2 * 8  # before and after silence
        assert [float(u) for u in page.locator("#values .u").all_inner_texts()] == scores
        page.locator("#scrub").fill("4")
        assert [float(u) for u in page.locator("#values .u").all_inner_texts()] == scores[::-1]
        assert "Dotted lines" in page.inner_text("#key")
        assert "happiness at 1.00 s" in page.get_attribute("#plot svg", "aria-label")
        page.click("#as-logits")
        assert page.locator("#plot polyline.heard").count() == 0
        page.locator("#list button", has_text="ida/v/00002").click()
        page.select_option("#trace", "logits")
        found = [float(u) for u in page.locator("#values .u").all_inner_texts()]
        np.testing.assert_allclose(found, softmax(logits[None])[0], atol=0.0051)


def test_states_of_the_sound_differ(browser: Any, filmed: Path, tmp_path: Path) -> None:
    shutil.copytree(filmed, tmp_path / "filmed")
    path = tmp_path / "filmed/corpus/wav/id1/v/00001.wav"
    silent = {"damaged": "The sound cannot be read.", "missing": "The file has no sound."}
    for state, text in silent.items():
        if state == "damaged":
            path.write_bytes(b"RIFF of something else")
        else:
            path.unlink()
        page_file = tmp_path / f"{state}.html"
        report(tmp_path / "filmed/dataset", page_file, media=tmp_path / "filmed/corpus")
        with Visit(browser, page_file) as visit:
            visit.page.click("#list button >> nth=0")
            assert visit.page.inner_text("#silent") == text
    with Visit(browser, filmed / "page.html") as visit:
        visit.page.click("#list button >> nth=0")
        assert visit.page.is_hidden("#silent")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_page_follows_the_rules_of_axe(
    browser: Any, plain: Path, filmed: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    lines = '{"epoch": 0, "train_loss": 2.0, "heard_val_loss": 1.9}\n'
    (tmp_path / "run").mkdir()
    (tmp_path / "run/log.jsonl").write_text(lines)
    rows = [("id1/v/00001.mp4", 0, 2, "heard", "anger", *[0.125] * 8)]
    windows_file(tmp_path / "run", rows)
    runs = [plain / "run", tmp_path / "run"]
    report(filmed / "dataset", tmp_path / "page.html", media=filmed / "corpus", student=runs)
    for file in (plain / "page.html", tmp_path / "page.html"):
        # The rules run as a script of the page, which its policy does not allow.
        options: Any = {"viewport": {"width": width, "height": 900}, "bypass_csp": True}
        with Visit(browser, file, color_scheme=scheme, **options) as visit:
            page = visit.page
            page.emulate_media(reduced_motion="reduce", color_scheme=scheme)
            for summary in page.locator("main summary").all():
                if summary.is_visible():
                    summary.click()
            found = axe.run(page).response["violations"]
            page.click("#list button >> nth=0")
            if page.is_visible("#trace"):
                page.select_option("#trace", index=1)
            for summary in page.locator("#detail summary").all():
                summary.click()
            found += axe.run(page).response["violations"]
            assert not [(each["id"], [n["html"] for n in each["nodes"]]) for each in found]


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
