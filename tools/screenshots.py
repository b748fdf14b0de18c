"""Takes the pictures of the dashboard that the documentation shows: desktop, phone and dark, of 5 and of 500 nodes.

    python tools/screenshots.py [DIRECTORY]

Needs Debian's packages `chromium` and `chromium-driver`. The fleets are those of `tests/dashboard/large_fleet.py`.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.dashboard.chromium import Chromium, chromium, missing
from tests.dashboard.large_fleet import Size, large_fleet

ROOT = Path(__file__).parents[1]
DESKTOP, PHONE = (1280, 800), (390, 844)
SETTLED = 2.0
"""Seconds that a page has after it knows all rows, to say who has heard of what."""

SMALL, LARGE = Size(nodes=5, constraints=7, cut_off=1), Size(nodes=500, constraints=10_000, cut_off=8)
PICTURES = (
    ("five-nodes", SMALL, DESKTOP, False, ""),
    ("five-nodes-dark", SMALL, DESKTOP, True, "#/constraint/battery"),
    ("five-nodes-phone", SMALL, PHONE, False, ""),
    ("five-nodes-phone-dark", SMALL, PHONE, True, "#/constraint/battery"),
    ("500-nodes", LARGE, DESKTOP, False, ""),
    ("500-nodes-dark", LARGE, DESKTOP, True, "#/node/arm-133"),
    ("500-nodes-phone", LARGE, PHONE, False, ""),
)


def take(page: Chromium, url: str, picture: tuple[str, Size, tuple[int, int], bool, str], directory: Path) -> None:
    """One picture."""
    name, _, (width, height), dark, where = picture
    page.open("about:blank")
    page.size(width, height, dark=dark)
    page.open(f"{url}/{where}")
    page.until(lambda: page.count("#constraints[aria-busy=false]"), "all rows", within=60)
    time.sleep(SETTLED)
    page.screenshot(directory / f"{name}.png")


def main() -> int:
    """Take them all."""
    parser = argparse.ArgumentParser(description="Take the pictures of the dashboard.")
    parser.add_argument("directory", nargs="?", type=Path, default=ROOT / "docs" / "screenshots")
    directory = parser.parse_args().directory
    why = missing()
    if why is not None:
        print(why, file=sys.stderr)
        return 1
    directory.mkdir(parents=True, exist_ok=True)
    with chromium() as page:
        for size in (SMALL, LARGE):
            with large_fleet(size, events=2.0 if size is LARGE else 0.0) as url:
                for picture in PICTURES:
                    if picture[1] is size:
                        take(page, url, picture, directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
