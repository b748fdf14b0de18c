"""What one does with a checkout, in the environment that nox itself is installed in but for `lowest`: `nox -l` lists it.

nox -s quick     after each edit
nox -s test      before a commit: what the README says
nox -s full      before a merge: the long tests too, as CI does
nox -s lowest    after a change of the dependencies: with the lowest versions that pyproject.toml allows; needs uv
nox -s lint docs
"""

import os

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "test"]


@nox.session
def test(session: nox.Session) -> None:
    """The tests of the day: all but the long ones. Arguments go to pytest."""
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session
def full(session: nox.Session) -> None:
    """All tests, with their usual budget: minutes."""
    session.run("pytest", "-n", "auto", *session.posargs, env={**os.environ, "CONSTRAINT_CRDT_BUDGET": "full"})


@nox.session(venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """The tests of the day with the lowest versions that pyproject.toml allows, in an environment of its own."""
    session.install("--resolution", "lowest-direct", "-e", ".[dev]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session
def quick(session: nox.Session) -> None:
    """The tests that start no process and take little time, with few examples."""
    session.run("pytest", "-n", "auto", "-m", "quick", *session.posargs)


@nox.session
def pure(session: nox.Session) -> None:
    """The quick tests of the core, with the core in Python."""
    folders = ("tests/crdt", "tests/types", "tests/protocol", "tests/laws")
    session.run("pytest", "-n", "auto", "-m", "quick", *folders, *session.posargs, env={**os.environ, "CONSTRAINT_CRDT_PURE": "1"})


@nox.session
def lint(session: nox.Session) -> None:
    """Style, format and types."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Run the code on the pages."""
    session.run("pytest", "tests/test_docs.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The numbers of the design, measured."""
    session.run("python", "benchmarks/exchange.py", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """How much of the package the tests run, and the branches that they never take."""
    flags = ("--cov", "--cov-report=term-missing:skip-covered", "--cov-report=html")
    session.run("pytest", "-n", "auto", *flags, *session.posargs, env={**os.environ, "CONSTRAINT_CRDT_BUDGET": "full"})


@nox.session
def nightly(session: nox.Session) -> None:
    """All tests with their large budget: hours."""
    session.run("pytest", "-n", "auto", *session.posargs, env={**os.environ, "CONSTRAINT_CRDT_BUDGET": "nightly"})
