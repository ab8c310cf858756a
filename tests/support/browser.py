"""A page in a real browser without a screen: what it asked for, what it complained of, and what does not fit.

`python -m tests.support.browser PAGE WIDTH SCHEME [PICTURE]` prints it as JSON; tests run it so, as Playwright's loop
and its processes are then no part of theirs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, PHONE = 1280, 390  # pixels
# what is looked at in the page itself; a table wider than the screen may scroll inside its own region
LOOK = """() => {
  const wide = document.documentElement;
  const images = [...document.images];
  const named = node => node.hasAttribute("aria-label") || node.hasAttribute("aria-labelledby");
  return {
    overflow: wide.scrollWidth - wide.clientWidth,
    images: images.length,
    without_alt: images.filter(image => !image.hasAttribute("alt")).length,
    broken: images.filter(image => image.complete && image.naturalWidth === 0).length,
    unnamed: [...document.querySelectorAll('svg, [role=region], [role=img], nav')].filter(node => !named(node)).length,
    scrolling: [...document.querySelectorAll(".scroll")].filter(box => box.scrollWidth > box.clientWidth + 1).length,
    cut_captions: [...document.querySelectorAll("caption")]
      .filter(caption => caption.getBoundingClientRect().right > innerWidth).length,
    without_caption: [...document.querySelectorAll("table")].filter(table => !table.caption).length,
    headings: [...document.querySelectorAll("h1, h2, h3")].map(head => `${head.tagName} ${head.textContent}`),
    sections: [...document.querySelectorAll("main section")].map(section => section.id),
    links_to_nowhere: [...document.querySelectorAll('a[href^="#"]')]
      .filter(link => !document.getElementById(link.hash.slice(1))).length,
    pressed: window.pressed ?? null,
    text: document.body.innerText,
  };
}"""
# a table is sorted by its second column, twice; the arrow keys go to a point of the atlas
PLAY = """() => {
  const table = document.querySelector("table[data-sortable]");
  if (!table) return null;
  const column = [...table.tHead.rows[0].cells].findIndex(cell => cell.classList.contains("n"));
  const values = () => [...table.tBodies[0].rows].map(row => +row.cells[column].dataset.value);
  const button = table.tHead.rows[0].cells[column].querySelector("button");
  button.click();
  const falling = values();
  button.click();
  return [falling, values()];
}"""


def look(
    page: Path, width: int = DESKTOP, scheme: str = "light", picture: Path | None = None
) -> Any:
    """What a browser finds of a page. Skips where there is none."""
    pytest.importorskip("playwright")
    if not any(map(shutil.which, CHROMIUM)):
        pytest.skip("no chromium: apt-get install chromium")
    command = [sys.executable, "-m", "tests.support.browser", str(page), str(width), scheme]
    command += [] if picture is None else [str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout)


def _looked(page: Path, width: int, scheme: str, picture: Path | None) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, CHROMIUM)))
    # as root, and in a container with little shared memory, as CI is
    flags = ["--no-sandbox", "--disable-dev-shm-usage"]
    requests: list[str] = []
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=flags)
        tab: Any = browser.new_page(
            viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce"
        )
        tab.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: said.append(f"error: {error}"))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(page.absolute().as_uri())
        found = tab.evaluate(LOOK)
        if picture is not None:
            tab.screenshot(path=str(picture), full_page=True)
        found["sorted"] = tab.evaluate(PLAY)
        atlas = tab.query_selector(".atlas svg")
        if atlas is not None:
            atlas.focus()
            tab.keyboard.press("ArrowRight")
            found["tip"] = tab.inner_text(".atlas .tip")
        # what is asked for inside the page is no request: data of its own
        found["requests"] = [url for url in requests if not url.startswith("data:")]
        found["background"] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        tab.emulate_media(media="print")
        found["printed_nav"] = tab.evaluate(
            'getComputedStyle(document.querySelector("nav")).display'
        )
        browser.close()
    return found | {"said": said}


if __name__ == "__main__":
    page, width, scheme, *picture = sys.argv[1:]
    shown = Path(picture[0]) if picture else None
    sys.stdout.write(json.dumps(_looked(Path(page), int(width), scheme, shown)))
