"""The buckets of the tests on SeaweedFS, which are made as an operator makes them."""

import json
from contextlib import suppress
from functools import cache

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ADMIN, APP = ("admin", "a secret of the admin"), ("app", "a secret of the app")

CONFIG = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, read_timeout=5)

# SeaweedFS's s3.json: the app can neither make nor delete buckets.
IDENTITIES = [
    {
        "name": name,
        "credentials": [{"accessKey": name, "secretKey": secret}],
        "actions": actions,
    }
    for (name, secret), actions in ((ADMIN, ["Admin"]), (APP, ["Read", "Write", "List"]))
]


@cache
def connect(endpoint, keys=ADMIN):
    """Return this process's client of a store. To make another one takes long."""
    session = boto3.session.Session(*keys, region_name="us-east-1")
    return session.client("s3", endpoint_url=endpoint, config=CONFIG)


def is_ready(endpoint):
    """Tell whether SeaweedFS can write an object. It makes this bucket for an admin."""
    with suppress(BotoCoreError, ClientError):
        connect(endpoint).put_object(Bucket="ready", Key="ready", Body=b"ready")
        return True
    return False


def describe_buckets(endpoint, name):
    """Return the environment of an app with two buckets that have this name."""
    access_key, secret_key = APP
    return {
        "GOURMIOUS_S3_ENDPOINT": endpoint,
        "GOURMIOUS_S3_ORIGINALS": f"{name}-originals",
        "GOURMIOUS_S3_RENDITIONS": f"{name}-renditions",
        "GOURMIOUS_S3_ACCESS_KEY": access_key,
        "GOURMIOUS_S3_SECRET_KEY": secret_key,
    }


def make_buckets(endpoint, name):
    """Make two buckets, and return the environment of an app that uses them.

    Anybody may get renditions by their names, and do nothing else.
    """
    environment = describe_buckets(endpoint, name)
    originals, renditions = get_names(environment)
    everybody = {"Effect": "Allow", "Principal": "*"}
    reading = {"Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{renditions}/*"}
    policy = {"Version": "2012-10-17", "Statement": [everybody | reading]}
    client = connect(endpoint)
    client.create_bucket(Bucket=originals)
    client.create_bucket(Bucket=renditions)
    client.put_bucket_policy(Bucket=renditions, Policy=json.dumps(policy))
    return environment


def get_names(environment):
    return [environment[f"GOURMIOUS_S3_{kind}"] for kind in ("ORIGINALS", "RENDITIONS")]


def list_keys(client, bucket):
    """Return the keys of all objects of a bucket."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [found["Key"] for page in pages for found in page.get("Contents", ())]


def list_all(store):
    """Return the kind and the key of each file in the buckets of settings.S3."""
    if not store:
        return []
    client = connect(store["endpoint"])
    return [
        (kind, key)
        for kind in ("originals", "renditions")
        for key in list_keys(client, store[kind])
    ]


def empty(environment):
    """Delete all files of an app."""
    client = connect(environment["GOURMIOUS_S3_ENDPOINT"])
    for bucket in get_names(environment):
        for key in list_keys(client, bucket):
            client.delete_object(Bucket=bucket, Key=key)
