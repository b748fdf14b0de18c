"""The public names of `constraint_crdt.protocol` and `constraint_crdt.simulation`: complete, sorted, and loaded on first use."""

import subprocess
import sys
from types import ModuleType

import pytest

import constraint_crdt.protocol
import constraint_crdt.simulation

PACKAGES = [constraint_crdt.protocol, constraint_crdt.simulation]
by_name = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)


@by_name
def test_every_public_name_is_there_and_documented(package: ModuleType) -> None:
    assert package.__all__ == sorted(package._MODULE_OF)
    for name in package.__all__:
        assert getattr(package, name).__doc__, name
        assert name in dir(package)


@by_name
def test_another_name_is_refused(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.processes
@by_name
@pytest.mark.processes
def test_importing_the_package_loads_none_of_its_modules(package: ModuleType) -> None:
    code = f"import sys, {package.__name__}; print([name for name in sys.modules if name.startswith('{package.__name__}.')])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert told == "[]\n"
