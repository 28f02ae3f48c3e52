"""Reads a project's lines from MongoDB with PyMongo, by what the documentation says of the documents alone.

usage: read_mongo.py URI DATABASE TENANT PROJECT

Prints the documents of all collections of lines as JSON, one per line, in the order of `_id`. In names the full-width dot stands
for a dot.
"""

import json
import sys

import pymongo

uri, database, tenant, project = sys.argv[1:]


def shown(value):
    if isinstance(value, dict):
        return {key.replace("\uff0e", "."): shown(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shown(inner) for inner in value]
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


client = pymongo.MongoClient(uri, serverSelectionTimeoutMS=10_000)
documents = []
# Each collection of lines is `logs_<retention>_<day>`.
for name in client[database].list_collection_names():
    if not name.startswith("logs_"):
        continue
    documents.extend(client[database][name].find({"tenant": tenant, "project": project}))
documents.sort(key=lambda document: document["_id"])
for document in documents:
    assert isinstance(document["_id"], bytes) and len(document["_id"]) == 24, document["_id"]
    print(json.dumps(shown(document)))
