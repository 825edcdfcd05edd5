"""Checks the vectors of contract 1 with nothing but Python's own library."""

import hashlib
import json
import os

HERE = os.path.dirname(os.path.abspath(__file__))


def load(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as f:
        return json.load(f)


def digest(text):
    return "sha256:" + hashlib.sha256(text.encode("utf-8")).hexdigest()


class Number(str):
    """A number as it was written: printing floats is for the encoder to prove."""


def utf16(key):
    return key.encode("utf-16-be", "surrogatepass")


def encode(value):
    if isinstance(value, dict):
        return "{" + ",".join(encode(k) + ":" + encode(value[k]) for k in sorted(value, key=utf16)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(encode, value)) + "]"
    if isinstance(value, Number):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def canonical(text):
    assert encode(json.loads(text, parse_float=Number, parse_int=Number)) == text, text


def reach(objects, descriptor, seen):
    text = objects[descriptor["digest"]]
    assert len(text.encode("utf-8")) == descriptor["size"], descriptor
    seen.add(descriptor["digest"])
    return json.loads(text)


def repository():
    vector = load("repository.json")
    objects, seen = vector["objects"], set()
    for name, text in objects.items():
        assert digest(text) == name, name
        canonical(text)
    for target, name in vector["sets"].items():
        seen.add(name)
        index = json.loads(objects[name])
        places = [(m["annotations"]["dev.sealstone.scope"].encode(), m["annotations"]["dev.sealstone.mode"].encode()) for m in index["manifests"]]
        assert places == sorted(places) and len(places) == len(set(places)), target
        for bundle in index["manifests"]:
            manifest = reach(objects, bundle, seen)
            config = reach(objects, manifest["config"], seen)
            assert config["mode"] == bundle["annotations"]["dev.sealstone.mode"], target
            assert target.startswith(config["service"] + "@"), target
            for layer in manifest["layers"]:
                reach(objects, layer, seen)
    assert seen == set(objects), "an object that no set reaches"
    return len(objects)


def encoding():
    vector = load("encoding.json")
    for bundle in vector["bundles"]:
        assert digest(bundle["manifest"]) == bundle["digest"], bundle["name"]
        canonical(bundle["manifest"])
        layers = {l["annotations"]["org.opencontainers.image.title"]: l for l in json.loads(bundle["manifest"])["layers"]}
        assert list(layers) == sorted(bundle["files"], key=str.encode), bundle["name"]
        for title, text in bundle["files"].items():
            assert layers[title]["size"] == len(text.encode("utf-8")) and layers[title]["digest"] == digest(text), title
    for one in vector["sets"]:
        assert digest(one["set"]) == one["digest"], one["name"]
        canonical(one["set"])
    return len(vector["bundles"]) + len(vector["sets"])


print(f"contract 1: {repository()} objects, {encoding()} encodings: all right")
