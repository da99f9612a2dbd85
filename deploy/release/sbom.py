"""What is in a release, as CycloneDX 1.6 (JSON): each package of an image with version, hashes and licence; a wheel.

    python -m deploy.release.sbom image deploy/docker/requirements.lock --name unmask:cpu --out cpu.cdx.json
    python -m deploy.release.sbom wheel dist/unmask-0.1.0-py3-none-any.whl --out wheel.cdx.json

Licences are read from the packages' metadata, so it runs where the lock is installed. SOURCE_DATE_EPOCH (Unix seconds)
is the time in the file; with it, equal input gives equal bytes.
"""

from __future__ import annotations

import argparse
import email.message
import email.parser
import hashlib
import json
import os
import re
import sys
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import InvalidRequirement, Requirement

# What the images run on: where a lock has a marker, it is evaluated for this.
IMAGE: Final = {
    "implementation_name": "cpython", "os_name": "posix", "platform_machine": "x86_64", "platform_system": "Linux",
    "platform_python_implementation": "CPython", "python_full_version": "3.11.9", "python_version": "3.11",
    "sys_platform": "linux", "extra": "",
}  # fmt: skip
# Packages whose metadata names no licence, and where it was read instead.
NAMED: Final = {
    # A package of NVIDIA without files of its own: it only names the others, which are under this licence.
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",
}
# Libraries inside of wheels, under other licences than the package (docs/licences.md).
BUNDLED: Final = {
    "av": {"ffmpeg": "LGPL-3.0-or-later", "libx264": "GPL-2.0-or-later", "libx265": "GPL-2.0-or-later"},
    "pillow-heif": {"libheif": "LGPL-3.0", "libde265": "LGPL-3.0", "libx265": "GPL-2.0-or-later"},
}
# Of a metadata field: longer ones are the text of a licence. And names that are not one.
_LONGEST_NAME: Final = 100
_NOT_NAMES: Final = {"", "UNKNOWN", "Dual License"}
# Names that packages use for licences of SPDX's list.
_SPDX: Final = {
    "Apache 2.0": "Apache-2.0", "3-Clause BSD License": "BSD-3-Clause", "ISC License": "ISC", "MIT License": "MIT",
    "OSI Approved :: Apache Software License": "Apache-2.0", "Apache Software License": "Apache-2.0",
}  # fmt: skip


class SbomError(Exception):
    """What is asked for cannot be described; the message says why."""


@dataclass(frozen=True, slots=True)
class Locked:
    """A package of a lock, and the sha256 of the files that may be installed."""

    name: str
    version: str
    sha256: tuple[str, ...]


def read_lock(path: Path) -> list[Locked]:
    """The packages of a lock that an image installs.

    Raises:
        SbomError: it cannot be read, or a package is not pinned or has no hash.
    """
    try:
        lines = re.sub(r"\\\n", " ", path.read_text("utf-8")).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SbomError(f"{path}: cannot be read: {error}") from error
    found = []
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        pin, *hashes = re.split(r"\s+--hash=", text)
        try:
            requirement = Requirement(pin)
        except InvalidRequirement as error:
            raise SbomError(f"{path}: {pin}: {error}") from error
        versions = [each.version for each in requirement.specifier if each.operator == "=="]
        if len(versions) != 1 or not hashes or not all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in hashes):
            raise SbomError(f"{path}: {pin}: expected one version and hashes by sha256: make lock")
        if requirement.marker is None or requirement.marker.evaluate(IMAGE):
            digests = tuple(each.removeprefix("sha256:") for each in hashes)
            found.append(Locked(requirement.name, versions[0], digests))
    if not found:
        raise SbomError(f"{path}: no packages")
    return found


def licence_of(fields: email.message.Message) -> str | None:
    """The licence that a package's metadata names: an SPDX expression, else a name; None: it names none."""
    if expression := fields.get("License-Expression"):
        return str(expression)
    name = str(fields.get("License") or "").strip()
    if name not in _NOT_NAMES and "\n" not in name and len(name) <= _LONGEST_NAME:
        return _SPDX.get(name, name)
    classes = [text.rpartition(" :: ")[2] for text in fields.get_all("Classifier", []) if text.startswith("License ::")]
    names = [_SPDX.get(text, text) for text in classes]
    return " / ".join(names) or None


def _installed_licence(package: Locked) -> str:
    if package.name in NAMED:
        return NAMED[package.name]
    try:
        found = metadata.distribution(package.name)
    except metadata.PackageNotFoundError as error:
        raise SbomError(f"{package.name} is not installed, so its licence is unknown: make setup") from error
    if found.version != package.version:
        raise SbomError(f"{package.name} {found.version} is installed, the lock has {package.version}: make setup")
    licence = licence_of(found.metadata)  # type: ignore[arg-type]
    if licence is None:
        raise SbomError(f"{package.name}: its metadata names no licence: add it to NAMED in {Path(__file__).name}")
    return licence


def _component(name: str, version: str | None, licence: str | None, **fields: object) -> Component:
    licences = [] if licence is None else [LicenseFactory().make_from_string(licence)]
    return Component(name=name, version=version, licenses=licences, **fields)  # type: ignore[arg-type]


def image_bom(lock: Path, name: str) -> Bom:
    """The packages of an image.

    Raises:
        SbomError: a package has no hash or no known licence.
    """
    image, _, tag = name.partition(":")
    components = [
        _component(
            package.name,
            package.version,
            _installed_licence(package),
            type=ComponentType.LIBRARY,
            purl=PackageURL("pypi", name=package.name, version=package.version),
            bom_ref=f"pkg:pypi/{package.name}@{package.version}",
            # One for each file of the release, of which pip installs the one that fits.
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in package.sha256],
            components=[
                _component(part, None, licence, type=ComponentType.LIBRARY, bom_ref=f"{package.name}/{part}")
                for part, licence in BUNDLED.get(package.name, {}).items()
            ],
        )
        for package in read_lock(lock)
    ]
    root = _component(image, tag or None, None, type=ComponentType.CONTAINER, bom_ref=name)
    return _bom(root, components, hashlib.sha256(lock.read_bytes() + name.encode()).hexdigest())


def wheel_bom(wheel: Path) -> Bom:
    """A wheel of Unmask: its hash and licence, the weights in it, and what it requires.

    Raises:
        SbomError: it cannot be read, or is not a wheel.
    """
    try:
        data = wheel.read_bytes()
        with zipfile.ZipFile(wheel) as file:
            (place,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
            fields = email.parser.BytesParser().parsebytes(file.read(place))
            weights = {
                Path(name).stem: hashlib.sha256(file.read(name)).hexdigest()
                for name in sorted(file.namelist())
                if re.fullmatch(r"models/weights/[^/]+\.safetensors", name)
            }
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise SbomError(f"{wheel}: not a wheel, or cannot be read: {error}") from error
    version = str(fields["Version"])
    sha256 = hashlib.sha256(data).hexdigest()
    root = _component(
        str(fields["Name"]),
        version,
        licence_of(fields),
        type=ComponentType.LIBRARY,
        purl=PackageURL("pypi", name=str(fields["Name"]), version=version),
        bom_ref=f"pkg:pypi/{fields['Name']}@{version}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
    )
    components = [
        _component(
            name,
            version,
            None,
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=f"weights:{name}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        )
        for name, digest in weights.items()
    ]
    # Ranges: what is installed is up to the installer.
    for text, requirement in _required(fields):
        component = _component(
            requirement.name,
            None,
            None,
            type=ComponentType.LIBRARY,
            purl=PackageURL("pypi", name=requirement.name),
            bom_ref=f"requires:{text}",
            properties=[Property(name="unmask:requires", value=text)],
        )
        components.append(component)
    return _bom(root, components, sha256)


def _required(fields: email.message.Message) -> Iterator[tuple[str, Requirement]]:
    for text in sorted(set(fields.get_all("Requires-Dist", []))):
        requirement = Requirement(text)
        if requirement.marker is None or "extra" not in str(requirement.marker):
            yield text, requirement


def _bom(root: Component, components: list[Component], seed: str) -> Bom:
    epoch_s = os.environ.get("SOURCE_DATE_EPOCH")
    when = datetime.now(UTC) if epoch_s is None else datetime.fromtimestamp(int(epoch_s), UTC)
    described = BomMetaData(component=root, timestamp=when)
    bom = Bom(components=components, metadata=described, serial_number=uuid.uuid5(uuid.NAMESPACE_OID, seed))
    bom.register_dependency(root, components)
    return bom


def write(bom: Bom, out: Path) -> None:
    """Write a document as JSON of CycloneDX 1.6, sorted."""
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=None)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n")


def main() -> int:
    """The command; exit code 2 for what cannot be described."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    what = parser.add_subparsers(dest="what", required=True)
    image = what.add_parser("image", help="the packages of a lock")
    image.add_argument("lock", type=Path)
    image.add_argument("--name", required=True, help="the image's name and tag")
    wheel = what.add_parser("wheel", help="a wheel of Unmask")
    wheel.add_argument("wheel", type=Path)
    for each in (image, wheel):
        each.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    try:
        bom = image_bom(options.lock, options.name) if options.what == "image" else wheel_bom(options.wheel)
        write(bom, options.out)
    except (SbomError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {len(bom.components)} components")
    return 0


if __name__ == "__main__":
    sys.exit(main())
