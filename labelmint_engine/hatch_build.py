"""Builds the wheel labelmint-engine: `bundle` and `engines` under the name labelmint_engine.

Enter: the checkout's folders, as they are. Leave: copies in which `from bundle.open import ...`
reads `from labelmint_engine.bundle.open import ...`, so that installing the wheel takes no other
import name than its own. Only lines of imports change.
"""

import ast
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

ROOF = "labelmint_engine"
PACKAGES = ("bundle", "engines")
CHECKOUT = Path(__file__).resolve().parent.parent


class Dependencies(MetadataHookInterface):
    """The labelmint of the same checkout, whose latents and options the engine shares."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fills in `dependencies`."""
        release = f"labelmint=={metadata['version']}"
        metadata["dependencies"] = [release, "click>=8.1", "msgspec>=0.18", "numpy>=1.23.5"]


class UnderOneRoof(BuildHookInterface[Any]):
    """Adds the rewritten files to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Writes them to a temporary folder, which `finalize` removes."""
        self._folder = Path(tempfile.mkdtemp())
        included = build_data["force_include"]
        license_file = CHECKOUT / "LICENSE"
        included[str(license_file)] = f"{ROOF}/LICENSE"
        for source, name in files_of_wheel():
            copy = self._folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(under_one_roof(source.read_text("utf-8"), name), "utf-8")
            included[str(copy)] = name

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes the copies."""
        shutil.rmtree(self._folder)


def files_of_wheel() -> list[tuple[Path, str]]:
    """Files of the checkout, and their names in the wheel."""
    own = [(CHECKOUT / ROOF / "__init__.py", f"{ROOF}/__init__.py")]
    return own + [
        (path, f"{ROOF}/{path.relative_to(CHECKOUT).as_posix()}")
        for package in PACKAGES
        for path in sorted((CHECKOUT / package).rglob("*.py"))
    ]


def under_one_roof(source: str, name: str) -> str:
    """The source with imports of PACKAGES from under the roof.

    Raises SyntaxError for `import bundle.open`, whose name in the code would have to change too.
    """
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source, name)):
        if isinstance(node, ast.Import):
            if any(alias.name.split(".")[0] in PACKAGES for alias in node.names):
                raise SyntaxError(f"{name}:{node.lineno}: write `from package.module import name`")
        elif isinstance(node, ast.ImportFrom) and not node.level:
            package = (node.module or "").split(".")[0]
            if package in PACKAGES:
                line = lines[node.lineno - 1]
                lines[node.lineno - 1] = line.replace(
                    f"from {package}", f"from {ROOF}.{package}", 1
                )
    return "".join(lines)
