"""Moving files: a source from http or S3 storage to disk, and results into S3 storage."""

from __future__ import annotations

import mimetypes
import posixpath
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
import httpx
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local.ittybit_server.addresses import Address
from local.ittybit_server.errors import StoppedError, TaskError
from local.ittybit_server.records import Connection

# The system's own table differs between machines.
_TYPES = mimetypes.MimeTypes()
for _name, _extension in [
    ("application/vnd.apple.mpegurl", ".m3u8"),
    ("video/mp2t", ".ts"),
    ("image/webp", ".webp"),
    ("audio/opus", ".opus"),
    ("audio/aac", ".aac"),
    ("audio/wav", ".wav"),
]:
    _TYPES.add_type(_name, _extension)

_ONE_THREAD = TransferConfig(use_threads=False, num_download_attempts=1)


def mimetype(filename: str) -> str | None:
    """The MIME type that belongs to a file's name; None if unknown."""
    return _TYPES.guess_type(filename, strict=False)[0]


def filename(url: str) -> str:
    """The last part of an address's path, decoded and cut to a valid file name; ``file`` if there is none."""
    path = url if url.startswith("s3://") else unquote(urlsplit(url).path)
    name = posixpath.basename(path).replace("\0", "").encode()[-200:].decode(errors="ignore")
    return "file" if name in {"", ".", ".."} else name


class Transfer:
    """The HTTP and S3 clients, shared by all tasks; safe to use from several threads.

    Connecting, and each chunk of an answer, may take 10 s. Proxies in the environment are ignored: this server only
    talks to this machine. Once ``stopped`` is set, no upload begins; an HTTP download raises ``StoppedError`` at its
    next chunk, an S3 download when it is complete.
    """

    def __init__(self, stopped: threading.Event) -> None:
        self._http = httpx.Client(follow_redirects=True, timeout=10, trust_env=False)
        self._lock = threading.Lock()
        self._s3: dict[tuple[str, ...], Any] = {}
        self._stopped = stopped

    def close(self) -> None:
        """Close the idle connections; call it when no thread uses them any more."""
        self._http.close()
        for client in self._s3.values():
            client.close()

    def fetch(self, url: str, connection: Connection | None, target: Path) -> None:
        """Write the source to ``target``.

        Raises:
            TaskError: ``request_invalid``, if it cannot be fetched.
            StoppedError: ``stopped`` was set.
        """
        try:
            if url.startswith("s3://"):
                bucket, key = Address.parse(url)
                _s3_call(
                    "The source",
                    lambda: self._client(connection).download_file(bucket, key, str(target), Config=_ONE_THREAD),
                )
            else:
                self._fetch_http(url, target)
        except httpx.HTTPError as error:
            message = f"The source could not be fetched: {type(error).__name__}."
            raise TaskError("request_invalid", message) from error
        except httpx.InvalidURL as error:
            raise TaskError("request_invalid", "The source's url is malformed.") from error
        if self._stopped.is_set():
            raise StoppedError

    def put(self, path: Path, connection: Connection | None, address: Address) -> None:
        """Write a file to storage, in parts if it is large.

        Raises:
            TaskError: ``request_invalid``, with S3's code and HTTP status.
            StoppedError: ``stopped`` was set.
        """
        if self._stopped.is_set():
            raise StoppedError
        extra = {"ContentType": mimetype(path.name) or "application/octet-stream"}
        with path.open("rb") as file:

            def upload() -> None:
                client = self._client(connection)
                if path.stat().st_size < _ONE_THREAD.multipart_threshold:
                    # ``upload_fileobj`` would send the same request, with more overhead.
                    client.put_object(Bucket=address.bucket, Key=address.key, Body=file, **extra)
                else:
                    client.upload_fileobj(file, *address, ExtraArgs=extra, Config=_ONE_THREAD)

            _s3_call("The destination", upload)

    def _fetch_http(self, url: str, target: Path) -> None:
        with self._http.stream("GET", url) as response, target.open("wb") as file:
            if response.status_code != 200:
                raise TaskError("request_invalid", f"The source answered {response.status_code}.")
            for chunk in response.iter_bytes():
                if self._stopped.is_set():
                    raise StoppedError
                file.write(chunk)

    def _client(self, connection: Connection | None) -> Any:
        if connection is None:
            raise TaskError("request_invalid", "There is no default connection, and none is named.")
        names = ("endpoint", "region", "access_key_id", "secret_access_key")
        credentials = tuple(connection.fields[name] for name in names)
        with self._lock:  # creating a client is not thread-safe
            if credentials not in self._s3:
                self._s3[credentials] = _new_client(*credentials)
            return self._s3[credentials]


def _new_client(endpoint: str, region: str, access_key_id: str, secret_access_key: str) -> Any:
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        connect_timeout=10,
        read_timeout=10,
        retries={"total_max_attempts": 2, "mode": "standard"},
        # Not every S3-compatible storage understands checksums in trailers.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        proxies={},
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        config=config,
    )


def _s3_call(what: str, call: Callable[[], None]) -> None:
    try:
        call()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        raise TaskError("request_invalid", f"{what} was refused by storage: {code} (HTTP {status}).") from error
    except (BotoCoreError, Boto3Error, ValueError) as error:  # ValueError: an endpoint that is not a URL
        message = f"{what} could not be reached in storage: {type(error).__name__}."
        raise TaskError("request_invalid", message) from error
