"""Builds images without a daemon: with Debian's buildah, on a base made by mmdebstrap.

Needs root. Mounts exist only in namespaces that end with their commands.
"""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.chart import CHECKOUT

AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
BASE, IMAGE = "localhost/base:test", "localhost/labelmint:test"
# What the Dockerfile's commands and the wheels need beside Python.
PACKAGES = "python3,python3-venv,dash,coreutils,libstdc++6"
# As in every Debian, and what is mounted on.
FOLDERS = """
cd "$1"
for name in bin lib lib64 sbin; do mkdir -p usr/$name; ln -s usr/$name $name; done
mkdir proc sys
"""
# buildah may have been unpacked to a folder of its own, with its libraries.
LIBRARIES = """
set -e
lib=usr/lib/x86_64-linux-gnu
if [ "$PREFIX" != / ]; then mount -t overlay none -o "lowerdir=$PREFIX/$lib:/$lib" "/$lib"; fi
"""
SERVE = """
container=$(buildah from --signature-policy policy.json --pull-never "$IMAGE")
root=$PWD/root
mount --bind "$(buildah mount "$container")" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o mode=1777 none "$root/tmp"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir "$root/tmp/model"
mount --bind "$BUNDLE" "$root/tmp/model"
"""


@dataclass(frozen=True)
class Store:
    """Folder for buildah's storage, and its configuration files."""

    folder: Path

    def command(self, script: str, *words: str) -> list[str]:
        """Command that runs the script, then the words, in a separate mount namespace."""
        line = ["unshare", "-m", "--propagation", "private", "bash", "-c"]
        return [*line, f'{LIBRARIES}{script}\nexec "$@"', "bash", *words]

    def environment(self, **more: str) -> dict[str, str]:
        buildah = shutil.which("buildah")
        assert buildah is not None
        prefix = Path(buildah).resolve().parents[2]
        return {
            "PATH": f"{Path(buildah).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "PREFIX": str(prefix),
            "IMAGE": IMAGE,
            **more,
        }

    def run(self, *words: str) -> str:
        done = subprocess.run(
            self.command("", *words),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    def build(self, context: Path, *options: str) -> None:
        self.run(
            "buildah", "bud", "--signature-policy", "policy.json", "--isolation", "chroot",
            "--format", "docker", "--pull-never", *options, str(context),
        )  # fmt: skip

    def config(self) -> dict[str, Any]:
        """The image's configuration: user, entry point, environment and so on."""
        found = json.loads(self.run("buildah", "inspect", "--type", "image", IMAGE))
        return dict(found["Docker"]["config"])


def store_at(folder: Path) -> Store:
    (folder / "root").mkdir(parents=True)
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
    )
    (folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return Store(folder)


def build_base(store: Store, mmdebstrap: str) -> None:
    """Builds a base of Debian with Python, and this machine's certificate authorities for pip.

    Packages are unpacked and not configured: Python does not need it, and it would take longer than
    everything else.
    """
    context = store.folder / "base"
    context.mkdir()
    (context / "pip.conf").write_text(f"[global]\ncert = {AUTHORITIES}\n")
    line = [
        mmdebstrap, "--quiet", "--variant=extract", f"--include={PACKAGES}",
        f"--setup-hook={FOLDERS}", "bookworm", str(context / "debian.tar"),
    ]  # fmt: skip
    subprocess.run(line, check=True, capture_output=True)
    shutil.copy(AUTHORITIES, context)
    (context / "Dockerfile").write_text(
        "FROM scratch\nADD debian.tar /\nCOPY pip.conf /etc/\n"
        f"COPY {AUTHORITIES.name} {AUTHORITIES.parent}/\n"
    )
    store.build(context, "-t", BASE)
    shutil.rmtree(context)


def build_target(store: Store, target: str) -> None:
    """Builds a target of the checkout's Dockerfile, as `IMAGE`."""
    arguments = ["--build-arg", f"BASE_IMAGE={BASE}", "--build-arg", "REVISION=abc123"]
    store.build(CHECKOUT, "--target", target, *arguments, "-t", IMAGE)
