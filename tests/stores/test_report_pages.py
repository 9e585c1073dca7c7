"""What the pod of ``kubectl tunesmith report`` prints of a page in a bucket."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tunesmith.commandline.report import FROM_BUCKET, unpacked
from tunesmith_trainer.sources.bucket import Bucket


def printed(bucket: Bucket, key: str) -> subprocess.CompletedProcess[bytes]:
    assert bucket.credentials is not None
    words = (bucket.name, key, bucket.credentials)
    return subprocess.run(
        [sys.executable, "-c", FROM_BUCKET, *words],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_a_page_in_a_bucket_comes_byte_for_byte(bucket: Bucket) -> None:
    bucket.write("team/report.html", b"<html>loss</html>")
    assert unpacked(printed(bucket, "team/report.html").stdout) == b"<html>loss</html>"


@pytest.mark.parametrize("key", ["team/none.html", "none"])
def test_a_page_that_is_not_there_ends_with_an_error(bucket: Bucket, key: str) -> None:
    done = printed(bucket, key)
    assert done.returncode != 0
    assert key in done.stderr.decode().splitlines()[-1]
