"""python -m bundle verify DIR: is this the bundle that was exported, every byte of it?"""

import sys
from pathlib import Path

import click

from bundle.errors import BundleError
from bundle.open import open_bundle


@click.group()
def main() -> None:
    """Looks at bundles; runs nothing in them."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--bundle-id", help="Which bundle it has to be.")
def verify(folder: Path, bundle_id: str | None) -> None:
    """Compares every file with the manifest's hashes; exits 1, in one line, when one differs."""
    try:
        found = open_bundle(folder).manifest.bundle_id
    except BundleError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    if bundle_id not in (None, found):
        click.echo(
            f"error: {folder} is bundle {found}, not {bundle_id}; put that one there, or expect "
            "this one",
            err=True,
        )
        sys.exit(1)
    click.echo(f"{folder}: {found}")


if __name__ == "__main__":
    main()
