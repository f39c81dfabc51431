"""The storage server: objects in the database, their bytes on disk, read and written over REST and S3.

Follows storage-api v1.70.6 with its file backend: rows, trigger calls, statuses and error bodies as recorded
from it, its faults included. Leaves out image transformations, object versioning, its own webhooks, and analytics
and vector buckets; buckets changed and emptied through the API; and the words of Ajv about a malformed body.
"""

from local.storage_server.blueprint import create_blueprint
from local.storage_server.s3_signatures import S3Access

__all__ = ["S3Access", "create_blueprint"]
