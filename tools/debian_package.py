"""A package of Debian with a node: the wheel and its dependencies in a virtual environment below `/opt/constraint-crdt`.

    python tools/debian_package.py [--out FOLDER] [--extras fast,mqtt]

Needs Debian's `dpkg-deb` and its `python3`, for whose version the package is made; pip gets the dependencies. The package has the
command in `/usr/bin`, the unit of systemd, which is not enabled, the man page, and the other files of `deploy/` as examples. It
makes the user of the unit, and `/etc/constraint-crdt` for the settings. Removing it leaves the settings and the store; so does
purging.
"""

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
NAME = "constraint-crdt"
PLACE = f"opt/{NAME}"
PYTHON = "/usr/bin/python3"
UNIT = f"{NAME}.service"

CONTROL = """\
Package: {name}
Version: {version}
Architecture: {architecture}
Maintainer: {name}
Installed-Size: {size}
Depends: python3 (>= {python}), python3 (<< {next_python}), adduser
Section: net
Priority: optional
Description: a fleet shares one set of constraints without a server
 Nodes gossip constraints such as `speed_mps <= 1.5`, judge them by what they
 measure, and answer from any node. The command is `constraint-crdt`.
"""

SCRIPTS = {
    "postinst": """\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    getent passwd constraint-crdt > /dev/null ||
        adduser --system --group --no-create-home --home /nonexistent --quiet constraint-crdt
    if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
fi
""",
    "prerm": """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then systemctl disable --now constraint-crdt.service; fi
""",
    "postrm": """\
#!/bin/sh
set -e
if [ "$1" = remove ]; then rm -rf /opt/constraint-crdt; fi
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
""",
}
"""What the package does when it is installed and removed. The user stays, as it may own files."""


def run(*words: str | Path, **environment: str) -> str:
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    return done.stdout.strip()


def debian_version(version: str) -> str:
    """A version of Python packaging as Debian orders it: a release candidate is before its release."""
    return re.sub(r"\.?(a|b|rc|dev)(\d+)", r"~\1\2", version)


def build(out: Path, extras: str, wheel: Path | None = None) -> Path:
    """Make the package. `wheel`: one that was built before. Returns its path."""
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None:
            run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
            wheel = next(Path(folder).glob("*.whl"))
        stage = Path(folder) / "stage"
        _install(stage, wheel, extras)
        version = run(PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
        major, minor = map(int, version.split("."))
        control = CONTROL.format(
            name=NAME, version=debian_version(wheel.name.split("-")[1]), python=version, next_python=f"{major}.{minor + 1}",
            architecture=run("dpkg", "--print-architecture"), size=int(run("du", "--summarize", stage).split()[0]),
        )  # fmt: skip
        (stage / "DEBIAN").mkdir()
        (stage / "DEBIAN" / "control").write_text(control)
        for name, text in SCRIPTS.items():
            script = stage / "DEBIAN" / name
            script.write_text(text)
            script.chmod(0o755)
        out.mkdir(parents=True, exist_ok=True)
        made = out / f"{NAME}_{debian_version(wheel.name.split('-')[1])}_{run('dpkg', '--print-architecture')}.deb"
        run("dpkg-deb", "--root-owner-group", "-Zxz", "-z1", "--build", stage, made)
        return made


def _install(stage: Path, wheel: Path, extras: str) -> None:
    """Lay out the files."""
    venv = stage / PLACE
    run(PYTHON, "-m", "venv", "--without-pip", venv)
    pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python")]
    run(*pip, "install", "--quiet", "--no-compile", f"{wheel}[{extras}]" if extras else str(wheel))
    for file in (*(venv / "bin").iterdir(), venv / "pyvenv.cfg"):
        if not file.is_symlink():
            file.write_text(file.read_text().replace(str(stage), ""))
    for leftover in (venv / "bin").glob("[Aa]ctivate*"):
        leftover.unlink()
    run(PYTHON, "-m", "compileall", "-q", "-s", stage, "-p", "/", venv)
    places = {
        "usr/lib/systemd/system": [DEPLOY / UNIT],
        f"usr/share/doc/{NAME}": [ROOT / "README.md", ROOT / "CHANGELOG.md"],
        f"usr/share/doc/{NAME}/examples": [each for each in DEPLOY.iterdir() if each.name not in (UNIT, f"{NAME}.1", "Dockerfile")],
    }
    for folder, files in places.items():
        (stage / folder).mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, stage / folder / file.name)
    shutil.copyfile(ROOT / "LICENSE", stage / f"usr/share/doc/{NAME}/copyright")
    (stage / "usr/share/man/man1").mkdir(parents=True)
    (stage / f"usr/share/man/man1/{NAME}.1.gz").write_bytes(gzip.compress((DEPLOY / f"{NAME}.1").read_bytes(), mtime=0))
    (stage / "usr/bin").mkdir()
    (stage / "usr/bin" / NAME).symlink_to(f"/{PLACE}/bin/{NAME}")
    (stage / "etc" / NAME).mkdir(parents=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="where to write the package; default: build/")
    parser.add_argument("--extras", default="fast,mqtt", help="extras of the wheel; default: fast,mqtt")
    given = parser.parse_args(arguments)
    print(build(given.out, given.extras))
    return 0


if __name__ == "__main__":
    sys.exit(main())
