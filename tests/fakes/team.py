"""What a team shares, on loopback: a bucket, a bare origin, and desks with a small experiment."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from fakes.desk import Desk, calibrated, prepare
from moto.server import ThreadedMotoServer

SMALL = """# @package _global_
defaults:
  - planted_edge
  - _self_
name: small
symbols: [AAA, BBB, CCC]
start_date: "2001-01-02"
end_date: "2004-12-31"
split:
  train_start: "2001-06-01"
  train_end: "2002-12-31"
  test_start: "2003-01-02"
policy_params:
  timesteps: 2048
train:
  seeds: [0]
eval:
  bootstrap_draws: 100
  stress: [lagged_signals]
qualify:
  thresholds:
    bootstrap_draws: 100
"""


@contextmanager
def bucket(name: str) -> Iterator[dict[str, str]]:
    """Serve an empty bucket and yield the variables that name it and open it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "of-the-test",
        "AWS_SECRET_ACCESS_KEY": "of-the-test",  # of a server that lives as long as this test
        "AWS_DEFAULT_REGION": "us-east-1",
        "STORE": f"s3://{name}",
    }
    try:
        bucket_client(variables).create_bucket(Bucket=name)
        yield variables
    finally:
        server.stop()


def bucket_client(variables: dict[str, str]):  # type: ignore[no-untyped-def]  # boto3 makes its classes at run time
    return boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region_name=variables["AWS_DEFAULT_REGION"],
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def first_desk(folder: Path, variables: dict[str, str]) -> Desk:
    """Return a desk whose default is the small experiment, committed; its origin is `origin.git` beside it."""
    folder.mkdir(parents=True)
    desk = prepare(folder, "planted_edge")
    desk.environment |= variables
    (desk.clone / "conf/experiment/small.yaml").write_text(SMALL)
    configuration = desk.clone / "conf/config.yaml"
    configuration.write_text(configuration.read_text().replace("experiment: planted_edge", "experiment: small"))
    desk.quanto("params")
    calibrated(desk)
    desk.git("add", "conf", "params.yaml", "reports/promotion/calibration.json")
    desk.git("commit", "-q", "-m", "the team's small experiment")
    origin = folder.parent / "origin.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(desk.clone), str(origin)], check=True)
    desk.git("remote", "set-url", "origin", str(origin))
    desk.git("fetch", "-q")
    desk.git("branch", "-q", "--set-upstream-to", f"origin/{desk.git('branch', '--show-current')}")
    return desk


def further_desk(folder: Path, variables: dict[str, str]) -> Desk:
    """Return a desk of another person: a clone of the same origin with a data root of its own."""
    folder.mkdir(parents=True)
    desk = Desk(folder)
    desk.environment |= variables
    subprocess.run(["git", "clone", "-q", str(folder.parent / "origin.git"), str(desk.clone)], check=True)
    desk.git("config", "user.name", folder.name)
    desk.git("config", "user.email", f"{folder.name}@desk.example")
    desk.connect()
    return desk
