"""The page in a real browser, against the embedded stack: files from the upload to the results, and failures.

Its screenshots are left in ``build/page/``.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import imageio_ffmpeg
import pytest

from local.functions import ROOT
from local.page import Page, set_up
from local.project import BUCKET, Project
from local.stack import Stack
from tests.page.chromium import PATH, Chromium
from tests.security.searching import Places, secrets_of
from tests.waiting import until

pytestmark = [
    pytest.mark.skipif(PATH is None and not os.environ.get("CI"), reason="there is no Chromium here"),
    pytest.mark.timeout(240),  # it encodes as well, and other tests may run at the same time
]
PICTURES = ROOT / "build" / "page"
MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack.start() as stack:
        project = Project(stack)
        project.set_up()
        project.close()
        set_up(stack)
        yield stack


@pytest.fixture
def page(stack: Stack) -> Iterator[Page]:
    """The page, for a user of its own."""
    with closing(Page(stack)) as page:
        yield page


@pytest.fixture
def browser(page: Page) -> Iterator[Chromium]:
    """A browser that has opened the page. At the end, its console must have no errors."""
    with Chromium() as browser:
        browser.open(page.address)
        browser.wait_for_text("No files yet", "#files")
        yield browser
        assert browser.console == []


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("media")
    made = {name: folder / name for name in ("höliday.mp4", "lake.png", "broken.mp4", "notes.txt", "long.wav")}
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi"]
    colours = "gradients=c0=0x2b1055:c1=0xd53a9d:c2=0xff8a5c:c3=0x2f80ed:n=4:seed=4:speed=0.05"
    sound = ["-f", "lavfi", "-i", "sine=330", "-pix_fmt", "yuv420p", "-t", "2"]
    subprocess.run([*command, "-i", f"{colours}:size=640x360", *sound, str(made["höliday.mp4"])], check=True)
    subprocess.run([*command, "-i", f"{colours}:size=1200x800", "-frames:v", "1", str(made["lake.png"])], check=True)
    subprocess.run([*command, "-i", "sine=duration=150", str(made["long.wav"])], check=True)
    made["broken.mp4"].write_bytes(b"no video")
    made["notes.txt"].write_text("no rule is for this")
    return made


def card(name: str, inner: str = "") -> str:
    """A JavaScript expression for a file's card, or for an element in it."""
    script = f"[...document.querySelectorAll('.file')].find((card) => card.querySelector('h3').innerText === {name!r})"
    return f"{script}?.querySelector({inner!r})" if inner else script


def state(browser: Chromium, name: str) -> str:
    """The text of an upload's line."""
    line = f"[...document.querySelectorAll('.upload')].find((line) => line.querySelector('h3').innerText === {name!r})"
    return str(browser.run(f"{line}?.innerText ?? ''"))


def test_files_from_the_upload_to_the_results(browser: Chromium, media: dict[str, Path]) -> None:
    browser.screenshot(PICTURES / "empty.png")
    browser.drop([media[name] for name in ("höliday.mp4", "lake.png", "broken.mp4", "notes.txt")])
    browser.wait_for("document.querySelectorAll('.jobs progress:not([hidden])').length > 2")
    browser.screenshot(PICTURES / "working.png")

    # The picture, before and after.
    browser.wait_for(f"{card('lake.png')}?.querySelectorAll('img').length === 2")
    widths = f"[...{card('lake.png')}.querySelectorAll('img')].map((img) => img.naturalWidth).join()"
    browser.wait_for(f"{widths} === '1200,480'")
    browser.wait_for(f"/480 . 320 · [\\d.]+ kB/.test({card('lake.png')}.innerText)")
    # The video's three results: a still, a sound that stays at ittybit, a video.
    browser.wait_for(
        f"{card('holiday.mp4', 'video')}?.readyState >= 1 && {card('holiday.mp4', 'audio')}?.readyState >= 1"
    )
    assert browser.run(f"{card('holiday.mp4', 'video')}.videoHeight") == 720
    assert browser.run(f"{card('holiday.mp4')}.querySelectorAll('a[download]').length") == 3
    assert "Stored as “holiday.mp4”" in state(browser, "höliday.mp4")
    # A failed file says so, and what to do. A file without a rule says that it is not processed.
    browser.wait_for(f"{card('broken.mp4')}.querySelectorAll('.chip[data-state=failed]').length === 3")
    assert "could not be processed. Check that it opens" in browser.run(f"{card('broken.mp4')}.innerText")
    assert "Files like this one are not processed." in browser.run(f"{card('notes.txt')}.innerText")
    # The answer of ittybit.explain.
    browser.run(f"{card('notes.txt', 'summary')}.click()")
    browser.wait_for(f"{card('notes.txt')}.innerText.includes('picture does not match: its type is text/plain')")

    browser.screenshot(PICTURES / "done.png")
    # The picture of README.md: a file that is not processed and the video's results, with the video at second 1.
    for other in ("broken.mp4", "lake.png"):
        browser.run(f"{card(other)}.hidden = true")
    browser.run(f"Object.assign({card('holiday.mp4', 'video')}, {{preload: 'auto', currentTime: 1}}) && null")
    browser.wait_for(f"{card('holiday.mp4', 'video')}.readyState === 4")
    bottom = browser.run(f"{card('holiday.mp4')}.getBoundingClientRect().bottom + scrollY")
    browser.screenshot(PICTURES / "readme.png", bottom + 6)
    browser.dark(True)
    browser.screenshot(PICTURES / "done-dark.png")
    browser.resize(360, 800)
    browser.screenshot(PICTURES / "done-360.png")
    assert browser.run("document.documentElement.scrollWidth") == 360


def test_a_download_is_the_result(browser: Chromium, media: dict[str, Path]) -> None:
    browser.choose("#choose", [media["lake.png"]])
    browser.wait_for(f"{card('lake.png')}?.querySelectorAll('a[download]').length === 2")
    answer = httpx.get(
        browser.run(f"[...{card('lake.png')}.querySelectorAll('a[download]')].at(-1).href"), trust_env=False
    )
    assert answer.headers["content-disposition"].startswith("attachment; filename=lake-480.webp")
    assert answer.content[8:12] == b"WEBP"


def test_a_large_file_goes_on_after_a_pause_and_after_the_page_was_closed(
    browser: Chromium, media: dict[str, Path], stack: Stack
) -> None:
    size = media["long.wav"].stat().st_size
    assert size > 2 * 6 * 1024 * 1024
    stack.supabase.requests = []
    browser.slow_down(4_000_000)
    browser.choose("#choose", [media["long.wav"]])
    browser.wait_for("document.querySelector('.upload progress')?.value > 7000000")
    browser.click(".upload .buttons button")  # Pause
    browser.wait_for("document.querySelector('.upload').dataset.state === 'paused'")
    browser.screenshot(PICTURES / "paused.png")

    browser.reload()
    browser.wait_for_text("Choose or drop the same file", ".upload")
    browser.choose(".upload input", [media["lake.png"]])
    browser.wait_for_text("This is another file.", ".upload")
    browser.slow_down(-1)
    browser.choose(".upload input", [media["long.wav"]])
    browser.wait_for(card("long.wav"))
    assert browser.run("localStorage.uploads") == "[]"
    sent = [request.method for request in stack.supabase.requests if "resumable" in request.path]
    assert sent.count("POST") == 1
    [(stored,)] = stack.sql("select metadata ->> 'size' from storage.objects where name ~ 'long.wav'")
    assert int(stored) == size
    stack.supabase.requests = None


def test_the_page_explains_what_storage_refuses(browser: Chromium, media: dict[str, Path], stack: Stack) -> None:
    browser.choose("#choose", [media["notes.txt"]])
    browser.wait_for(card("notes.txt"))
    browser.choose("#choose", [media["notes.txt"]])
    browser.wait_for_text("There is a file with this name already.", ".upload")
    browser.screenshot(PICTURES / "refused.png")
    browser.run("[...document.querySelectorAll('.upload button')].find((b) => b.innerText === 'Replace it').click()")
    browser.wait_for("!document.querySelector('.upload')")

    limit = "update storage.buckets set file_size_limit = %s where id = %s"
    stack.sql(limit, (10, BUCKET))
    try:
        browser.choose("#choose", [media["lake.png"]])
        browser.wait_for_text("This file is too large for this project.", ".upload")
    finally:
        stack.sql(limit, (None, BUCKET))
    # The browser logs each of the tested refusals as an error.
    assert all("status of 400" in line for line in browser.console)
    browser.console.clear()


def test_the_page_says_that_the_project_does_not_answer_and_recovers(browser: Chromium, stack: Stack) -> None:
    stack.supabase.add("GET", "/rest/v1/ittybit_files", status=503, times=1000)
    browser.wait_for_text("Your files cannot be loaded", "#problem")
    browser.screenshot(PICTURES / "problem.png")
    stack.supabase.clear()
    browser.wait_for("document.querySelector('#problem').hidden")
    browser.console.clear()


def test_nothing_that_a_stranger_uploads_runs(browser: Chromium, page: Page, stack: Stack) -> None:
    owner = page.user
    # Markup as a name (Storage itself would refuse it), as a type, as a rule and in addresses.
    stack.sql("alter table ittybit.jobs disable trigger user")
    metadata = json.dumps({"size": 3, "mimetype": MARKUP, "eTag": '"x"'})
    stack.sql(
        "insert into storage.objects (bucket_id, name, version, owner_id, metadata) values (%s, %s, 'v', %s, %s)",
        (BUCKET, f"{owner}/{MARKUP}.png", owner, metadata),
    )
    stack.sql(
        "insert into ittybit.jobs (rule, bucket_id, name, version, owner_id, action, function, state, outputs)"
        " values (%s, %s, %s, 'v', %s, %s, 'on-upload', 'succeeded', %s)",
        (MARKUP, BUCKET, f"{owner}/{MARKUP}.png", owner, json.dumps({"task": {"kind": MARKUP}}),
         ["javascript:alert(1)", f"s3://{BUCKET}/{MARKUP}", f"data:text/html,{MARKUP}", "none", "data:text/html,%ff"]),
    )  # fmt: skip
    browser.wait_for("document.querySelectorAll('#files .file figure').length === 6")
    assert browser.run(f"{card(MARKUP + '.png')}.innerText").count(MARKUP) >= 3
    assert browser.run("document.querySelectorAll('[onerror], #files script, a[href^=\"javascript:\" i]').length") == 0
    # Of the six figures only the original has an address: one of the project's.
    browser.wait_for("document.querySelector('#files [href]')")
    addresses = browser.run(
        "[...document.querySelectorAll('#files [src], #files [href]')].map((it) => it.src || it.href)"
    )
    assert addresses
    assert all(address.startswith(f"{stack.supabase_url}/storage/v1/object/sign/{BUCKET}/") for address in addresses)
    with pytest.raises(AssertionError, match="TrustedHTML"):
        browser.run(f"document.body.innerHTML = {MARKUP!r}")
    with pytest.raises(AssertionError, match="TrustedScript"):
        browser.run("document.createElement('script').text = 'alert(1)'")
    browser.console.clear()


def test_every_control_has_a_name_and_works_without_a_mouse(browser: Chromium, media: dict[str, Path]) -> None:
    browser.choose("#choose", [media["lake.png"]])
    browser.wait_for(card("lake.png", "img"))
    browser.run("document.activeElement.blur()")
    reached = []
    for _ in range(30):
        browser.press("Tab", 9)
        reached.append(
            browser.run("document.activeElement.id || document.activeElement.innerText || document.activeElement.type")
        )
    assert {"choose", "Download", "Why?", "Pause", "checkbox", "Add a rule", "Doctor"} <= set(reached)
    tree = browser.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "link", "checkbox", "switch", "textbox", "combobox", "progressbar", "image", "region"}
    nameless = [
        node["role"]["value"]
        for node in tree
        if node.get("role", {}).get("value") in roles and not node["ignored"] and not node.get("name", {}).get("value")
    ]
    assert nameless == []


def test_the_developer_previews_adds_and_disables_a_rule_and_pauses(
    browser: Chromium, media: dict[str, Path], stack: Stack
) -> None:
    browser.choose("#choose", [media["lake.png"], media["notes.txt"]])
    browser.wait_for(card("notes.txt"))
    browser.run("document.querySelector('.new summary').click()")
    browser.wait_for_text("processed/", ".new .facts [data-taken=true]")
    assert "its type is text/plain" in browser.text(".new")
    browser.run("document.querySelector('.doctor summary').click()")
    browser.wait_for_text("triggers", ".doctor")
    browser.screenshot(PICTURES / "developer.png")

    field = "document.querySelector('.rule [name=destination]')"
    browser.run(
        f"{field}.value = 's3://media/{{nobody}}'; {field}.dispatchEvent(new Event('input', {{bubbles: true}}))"
    )
    browser.wait_for_text(
        'It cannot be added like this: rule "small": task.destination has unknown placeholders', ".new"
    )
    browser.run(f"{field}.value = 's3://media/processed/{{dir}}{{stem}}-small.jpeg'")
    browser.click(".rule button")
    browser.wait_for_text("small", "table")
    browser.run("document.querySelector('[aria-label=\"Rule small\"]').click()")
    until(
        lambda: (
            stack.sql("select task ->> 'kind' from ittybit.rules where name = 'small' and not enabled") == [("image",)]
        )
    )
    browser.wait_for("!document.querySelector('[aria-label=\"Rule small\"]').checked")

    browser.click("#developer .row button")
    browser.wait_for_text("PAUSED", "#developer")
    browser.click("#developer .row button")
    browser.wait_for_text("Starting: yes", "#developer")
    browser.console.clear()


def test_no_key_of_the_projects_is_in_the_browser(
    browser: Chromium, page: Page, media: dict[str, Path], stack: Stack
) -> None:
    browser.choose("#choose", [media["lake.png"]])
    browser.wait_for(f"{card('lake.png')}?.querySelectorAll('a[download]').length === 2")
    html = "document.documentElement.outerHTML"
    kept = browser.run(f"JSON.stringify([{html}, {{...localStorage}}, {{...sessionStorage}}, document.cookie])")
    assert page.user in kept
    places = Places(secrets_of(stack))
    places.look("the page", [kept, httpx.get(f"{page.origin}/project.json", trust_env=False).text])
    # Those of the user's own files.
    assert places.findings == {"the page": {"a signed address"}}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/developer/rules", {}, 401),
        ("/developer/rules", {"Authorization": "Bearer wrong"}, 401),
        ("/project.json", {"Host": "attacker.test"}, 421),
        ("/..%2f..%2f.env", {}, 404),
    ],
)
def test_the_developers_tools_are_for_the_developer_only(
    page: Page, path: str, headers: dict[str, str], status: int
) -> None:
    answer = httpx.get(f"{page.origin}{path}", headers=headers, trust_env=False)
    assert answer.status_code == status
    assert "script-src 'self';" in answer.headers["content-security-policy"]
    assert "access-control-allow-origin" not in answer.headers
