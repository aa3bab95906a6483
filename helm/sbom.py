"""Inventory of a container image, in CycloneDX's format: `python sbom.py APP VENV`.

Runs while the image is built, from an environment of its own, and writes APP/sbom.cdx.json: the
Python packages of VENV, and Debian's packages of the base. The same packages give the same bytes.
"""

import argparse
import re
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.spdx import is_expression
from packageurl import PackageURL

DPKG, RELEASE = Path("/var/lib/dpkg/status"), Path("/etc/os-release")
FILE = "sbom.cdx.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("app", type=Path, help="folder of the applications, such as /app")
    parser.add_argument("venv", type=Path, help="virtual environment that runs them")
    given = parser.parse_args()
    (given.app / FILE).write_text(inventory(given.app, given.venv), "utf-8")


def inventory(app: Path, venv: Path, dpkg: Path = DPKG) -> str:
    """The document. `dpkg` is the status file of Debian's packages; it may be missing."""
    sites = sorted(str(path) for path in venv.glob("lib/python*/site-packages"))
    found = [component_from_wheel(wheel) for wheel in distributions(path=sites)]
    if dpkg.exists():
        found += components_from_dpkg(dpkg.read_text("utf-8"))
    names = sorted(str(component.purl) for component in found)
    bom = Bom(components=found, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, " ".join(names)))
    bom.metadata.timestamp = datetime.fromtimestamp(0, timezone.utc)  # for the same bytes
    bom.metadata.component = Component(
        name="labelmint", version=version_of(app), type=ComponentType.CONTAINER, bom_ref="labelmint"
    )
    bom.register_dependency(bom.metadata.component, found)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def version_of(app: Path) -> str:
    text = (app / "labelmint/__init__.py").read_text("utf-8")
    (version,) = re.findall(r'(?m)^__version__ = "(.+)"$', text)
    return str(version)


def component_from_wheel(wheel: Distribution) -> Component:
    name = re.sub(r"[-_.]+", "-", wheel.name).lower()
    return component(name, wheel.version, "pypi", wheel.metadata["License-Expression"])


def components_from_dpkg(status: str) -> Iterator[Component]:
    """Debian's packages that are installed, of a status file."""
    release = RELEASE.read_text("utf-8") if RELEASE.exists() else ""
    vendor = (re.findall(r'(?m)^ID="?(\w+)"?$', release) or ["debian"])[0]
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"(?m)^([A-Z][\w-]*): (.*)$", paragraph))
        if fields.get("Status") == "install ok installed":
            yield component(fields["Package"], fields["Version"], "deb", None, vendor)


def component(
    name: str, version: str, kind: str, licence: str | None, vendor: str | None = None
) -> Component:
    """A component with its package URL; its licence is kept if it is an expression of SPDX."""
    url = PackageURL(kind, vendor, name, version)
    licences = [LicenseExpression(licence)] if licence and is_expression(licence) else []
    return Component(name=name, version=version, purl=url, bom_ref=str(url), licenses=licences)


if __name__ == "__main__":
    main()
