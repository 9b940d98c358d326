"""Where the files of pictures live if the site has an S3 store: in two of its buckets."""

import base64
import errno
import logging
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from tempfile import NamedTemporaryFile

import boto3
from botocore import exceptions
from botocore.config import Config
from django.conf import settings
from django.core.files import File, locks
from django.core.files.storage import Storage
from django.http import HttpResponseRedirect
from django.utils.encoding import filepath_to_uri

from . import storage

logger = logging.getLogger(__name__)

LINK_LIFETIME = 60  # seconds

# Two attempts at a store that is silent take less than 10 seconds. A store that answers needs
# milliseconds, and may close an idle connection just before it is used.
CONFIG = Config(
    connect_timeout=2,
    read_timeout=3.5,
    retries={"mode": "standard", "total_max_attempts": 2},
    # Keep a connection for each thread. botocore keeps ten by default, and logs those it closes.
    max_pool_connections=max(settings.THREADS.values()),
    tcp_keepalive=True,
    signature_version="s3v4",
    s3={"addressing_style": "path"},  # The names of buckets need no DNS and no certificate.
)

# Codes of stores that have no room. Some come with the status 400 or 500.
FULL = {
    "InsufficientStorage",
    "QuotaExceeded",
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
}
STATUSES = {403: errno.EACCES, 404: errno.ENOENT, 408: errno.ETIMEDOUT, 429: errno.ECONNABORTED}


@cache
def get_client(endpoint, region, access_key, secret_key, ca):
    """Return the one client of a process: to make another takes as long as ten uploads."""
    session = boto3.session.Session(access_key, secret_key, region_name=region)
    # Without a file of certificates botocore trusts those that it brings.
    return session.client("s3", endpoint_url=endpoint, verify=ca or None, config=CONFIG)


@contextmanager
def os_errors():
    """Raise botocore's errors as OSErrors, as a file system would.

    ConnectionError and TimeoutError tell that the store is away.
    """
    try:
        yield
    except (exceptions.BotoCoreError, exceptions.ClientError) as error:
        raise OSError(get_errno(error), str(error)) from error


def get_errno(error):
    if isinstance(error, (exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError)):
        return errno.ETIMEDOUT
    if isinstance(error, (exceptions.ConnectionError, exceptions.HTTPClientError)):
        return errno.ECONNABORTED
    if isinstance(error, exceptions.BotoCoreError):
        return errno.EIO
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    if status == 507 or error.response["Error"]["Code"] in FULL:
        return errno.ENOSPC
    return STATUSES.get(status, errno.ECONNABORTED if status >= 500 else errno.EIO)


class BucketStorage(Storage):
    """Store each file by one put, which the store verifies by a checksum."""

    @property
    def client(self):
        names = ("endpoint", "region", "access_key", "secret_key", "ca")
        return get_client(*(settings.S3[name] for name in names))

    @property
    def bucket(self):
        return settings.S3[self.kind]

    def get_available_name(self, name, max_length=None):
        """Return the name: it is random, so the bucket has no such file."""
        return name

    def _save(self, name, content):
        content.seek(0)
        with os_errors():
            self.client.put_object(
                Bucket=self.bucket,
                Key=name,
                Body=content.file,
                **self.headers,
                **describe_checksum(content),
            )
        return name

    def _open(self, name, mode="rb"):
        with os_errors():
            return File(BytesIO(self._get(name).read()), name)

    @contextmanager
    def open_path(self, name):
        """Give the path of a local copy of a file, which is deleted after the block."""
        with NamedTemporaryFile(dir=settings.FILE_UPLOAD_TEMP_DIR) as copy:
            locks.lock(copy, locks.LOCK_SH)  # This tells prune_uploads that the file is in use.
            with os_errors():
                copy.writelines(self._get(name).iter_chunks(File.DEFAULT_CHUNK_SIZE))
            copy.flush()
            yield copy.name

    def _get(self, name):
        return self.client.get_object(Bucket=self.bucket, Key=name)["Body"]

    def delete(self, name):
        """Delete a file, if it is there."""
        with os_errors():
            self.client.delete_object(Bucket=self.bucket, Key=name)

    def exists(self, name):
        try:
            self.size(name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name):
        with os_errors():
            return self.client.head_object(Bucket=self.bucket, Key=name)["ContentLength"]

    def send(self, name):
        """Return a redirect to a link, which lets a browser download a file for a minute."""
        self.size(name)  # Raises FileNotFoundError: the store would answer with XML.
        parameters = {
            "Bucket": self.bucket,
            "Key": name,
            "ResponseContentDisposition": f'attachment; filename="{name}"',
        }
        link = self.client.generate_presigned_url("get_object", parameters, LINK_LIFETIME)
        return HttpResponseRedirect(link)

    def locate(self, name):
        return f"s3://{self.bucket}/{name}"

    def get_sizes(self, names):
        """Return the sizes of those files that exist, by their names.

        The bucket lists all files between the first name and the last.
        """
        wanted, sizes = set(names), {}
        first, last = min(wanted), max(wanted)
        for page in self._list(StartAfter=first[:-1]):
            sizes |= {file["Key"]: file["Size"] for file in page if file["Key"] in wanted}
            if page[-1]["Key"] >= last:
                break
        return sizes

    def list_old(self, before):
        for page in self._list():
            yield [file["Key"] for file in page if file["LastModified"].timestamp() < before]

    def _list(self, **parameters):
        """Yield the files of the bucket, page by page, in the order of their names."""
        with os_errors():
            paginator = self.client.get_paginator("list_objects_v2")
            paging = {"PageSize": storage.BATCH_SIZE}
            for page in paginator.paginate(
                Bucket=self.bucket, PaginationConfig=paging, **parameters
            ):
                if files := page.get("Contents"):
                    yield files

    def is_in_use(self, name):
        """Return False: a file is here for seconds, not for hours, before its row is written."""
        return False

    def find_fault(self):
        """Return a sentence if the bucket does not answer."""
        try:
            with os_errors():
                self.client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)
        except OSError as error:  # Anybody may read the sentence; only the log names the store.
            logger.warning("The bucket of the %s cannot be read: %s", self.kind, error)
            return f"The bucket of the {self.kind} cannot be read."
        return None


class RenditionStorage(BucketStorage):
    """Store the renditions, which nginx gets from their bucket, without a key."""

    kind = "renditions"
    # As nginx sends it: these names are never reused.
    headers = {"ContentType": "image/jpeg", "CacheControl": "private, max-age=31536000, immutable"}

    def url(self, name):
        return f"{settings.MEDIA_URL}{filepath_to_uri(name)}"


class OriginalStorage(BucketStorage):
    """Store the originals in a bucket that only the app may read."""

    kind = "originals"
    # No browser would show one, even if the bucket were public by mistake.
    headers = {"ContentType": "application/octet-stream", "ContentDisposition": "attachment"}


def describe_checksum(content):
    """Return the parameter with the SHA-256 of a file, where it is known; boto3 adds a CRC."""
    digest = getattr(content, "digest", None)
    return {"ChecksumSHA256": base64.b64encode(bytes.fromhex(digest)).decode()} if digest else {}
