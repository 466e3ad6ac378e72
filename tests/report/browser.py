"""A page as a real browser shows it: Chromium, without a network."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr")
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND"
DARK = "--blink-settings=preferredColorScheme=0"
LIGHT = "--blink-settings=preferredColorScheme=1"

# Put into a copy of the page: what the browser made of it.
_PROBE = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(
    (e) => !e.closest("svg") && e.getBoundingClientRect().right > innerWidth + 1);
  const charts = [...document.querySelectorAll("svg.chart")].map((e) => {
    const box = e.getBoundingClientRect();
    const out = [...e.querySelectorAll("text")].filter((t) => {
      const b = t.getBoundingClientRect();
      return b.left < box.left - 40 || b.right > box.right + 40;
    });
    return [Math.round(box.width), Math.round(box.height), out.length];
  });
  const found = {wide: wide.map((e) => e.outerHTML.slice(0, 80)), charts,
    loaded: performance.getEntriesByType("resource").map((e) => e.name)};
  const note = document.createElement("pre");
  note.id = "probe"; note.textContent = JSON.stringify(found); document.body.append(note);
});</script>"""


@dataclass(frozen=True)
class Shot:
    """A picture of a page. pixels: shape [height, width, 3], 0 to 1. log: what the browser complained of."""

    pixels: NDArray[np.float32]
    log: str


@dataclass(frozen=True)
class Browser:
    command: str

    @classmethod
    def found(cls) -> Browser:
        """Skips the test where there is no Chromium."""
        command = next(filter(None, map(shutil.which, NAMES)), None)
        if command is None:
            pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed (apt-get install chromium)")
        return cls(command)

    def picture(self, page: Path, target: Path, *flags: str, size: str = "1100,3000") -> Shot:
        from matplotlib.image import imread

        done = self._run(page, f"--window-size={size}", f"--screenshot={target}", *flags)
        return Shot(imread(target)[..., :3], done.stderr)

    def probe(self, page: Path, folder: Path, size: str = "1100,3000") -> tuple[str, str]:
        """The page's text, and what _PROBE found, as JSON."""
        copy = folder / "probed.html"
        copy.write_text(page.read_text().replace("</body>", f"{_PROBE}</body>"))
        html = self._run(copy, f"--window-size={size}", "--virtual-time-budget=3000", "--dump-dom").stdout
        found = re.search(r'<pre id="probe">(.*?)</pre>', html, re.DOTALL)
        assert found, html[-500:]
        text = re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", html, flags=re.DOTALL)
        return " ".join(unescape(text).split()), unescape(found[1])

    def _run(self, page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
        command = [self.command, *FLAGS, OFFLINE, f"--user-data-dir={page.parent}/profile", *flags]
        return subprocess.run(
            [*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
        )


def share_of(shot: Shot, colour: str) -> float:
    """The share of pixels that have this colour, "#rrggbb", or nearly."""
    wanted = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return float((np.abs(shot.pixels - wanted).max(axis=-1) < 0.03).mean())
