"""Reads the lines of tenants from MongoDB with PyMongo, knowing nothing of the collector but what its documentation says.

usage: read_mongo.py URI DATABASE

Prints one JSON object per document of every collection, in the order of `_id`: tenant, project, number, body, and the
whole document as text.
"""

import json
import sys

import pymongo

uri, database = sys.argv[1:]
client = pymongo.MongoClient(uri, serverSelectionTimeoutMS=10_000)
documents = []
for name in client[database].list_collection_names():
    documents.extend(client[database][name].find({}))
documents.sort(key=lambda document: bytes(document["_id"]) if isinstance(document["_id"], bytes) else b"")
for document in documents:
    print(json.dumps({
        "tenant": document.get("tenant"),
        "project": document.get("project"),
        "number": document.get("attributes", {}).get("number"),
        "severity": document.get("severity"),
        "body": document.get("body"),
        "trace": str(document.get("trace_id")),
        "resource": document.get("resource"),
        "whole": repr(document),
    }, default=str))
