"""The code in docs/front-end.md runs unchanged, with Supabase's own client, against the embedded stack."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path

import imageio_ffmpeg
import pytest

from local.functions import ROOT
from local.page import set_up
from local.project import Project
from local.stack import Stack
from tests import documents

FOLDER = Path(__file__).parent
HAS_CLIENTS = shutil.which("node") and (FOLDER / "node_modules").is_dir()
# What a browser would provide: the project, a signed-in user and, for older Node versions, WebSockets.
PRELUDE = """
import { readFile } from 'node:fs/promises'
import WebSocket from 'ws'
const { SUPABASE_URL, SUPABASE_PUBLISHABLE_KEY, SESSION, SOMEBODY_ELSE, PICTURE, SOUND } = process.env
const OPTIONS = {
  auth: { storage: { getItem: () => SESSION, setItem() {}, removeItem() {} }, autoRefreshToken: false },
  realtime: { transport: WebSocket },
}
"""


@pytest.mark.timeout(240)
@pytest.mark.skipif(
    not HAS_CLIENTS and not os.environ.get("CI"), reason="needs Node.js, and npm ci --prefix tests/front_end"
)
def test_the_snippets_upload_watch_listen_and_read_the_result(tmp_path: Path) -> None:
    picture, sound = tmp_path / "lake.png", tmp_path / "long.wav"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi"]
    subprocess.run([*command, "-i", "testsrc2=size=800x600", "-frames:v", "1", str(picture)], check=True)
    subprocess.run([*command, "-i", "sine=duration=90", str(sound)], check=True)
    assert sound.stat().st_size > 6 * 1024 * 1024
    blocks = documents.blocks((ROOT / "docs" / "front-end.md").read_text(), "js")
    script = "\n".join([PRELUDE, *blocks, (FOLDER / "drive.mjs").read_text()])
    plain = "createClient(SUPABASE_URL, SUPABASE_PUBLISHABLE_KEY)"
    assert script.count(plain) == 1
    user = str(uuid.uuid4())

    with Stack.start() as stack:
        project = Project(stack)
        project.set_up()
        project.close()
        set_up(stack)
        session = {
            "access_token": stack.keys.jwt("authenticated", user),
            "refresh_token": "none",
            "expires_at": int(time.time()) + 3600,
            "user": {"id": user},
        }
        done = subprocess.run(
            ["node", "--input-type=module", "-"],
            input=script.replace(plain, plain[:-1] + ", OPTIONS)"),
            cwd=FOLDER,
            env={
                "PATH": os.environ["PATH"],
                "SUPABASE_URL": stack.supabase_url,
                "SUPABASE_PUBLISHABLE_KEY": stack.keys.publishable_key,
                "SESSION": json.dumps(session),
                "SOMEBODY_ELSE": str(uuid.uuid4()),
                "PICTURE": str(picture),
                "SOUND": str(sound),
            },
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    saw = json.loads(done.stdout)
    result = f"s3://media/processed/{user}/lake-480.webp"
    file = {"name": f"{user}/lake.png", "rule": "picture", "state": "succeeded", "progress": 100, "reason": None}
    assert saw["file"] == file | {"results": [result]}
    assert saw["result"] == "WEBP"
    assert saw["parts"] > 1
    assert "CHANNEL_ERROR" in saw["refusal"]
    assert "You do not have permissions to read from this Channel topic" in saw["refusal"]
    # Each state was broadcast, in this order.
    assert list(dict.fromkeys(saw["heard"])) == ["queued", "started", "succeeded"]
    assert (saw["last"]["name"], saw["last"]["results"]) == (file["name"], [result])
