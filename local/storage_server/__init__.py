"""The storage server: objects in the database, their bytes on disk, read and written over REST and S3.

Follows storage-api v1.70.6 with its file backend: rows, trigger calls, statuses and error bodies are those recorded
from it, its bugs included. Left out: image transformations, object versioning, its own webhooks, analytics and vector
buckets, routes that change or empty a bucket, and Ajv's messages about a malformed body.
"""

from local.storage_server.blueprint import create_blueprint
from local.storage_server.s3_signatures import S3Access

__all__ = ["S3Access", "create_blueprint"]
