"""`python -m bundle verify FOLDER`: compares a bundle with the hashes in its manifest."""

import sys
from pathlib import Path

from bundle.errors import BundleError, text_from_missing
from bundle.open import open_bundle

try:
    import click
except ModuleNotFoundError as error:
    sys.exit(text_from_missing(error))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Check exported bundles."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--bundle-id", help="Bundle id that the folder must have, sha256:<hex>.  [default: any]"
)
def verify(folder: Path, bundle_id: str | None) -> None:
    """Compare the size and SHA-256 of every file in FOLDER with its manifest.

    Prints the bundle id. On a difference, prints one line to stderr and exits with 1.
    """
    try:
        found = open_bundle(folder).manifest.bundle_id
    except BundleError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    if bundle_id not in (None, found):
        click.echo(
            f"error: {folder} is bundle {found}, not {bundle_id}; copy that bundle there, or give "
            f"--bundle-id {found}",
            err=True,
        )
        sys.exit(1)
    click.echo(f"{folder}: {found}")


if __name__ == "__main__":
    main()
