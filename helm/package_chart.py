"""Packages the chart, signs it and pushes it to an OCI registry: `python -m helm.package_chart`.

Prints the path of the archive, and after a push the reference with its digest.
"""

import os
import shutil
import tempfile
from pathlib import Path

import click
import helm_python
import yaml

CHART = Path(__file__).resolve().parent / "labelmint"


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("dist"))
@click.option("--source", default="", help="URL of the repository: home and source of the chart.")
@click.option("--push", default="", help="Registry to push to, such as oci://ghcr.io/team/charts.")
@click.option("--plain-http", is_flag=True, help="Push without TLS, to a registry for trials.")
@click.option("--key", default="", help="Name of the PGP key that signs; needs --keyring.")
@click.option("--keyring", type=click.Path(exists=True, dir_okay=False), help="Secret keyring.")
@click.option("--passphrase-file", type=click.Path(exists=True, dir_okay=False))
def main(
    out: Path,
    source: str,
    push: str,
    plain_http: bool,
    key: str,
    keyring: str | None,
    passphrase_file: str | None,
) -> None:
    """Package the chart, and sign and push it if asked to.

    Credentials of a registry are those that `helm registry login` or `docker login` stored.
    """
    if push and not push.startswith("oci://"):
        raise click.UsageError(f"--push {push} is no OCI registry; give oci://HOST/PATH")
    if bool(key) != bool(keyring):
        raise click.UsageError("--key and --keyring belong together; give both or neither")
    if source and not source.startswith("https://"):
        raise click.UsageError(f"--source {source} is no URL; give one that begins with https://")
    try:
        archive = packaged(out, source)
        click.echo(archive)
        if keyring:
            click.echo(
                helm_python.sign(archive, key=key, keyring=keyring, passphrase_file=passphrase_file)
            )
        if push:
            click.echo(pushed(archive, push, plain_http))
    except helm_python.HelmError as error:
        raise click.ClickException(" ".join(str(error).split())) from error


def packaged(out: Path, source: str) -> str:
    """Path of the archive, whose Chart.yaml has the source as home too."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / CHART.name
        shutil.copytree(CHART, copy)
        shutil.copy(CHART.parents[1] / "LICENSE", copy)
        if source:
            more = yaml.safe_dump({"home": source, "sources": [source]})
            with (copy / "Chart.yaml").open("a", encoding="utf-8") as file:
                file.write(more)
        return helm_python.package(os.fspath(copy), destination=os.fspath(out))


def pushed(archive: str, registry: str, plain_http: bool) -> str:
    """The reference under which the registry has the archive now, with its digest."""
    client = helm_python.RegistryClient(plain_http=plain_http)
    helm_python.push(archive, registry, client=client, plain_http=plain_http)
    version = Path(archive).stem.removeprefix(f"{CHART.name}-")
    tag = version.replace("+", "_")  # a tag may have no +
    reference = f"{registry.removeprefix('oci://').rstrip('/')}/{CHART.name}:{tag}"
    return f"{reference}@{client.resolve(reference)['digest']}"


if __name__ == "__main__":
    main()
