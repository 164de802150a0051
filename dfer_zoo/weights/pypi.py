"""Find a wheel on the package index that pip is configured to use: PyPI, a mirror, or an internal index."""

from __future__ import annotations

import configparser
import http.client
import json
import os
import re
import sys
import urllib.error
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from ..errors import WeightsUnavailable
from .transfer import open_url

DEFAULT_INDEX = "https://pypi.org/simple"
MAX_PAGE = 32 << 20


def index_url() -> str:
    """Return the index of pip's settings: ``PIP_INDEX_URL``, then its configuration files."""
    if url := os.environ.get("PIP_INDEX_URL"):
        return url.rstrip("/")
    parser = configparser.RawConfigParser()
    parser.read(_configuration_files(), encoding="utf-8")
    url = parser.get("install", "index-url", fallback=None) or parser.get("global", "index-url", fallback=None)
    return (url or DEFAULT_INDEX).rstrip("/")


def _configuration_files() -> list[Path]:
    """Return pip's configuration files; later ones take precedence."""
    name = "pip.ini" if sys.platform == "win32" else "pip.conf"
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [Path("/etc/pip.conf"), home / ".pip" / name, config / "pip" / name, Path(sys.prefix) / name]
    if chosen := os.environ.get("PIP_CONFIG_FILE"):
        files.append(Path(chosen))
    return files


def wheel_url(where: str) -> str:
    """Return the link of a wheel.

    Args:
        where: ``project==version/wheel``, as a record's origin names it.

    Raises:
        WeightsUnavailable: The index cannot be read, or does not list the wheel.
    """
    requirement, _, wheel = where.partition("/")
    project = re.sub(r"[-_.]+", "-", requirement.partition("==")[0]).lower()
    page = f"{index_url()}/{project}/"
    for url in _links(page):
        if unquote(urlsplit(url).path).rpartition("/")[2] == wheel:
            return url
    raise WeightsUnavailable(f"the package index {page} does not list {wheel}. PIP_INDEX_URL sets another index.")


def _links(page: str) -> list[str]:
    kinds = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
    try:
        with open_url(page, {"Accept": kinds}) as answer:
            text = answer.read(MAX_PAGE).decode("utf-8", "replace")
            base, kind = answer.url, answer.headers.get_content_type()
        found = [file["url"] for file in json.loads(text)["files"]] if kind.endswith("json") else _hrefs(text)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsUnavailable(
            f"the package index {page} cannot be read ({error}). PIP_INDEX_URL sets another index."
        ) from error
    credentials = urlsplit(page).netloc.rpartition("@")[0]
    links = [urldefrag(urljoin(base, str(url)))[0] for url in found]
    host = urlsplit(page).netloc.rpartition("@")[2]
    if not credentials:
        return links
    return [url.replace(f"//{host}/", f"//{credentials}@{host}/", 1) for url in links]


def _hrefs(text: str) -> list[str]:
    found: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(value for name, value in attrs if tag == "a" and name == "href" and value)

    Links().feed(text)
    return found
