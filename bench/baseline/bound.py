"""The least that a function of this project needs: settings checked by pydantic, and a client at the first job."""

import importlib
import os

import flask
import functions_framework
from pydantic import AnyHttpUrl, BaseModel, SecretStr


class Settings(BaseModel):
    """The environment's variables."""

    SUPABASE_URL: AnyHttpUrl
    SUPABASE_SECRET_KEY: SecretStr
    ITTYBIT_API_URL: AnyHttpUrl
    ITTYBIT_API_KEY: SecretStr


SETTINGS = Settings.model_validate(os.environ)


@functions_framework.http
def on_signed_call(request: flask.Request) -> tuple[dict[str, str | int], int]:
    """Do one job. An unsigned call is refused, and imports no client."""
    if "webhook-signature" not in request.headers:
        return {"error": "the call is not signed"}, 401
    importlib.import_module("three_calls").three_calls()
    return {"started": 1}, 200
