"""The command line: `PYTHONPATH=devcluster python3 -m devcluster COMMAND`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from devcluster.build import ARGOCD, HELM, KUEUE, S3_SERVER, build, build_all
from devcluster.cluster import bring_up, machine_lock, owner
from devcluster.control_groups import members
from devcluster.image import NON_ROOT, Image, import_image
from devcluster.layout import Layout, own_layout
from devcluster.mounts import Shared, shared_folders
from devcluster.packages import IMAGE_PACKAGES, PACKAGES, install_packages
from devcluster.progress import ClusterError, say
from devcluster.queueing import start_queueing, stop_queueing
from devcluster.remains import left_behind
from devcluster.removal import remove_cluster
from devcluster.simulation import start_simulation, stop_simulation
from devcluster.status import print_status


def main() -> int:
    arguments = _parser().parse_args()
    try:
        return int(arguments.run(own_layout(), arguments) or 0)
    except ClusterError as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "devcluster: interrupted; the same command goes on where this one was", file=sys.stderr
        )
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="devcluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text)
        added.set_defaults(run=run)
        return added

    packages = command("packages", _packages, "install the Debian packages it needs")
    packages.add_argument(
        "--for-images", action="store_true", help="those that build images from Dockerfiles instead"
    )
    command("build", lambda layout, _: build_all(layout), "build the cluster's programs")
    command("build-s3", lambda layout, _: _build_s3(layout), "build the S3 server for tests")
    command(
        "build-gitops", lambda layout, _: _build_gitops(layout), "build helm and Argo CD's part"
    )
    up = command("up", _up, "start the cluster (builds what is missing)")
    up.add_argument(
        "--mount",
        type=_shared,
        action="append",
        default=[],
        metavar="FOLDER[:PATH]",
        help="a further folder that containers see, read-only, at that path or its own",
    )
    down = command("down", _down, "remove the cluster and all it stored")
    down.add_argument("--any", action="store_true", help="another checkout's, too, if it runs")
    command("status", lambda layout, _: print_status(layout), "show the components")
    command("verify-clean", _verify_clean, "show what a removed cluster left on this machine")
    image = command("image", _image, "make a development image and load it into the cluster")
    _add_image_arguments(image)
    kwok = command("kwok-up", _kwok_up, "add simulated GPU nodes")
    kwok.add_argument("--nodes", type=int, default=4, help="how many (default: 4)")
    kwok.add_argument("--gpus", type=int, default=8, help="GPUs of each (default: 8)")
    kwok.add_argument(
        "--stages",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="further stages of KWOK; read when it starts",
    )
    command("build-kueue", lambda layout, _: _build_kueue(layout), "build Kueue's manager")
    command("kueue-up", lambda layout, _: start_queueing(layout), "start Kueue")
    command("kueue-down", lambda layout, _: stop_queueing(layout), "remove it and its objects")
    command("kwok-down", lambda layout, _: stop_simulation(layout), "remove the simulated nodes")
    return parser


def _add_image_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="for example tunesmith.dev/operator:dev")
    parser.add_argument(
        "--entrypoint",
        action="append",
        required=True,
        help="the program; repeat for each of its arguments (--entrypoint=-m)",
    )
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--workdir", default="/")
    parser.add_argument("--user", type=int, default=NON_ROOT)


def _shared(text: str) -> Shared:
    folder, _, destination = text.partition(":")
    source = Path(folder).absolute()
    return Shared(source, Path(destination) if destination else source)


def _packages(_: Layout, arguments: argparse.Namespace) -> None:
    install_packages(IMAGE_PACKAGES if arguments.for_images else PACKAGES)


def _build_s3(layout: Layout) -> None:
    build(S3_SERVER, layout)


def _build_kueue(layout: Layout) -> None:
    build(KUEUE, layout)


def _build_gitops(layout: Layout) -> None:
    for program in (HELM, ARGOCD):
        build(program, layout)


def _up(layout: Layout, arguments: argparse.Namespace) -> None:
    bring_up(layout, tuple(arguments.mount))


def _down(layout: Layout, arguments: argparse.Namespace) -> None:
    with machine_lock():
        found = owner() or layout
        # What another checkout left behind may go; what it runs is not ours to end.
        if found != layout and members() and not arguments.any:
            raise ClusterError(
                f"the cluster of {found.repository} runs on this machine: `python3 -m devcluster "
                "down --any` removes it"
            )
        remove_cluster(found)


def _verify_clean(layout: Layout, _: argparse.Namespace) -> int:
    found = left_behind(layout)
    for trace in found:
        say(f"left behind: {trace}")
    say("clean" if not found else f"{len(found)} traces")
    return 1 if found else 0


def _image(layout: Layout, arguments: argparse.Namespace) -> None:
    image = Image(
        name=arguments.name,
        entrypoint=tuple(arguments.entrypoint),
        environment=dict(each.split("=", 1) for each in arguments.env),
        working_directory=arguments.workdir,
        user=arguments.user,
    )
    mount_points = tuple(each.destination for each in shared_folders(layout))
    import_image(image, mount_points, layout.cluster / "images")
    say(f"{image.name} is in the cluster")


def _kwok_up(layout: Layout, arguments: argparse.Namespace) -> None:
    stages = tuple(each.absolute() for each in arguments.stages)
    start_simulation(layout, arguments.nodes, arguments.gpus, stages)


if __name__ == "__main__":
    sys.exit(main())
