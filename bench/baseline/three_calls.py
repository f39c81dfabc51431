"""What one writes by hand for a job's step: three calls on one shared client, and nothing around them."""

import os

import flask
import functions_framework
import httpx

SUPABASE, ITTYBIT = os.environ["SUPABASE_URL"], os.environ["ITTYBIT_API_URL"]
KEY, TOKEN = os.environ["SUPABASE_SECRET_KEY"], os.environ["ITTYBIT_API_KEY"]
CLIENT = httpx.Client(trust_env=False)


def three_calls(job: object, attempt: object) -> None:
    """Claim, start, report."""
    message = {"job": job, "attempt": attempt}
    claim = CLIENT.post(f"{SUPABASE}/rest/v1/rpc/ittybit_claim", json=message, headers={"apikey": KEY}).json()
    source = f"{SUPABASE}/storage/v1/object/public/{claim['bucket']}/{claim['name']}"
    run = CLIENT.post(
        f"{ITTYBIT}/automations/{claim['automation_id']}/run",
        json={"url": source},
        headers={"authorization": f"Bearer {TOKEN}"},
    ).json()
    report = {**message, "outcome": "started", "ittybit_id": run["id"]}
    CLIENT.post(f"{SUPABASE}/rest/v1/rpc/ittybit_report", json=report, headers={"apikey": KEY}).json()


@functions_framework.http
def on_call(request: flask.Request) -> dict[str, str]:
    """Take one step of a job."""
    body = request.get_json()
    three_calls(body["job"], body["attempt"])
    return {"outcome": "started"}
