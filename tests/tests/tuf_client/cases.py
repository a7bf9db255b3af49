"""What is done to a repository, and what a client must then do. Run by tests/tests/tuf_client.rs.

    cases.py CLIENT [NAME…]     prints a JSON object: case → "" or what went wrong
"""

import json
import os
import subprocess
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

from repository import TOP, Repository, Server, days
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets

CASES = {}
PROGRAM = None
SERVER = Server()


def case(*tables, **named):
    """Registers a case, once for every value of a table."""
    def register(function):
        name = function.__name__.replace("_", " ")
        values = tables or ((),)
        for value in values:
            value = value if isinstance(value, tuple) else (value,)
            suffix = f": {value[0]}" if value else ""
            CASES[name + suffix] = (function, value, named)
        return function
    return register


class Client:
    """The program under test with directories of its own."""

    def __init__(self, name, directory, repository):
        self.url = SERVER.url(name)
        self.metadata, self.targets = Path(directory, "metadata"), Path(directory, "targets")
        self.repository, self.text = repository, ""
        root = Path(directory, "trusted.json")
        root.write_bytes(repository.files["metadata/1.root.json"])
        assert self.run("init", str(root)) == 0
        assert not repository.log, "init asks the server"

    def run(self, *words, later=0):
        environment = dict(os.environ)
        if later:
            moment = datetime.now() + timedelta(days=later)
            words = ("faketime", moment.strftime("%Y-%m-%d %H:%M:%S"), PROGRAM, "--metadata-dir", str(self.metadata), *words)
        else:
            words = (PROGRAM, "--metadata-dir", str(self.metadata), *words)
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=environment)
        self.text = done.stderr
        assert done.returncode in (0, 1), f"exit code {done.returncode}: {done.stderr}"
        return done.returncode

    def refresh(self, later=0):
        self.repository.log.clear()
        return self.run("--metadata-url", self.url + "metadata", "refresh", later=later)

    def download(self, *names, later=0):
        self.repository.log.clear()
        wanted = [word for name in names for word in ("--target-name", name)]
        return self.run("--metadata-url", self.url + "metadata", *wanted, "--target-base-url", self.url + "targets",
                        "--target-dir", str(self.targets), "download", later=later)

    def versions(self):
        found = {}
        for file in self.metadata.glob("*.json"):
            found[file.name.removesuffix(".json")] = json.loads(file.read_bytes())["signed"]["version"]
        return found

    def files(self):
        return sorted(file.read_bytes() for file in self.targets.glob("*")) if self.targets.exists() else []

    def accepts(self, **versions):
        assert self.refresh() == 0, self.text
        self.has(**versions)

    def refuses(self, says="", **versions):
        assert self.refresh() == 1, "accepted"
        assert says in self.text, self.text
        self.has(**versions)

    def has(self, **versions):
        found = self.versions() if versions else {}
        for role, version in versions.items():
            assert found.get(role) == version, f"{role}: {found}, {version} expected"


# The normal course of things.

@case()
def a_first_refresh_fetches_each_file_once(repo, client):
    client.accepts(root=1, timestamp=1, snapshot=1, targets=1)
    assert repo.log == ["metadata/2.root.json", "metadata/timestamp.json", "metadata/1.snapshot.json", "metadata/1.targets.json"]
    for role in TOP:
        kept = (client.metadata / f"{role}.json").read_bytes()
        assert kept == repo.files[repo.name(role, 1)], "not byte for byte"
    client.accepts()
    assert repo.log == ["metadata/2.root.json", "metadata/timestamp.json"], repo.log


@case(described=True)
def files_may_be_described_by_hash_and_length(repo, client):
    repo.publish_all()
    client.accepts(snapshot=2, targets=2)


@case(consistent=False)
def a_repository_without_consistent_snapshots(repo, client):
    repo.add_target("dir/file", b"content")
    repo.publish_all()
    assert client.download("dir/file") == 0, client.text
    assert client.files() == [b"content"]
    assert "targets/dir/file" in repo.log


@case()
def white_space_is_kept(repo, client):
    repo.files["metadata/timestamp.json"] += b" \n"
    client.accepts()
    assert (client.metadata / "timestamp.json").read_bytes() == repo.files["metadata/timestamp.json"]


@case()
def fields_of_later_specifications_are_signed_and_ignored(repo, client):
    repo.root.unrecognized_fields["new"] = {"b": [1, None, True], "a": "\"\\\u00e4\U0001f600\n\u0301"}
    repo.root.roles["targets"].unrecognized_fields["new"] = "x"
    signer = repo.add_key("root")
    signer.public_key.unrecognized_fields["new"] = {"a": 1}
    repo.publish("root")
    repo.delegate("targets", "role")
    repo.targets.delegations.unrecognized_fields["new"] = 1
    repo.targets.delegations.roles["role"].unrecognized_fields["new"] = 1
    repo.publish_all()
    client.accepts(root=2, targets=2)


@case("sha256", "sha512", "sha256,sha512")
def a_target_is_downloaded_once(repo, client, hashes):
    target = repo.add_target("dir/file.bin", b"content", hashes=hashes.split(","))
    repo.publish_all()
    assert client.download("dir/file.bin") == 0, client.text
    assert client.files() == [b"content"]
    asked = repo.asked("targets/")
    assert asked in [[f"targets/dir/{value}.file.bin"] for value in target.hashes.values()], asked
    assert client.download("dir/file.bin") == 0
    assert not repo.asked("targets/"), "fetched again"
    repo.add_target("dir/file.bin", b"other", hashes=hashes.split(","))
    repo.publish_all()
    assert client.download("dir/file.bin") == 0
    assert client.files() == [b"other"]


@case()
def several_targets_at_once(repo, client):
    repo.add_target("a", b"1")
    repo.add_target("b", b"2")
    repo.publish_all()
    assert client.download("a", "b") == 0, client.text
    assert client.files() == [b"1", b"2"]
    assert client.download("a", "missing") == 1
    assert client.download("missing") == 1


@case(("ed25519", CryptoSigner.generate_ed25519), ("ecdsa", CryptoSigner.generate_ecdsa),
      ("rsa-pss", CryptoSigner.generate_rsa), ("rsa-pkcs1", lambda: CryptoSigner.generate_rsa(scheme="rsa-pkcs1v15-sha256")))
def every_kind_of_key(repo, client, _, generate):
    signer = repo.add_key("root", generate())
    repo.root.roles["root"].threshold = 2
    repo.publish("root")
    client.accepts(root=2)
    repo.publish("root")
    wrong = Metadata.from_bytes(repo.sign("root"))
    signature = wrong.signatures[signer.public_key.keyid]
    signature.signature = signature.signature[:-2] + ("00" if signature.signature[-2:] != "00" else "01")
    repo.put("root", wrong.to_bytes())
    client.refuses("signature", root=2)


@case()
def a_key_of_an_unknown_kind_does_no_harm(repo, client):
    signer = CryptoSigner.generate_ed25519()
    signer.public_key.scheme = "post-quantum"
    repo.root.add_key(signer.public_key, "timestamp")
    repo.publish("root")
    client.accepts(root=2)


# Roots.

@case(
    ("all keys replaced", [([1], 1, [1]), ([2], 1, [2, 1]), ([2], 1, [2])], True),
    ("unused signatures", [([1], 1, [3, 1, 4]), ([2], 1, [3, 2, 1, 4])], True),
    ("3 of 5 in changing company", [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 2, 3, 4], 3, [0, 4, 1])], True),
    ("one of five replaced", [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 4, 1])], True),
    ("threshold raised", [([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [1, 2])], True),
    ("threshold lowered", [([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1, 2]), ([1, 2, 3], 1, [1])], True),
    ("not by the old key", [([1], 1, [1]), ([2], 1, [2, 3, 4])], False),
    ("not by the new key", [([1], 1, [1]), ([2], 1, [1, 3, 4])], False),
    ("too few of the new", [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 2, 4])], False),
    ("too few of the old", [([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 4, 5])], False),
    ("old threshold not reached", [([1, 2, 3], 2, [1, 2]), ([1, 2, 3], 1, [1])], False),
    ("new threshold not reached", [([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [2])], False),
)
def root_follows_root(repo, _client, _, steps, good):
    signers = [CryptoSigner.generate_ed25519() for _ in range(6)]
    repo.root.version = 0
    for keys, threshold, by in steps:
        repo.root.roles["root"].keyids.clear()
        repo.root.roles["root"].threshold = threshold
        for key in keys:
            repo.root.add_key(signers[key].public_key, "root")
        repo.signers["root"] = [signers[i] for i in by]
        repo.publish("root")
    with tempfile.TemporaryDirectory() as directory:
        client = Client(_client.url.rstrip("/").rsplit("/", 1)[1], directory, repo)
        last = len(steps)
        if good:
            client.accepts(root=last)
        else:
            client.refuses("signature", root=last - 1)
            last -= 1
        assert (client.metadata / "root.json").read_bytes() == repo.files[f"metadata/{last}.root.json"]


@case()
def a_hundred_roots_are_followed(repo, client):
    for i in range(100):
        if i % 10 == 0:
            old = repo.signers["root"]
            repo.root.roles["root"].keyids.clear()
            repo.signers["root"] = []
            new = repo.add_key("root")
            repo.publish("root", by=[new, *old])
        else:
            repo.publish("root")
    client.accepts(root=101)


@case()
def an_unusable_trusted_root(repo, client):
    for damage in (lambda root: root["signed"].pop("version"), lambda root: root["signatures"][0].update(sig="00" * 64),
                   lambda root: root["signed"]["roles"].pop("snapshot"), lambda root: root["signed"].update(_type="targets")):
        root = json.loads(repo.files["metadata/1.root.json"])
        damage(root)
        (client.metadata / "root.json").write_text(json.dumps(root))
        client.refuses("trusted root")
        assert not repo.log


@case(*TOP)
def a_role_without_its_signature(repo, client, role):
    client.accepts()
    repo.signers[role] = [CryptoSigner.generate_ed25519()]
    repo.publish("root", "targets", "snapshot", "timestamp")
    kept = dict(root=2, timestamp=2, snapshot=2, targets=2)
    for later in ("root", "timestamp", "snapshot", "targets")[("root", "timestamp", "snapshot", "targets").index(role):]:
        kept[later] = 1
    client.refuses("signature", **kept)


@case("root", "snapshot", "targets")
def a_version_other_than_in_the_name(repo, client, role):
    repo.roles[role].version = 7
    content = repo.sign(role)
    repo.roles[role].version = 1
    repo.publish(*(r for r in ("targets", "snapshot", "timestamp", "root")))
    repo.put(role, content, 2)
    client.refuses("version 7")


@case()
def thresholds_count_keys_not_signatures(repo, client):
    repo.root.roles["snapshot"].threshold = 3
    for _ in range(2):
        repo.add_key("snapshot")
    repo.publish("root", "snapshot", "timestamp")
    client.accepts(snapshot=2)
    repo.signers["snapshot"].pop()
    repo.publish("snapshot", "timestamp")
    client.refuses("signature", snapshot=2)


@case()
def the_same_key_under_several_ids_counts_once(repo, client):
    signer = repo.signers["timestamp"][0]
    root = json.loads(repo.sign("root"))["signed"]
    root["version"] = 2
    role, key = root["roles"]["timestamp"], signer.public_key.to_dict()
    for name in ("one", "two"):
        root["keys"][name] = key
        role["keyids"].append(name)
    role["threshold"] = 2
    repo.put("root", resign(root, repo.signers["root"]), 2)
    timestamp = json.loads(repo.files["metadata/timestamp.json"])
    for name in ("one", "two"):
        timestamp["signatures"].append({"keyid": name, "sig": timestamp["signatures"][0]["sig"]})
    repo.files["metadata/timestamp.json"] = json.dumps(timestamp).encode()
    client.refuses("1 of 2", root=2)


def resign(signed, signers):
    """Signs what python-tuf's types would not let pass."""
    from securesystemslib.formats import encode_canonical
    message = encode_canonical(signed).encode()
    signatures = [{"keyid": s.public_key.keyid, "sig": s.sign(message).signature} for s in signers]
    return json.dumps({"signed": signed, "signatures": signatures}).encode()


@case()
def a_key_that_signed_twice(repo, client):
    snapshot = json.loads(repo.files["metadata/1.snapshot.json"])
    snapshot["signatures"] *= 2
    repo.put("snapshot", json.dumps(snapshot).encode(), 1)
    client.refuses("twice")


@case("00", "", "no hex")
def a_useless_signature_beside_enough_good_ones(repo, client, signature):
    repo.add_key("timestamp")
    repo.publish("root", "timestamp")
    timestamp = json.loads(repo.files["metadata/timestamp.json"])
    timestamp["signatures"][0]["sig"] = signature
    repo.files["metadata/timestamp.json"] = json.dumps(timestamp).encode()
    client.accepts(timestamp=2)


@case()
def a_role_in_the_place_of_another(repo, client):
    repo.add_key("snapshot", repo.signers["timestamp"][0])
    repo.snapshot.meta = {"snapshot.json": MetaFile(1)}
    repo.publish("root", "snapshot", by=None)
    repo.files["metadata/timestamp.json"] = repo.files["metadata/2.snapshot.json"]
    client.refuses("_type", root=2, timestamp=None)


@case("timestamp", "snapshot", "targets")
def a_missing_file(repo, client, role):
    client.accepts()
    repo.publish_all()
    del repo.files[repo.name(role)]
    client.refuses("does not have it")


@case(403, 500)
def a_server_that_answers_for_a_root_with(repo, client, status):
    repo.faults["metadata/2.root.json"] = status
    # "Forbidden" is how object stores say that there is no such file.
    assert client.refresh() == (0 if status == 403 else 1), client.text


# Replay and rollback.

@case()
def the_same_timestamp_version_with_other_content(repo, client):
    client.accepts()
    repo.timestamp.snapshot_meta.version = 100
    repo.publish("timestamp", bump=False)
    client.accepts(timestamp=1, snapshot=1)
    assert repo.log[-1] == "metadata/timestamp.json"
    assert json.loads((client.metadata / "timestamp.json").read_bytes())["signed"]["meta"]["snapshot.json"]["version"] == 1


@case()
def an_older_timestamp(repo, client):
    first = repo.files["metadata/timestamp.json"]
    repo.publish("timestamp")
    client.accepts(timestamp=2)
    repo.files["metadata/timestamp.json"] = first
    client.refuses("older state", timestamp=2)
    assert repo.log[-1] == "metadata/timestamp.json"


@case(("plain", False), ("described", True))
def an_older_snapshot_under_a_newer_timestamp(repo, client, _, described):
    repo.described = described
    repo.publish("snapshot", "timestamp")
    client.accepts(snapshot=2)
    repo.snapshot.version = 0
    repo.publish("snapshot", "timestamp")
    client.refuses("older state", timestamp=2, snapshot=2)
    assert repo.log[-1] == "metadata/timestamp.json"


@case(("plain", False), ("described", True))
def older_targets_under_a_newer_snapshot(repo, client, _, described):
    repo.described = described
    repo.publish_all()
    client.accepts(targets=2)
    repo.targets.version = 0
    repo.publish_all()
    client.refuses("older state", timestamp=3, snapshot=2, targets=2)


@case()
def a_role_that_vanishes_from_the_snapshot(repo, client):
    repo.delegate("targets", "role")
    repo.publish_all()
    client.accepts(snapshot=2)
    del repo.snapshot.meta["role.json"]
    repo.publish_all()
    client.refuses("role.json", snapshot=2)


@case("timestamp", "snapshot", "targets")
def versions_that_were_driven_up_are_undone_by_new_keys(repo, client, role):
    repo.roles[role].version = 1000
    roles = ("targets", "snapshot", "timestamp")
    repo.publish(*roles[roles.index(role):])
    client.accepts(**{role: 1001})
    # Whoever signs the role above keeps count of the versions.
    for replaced in {"timestamp": ("timestamp",), "snapshot": ("snapshot", "timestamp"), "targets": ("snapshot",)}[role]:
        repo.replace_keys(replaced)
    repo.roles[role].version = 0
    repo.publish("root", *roles[roles.index(role):])
    client.accepts(**{role: 1})


# Freeze.

@case()
def an_expired_root_is_kept_and_stops_everything(repo, client):
    client.accepts()
    repo.root.expires = days(-1)
    repo.publish("root")
    repo.publish_all()
    client.refuses("expired", root=2, timestamp=1)
    repo.root.expires = days(30)
    repo.publish("root")
    client.accepts(root=3, timestamp=2)


@case(("timestamp", dict(timestamp=1, snapshot=1)), ("snapshot", dict(timestamp=2, snapshot=1)), ("targets", dict(snapshot=2, targets=1)))
def an_expired_role_is_not_kept(repo, client, role, kept):
    client.accepts()
    repo.roles[role].expires = days(-1)
    repo.publish_all()
    client.refuses("expired", **kept)


@case("timestamp", "snapshot", "targets")
def a_server_that_stands_still_is_noticed_at_expiry(repo, client, role):
    repo.roles[role].expires = days(7)
    repo.publish_all()
    client.accepts()
    assert client.refresh(later=18) == 1
    assert "expired" in client.text, client.text
    # What has expired still serves to go on from.
    for each in ("timestamp", "snapshot", "targets"):
        repo.roles[each].expires = days(60)
    repo.publish_all()
    assert client.refresh(later=18) == 0, client.text
    client.has(timestamp=3, snapshot=3, targets=3)


@case()
def an_expired_delegated_role(repo, client):
    repo.delegate("targets", "role", expires=days(7))
    repo.add_target("file", b"content", "role")
    repo.add_target("file2", b"content 2", "role")
    repo.publish_all("role")
    assert client.download("file") == 0, client.text
    assert client.download("file2", later=18) == 1
    assert client.files() == [b"content"]
    repo.roles["role"].expires = days(60)
    repo.publish_all("role")
    assert client.download("file2", later=18) == 0, client.text


# Mix and match, tampering.

@case("snapshot", "targets", described=True)
def a_file_of_another_state(repo, client, role):
    first = repo.files[repo.name(role)]
    repo.publish_all()
    client.accepts()
    repo.publish_all()
    repo.files[repo.name(role)] = first
    client.refuses("hash", **{role: 2})


@case()
def a_hash_that_does_not_fit(repo, client):
    client.accepts()
    repo.publish("targets")
    repo.snapshot.meta["targets.json"].hashes = {"sha256": "46" * 32}
    repo.publish("snapshot", "timestamp")
    client.refuses("hash", snapshot=2, targets=1)


@case(b"malicious", b"contenT", b"", b"cont", b"content and more")
def another_content_of_a_target(repo, client, content):
    target = repo.add_target("file", b"content")
    repo.publish_all()
    for path in list(repo.files):
        if path.startswith("targets/"):
            repo.files[path] = content
    assert client.download("file") == 1
    assert client.files() == []
    assert target


@case()
def a_target_with_unknown_hashes_only(repo, client):
    target = repo.add_target("file", b"content")
    repo.targets.targets["file"].hashes = {"unknown": target.hashes["sha256"]}
    repo.publish_all()
    assert client.download("file") == 1
    assert client.files() == []


@case("../file", "/file", "a//b", "..", "a/../../b")
def a_target_name_that_would_leave_its_place(repo, client, name):
    repo.add_target(name, b"content")
    repo.publish_all()
    client.download(name)
    everywhere = [p for p in client.targets.parent.rglob("*") if p.is_file() and p.read_bytes() == b"content"]
    assert all(p.parent == client.targets for p in everywhere), everywhere


# Endless data, slow retrieval.

@case("metadata/2.root.json", "metadata/timestamp.json", "metadata/1.snapshot.json", "metadata/1.targets.json")
def data_without_end(repo, client, path):
    repo.faults[path] = "endless"
    client.refuses("more than the")


@case()
def a_target_without_end(repo, client):
    target = repo.add_target("file", b"content")
    repo.publish_all()
    repo.faults[f"targets/{target.hashes['sha256']}.file"] = "endless"
    assert client.download("file") == 1
    assert client.files() == []


@case(slow=True)
def data_that_drips(repo, client):
    repo.faults["metadata/timestamp.json"] = "slow"
    client.refuses("only")


# Compromised keys: what a thief of one online key can do.

@case()
def a_thief_of_the_timestamp_key(repo, client):
    repo.publish_all()
    client.accepts(snapshot=2)
    # He can name no snapshot that the snapshot key has not signed.
    forged = Snapshot(version=3, expires=days(30), meta={"targets.json": MetaFile(2)})
    metadata = Metadata(forged)
    metadata.sign(repo.signers["timestamp"][0])
    repo.files["metadata/3.snapshot.json"] = metadata.to_bytes()
    repo.timestamp.snapshot_meta = MetaFile(3)
    repo.publish("timestamp")
    client.refuses("signature", snapshot=2)


@case()
def a_thief_of_the_snapshot_and_timestamp_keys(repo, client):
    repo.add_target("file", b"good")
    repo.publish_all()
    client.accepts(targets=2)
    # He can offer nothing that the targets key has not signed, nor what is older than seen.
    forged = Targets(version=3, expires=days(30))
    metadata = Metadata(forged)
    for role in ("snapshot", "timestamp"):
        metadata.sign(repo.signers[role][0], append=True)
    repo.files["metadata/3.targets.json"] = metadata.to_bytes()
    repo.snapshot.meta["targets.json"] = MetaFile(3)
    repo.publish("snapshot", "timestamp")
    client.refuses("signature", targets=2)
    repo.snapshot.meta["targets.json"] = MetaFile(1)
    repo.publish("snapshot", "timestamp")
    client.refuses("older state", targets=2)


@case("timestamp", "snapshot", "targets")
def a_replaced_key_signs_nothing_any_more(repo, client, role):
    client.accepts()
    stolen = repo.replace_keys(role)
    repo.publish("root", "targets", "snapshot", "timestamp")
    client.accepts(root=2, **{role: 2})
    repo.signers[role] = stolen
    repo.publish_all()
    client.refuses("signature", **{role: 2})
    # Nor can the root that revokes it be hidden.
    del repo.files["metadata/2.root.json"]
    client.refuses("signature", root=2, **{role: 2})


# Delegations.

def tree(repo, *edges):
    for by, role, *more in edges:
        repo.delegate(by, role, **(more[0] if more else {}))
    repo.publish_all(*{role for _, role, *_ in edges})


PY, END = {"patterns": ("*.py",)}, {"terminating": True}


@case(
    ("one", [("targets", "A")], "A"),
    ("two", [("targets", "A"), ("targets", "B")], "AB"),
    ("depth first", [("targets", "A"), ("targets", "B"), ("A", "C"), ("A", "D")], "ACDB"),
    ("deeper", [("targets", "A"), ("targets", "B"), ("A", "C"), ("C", "D")], "ACDB"),
    ("terminating", [("targets", "A"), ("targets", "B"), ("A", "C", END), ("A", "D")], "AC"),
    ("terminating with descendants", [("targets", "A"), ("targets", "B"), ("A", "C", END), ("C", "D")], "ACD"),
    ("other paths", [("targets", "A", PY), ("targets", "B"), ("A", "C")], "B"),
    ("other paths further down", [("targets", "A"), ("targets", "B"), ("A", "C", PY), ("C", "D")], "AB"),
    ("a circle", [("targets", "A"), ("targets", "B"), ("B", "C"), ("C", "D"), ("D", "B")], "ABCD"),
    ("one role by two ways", [("targets", "A"), ("targets", "B"), ("B", "C"), ("A", "C")], "ACB"),
    ("the second way only", [("targets", "A"), ("targets", "B"), ("B", "C"), ("A", "C", PY)], "ABC"),
)
def roles_are_visited_in_order(repo, client, _, edges, order):
    tree(repo, *edges)
    assert client.download("missing") == 1
    assert "no role offers" in client.text, client.text
    visited = [path.split(".")[1] for path in repo.log[4:]]
    assert visited == list(order), visited


@case(
    ("top level", "file", "", True),
    ("by wildcard", "README.md", "A", True),
    ("below directories", "releases/x/x_v1", "BC", True),
    ("below others", "releases/y/y_v1.zip", "BD", True),
    ("not left to the role that has it", "releases/z/z_v1.zip", "B", False),
)
def a_target_is_found_where_it_may_be(repo, client, _, name, order, found):
    repo.delegate("targets", "A", ("*.doc", "*.md"))
    repo.delegate("targets", "B", ("releases/*/*",))
    repo.delegate("B", "C", ("releases/x/*",))
    repo.delegate("B", "D", ("releases/y/*.zip",))
    for role, path in (("targets", "file"), ("A", "README.md"), ("C", "releases/x/x_v1"), ("D", "releases/y/y_v1.zip"), ("D", "releases/z/z_v1.zip")):
        repo.add_target(path, path.encode(), role)
    repo.publish_all("A", "B", "C", "D")
    assert client.download(name) == (0 if found else 1), client.text
    assert client.files() == ([name.encode()] if found else [])
    visited = [path.split(".")[1] for path in repo.asked("metadata/")[4:]]
    assert visited == list(order), visited


@case()
def roles_by_hash_prefixes(repo, client):
    import hashlib
    name = "file"
    first = hashlib.sha256(name.encode()).hexdigest()[0]
    repo.delegate("targets", "no", prefixes=[c for c in "0123456789abcdef" if c != first])
    repo.delegate("targets", "yes", prefixes=[first])
    repo.add_target(name, b"content", "yes")
    repo.publish_all("no", "yes")
    assert client.download(name) == 0, client.text
    assert [p for p in repo.asked("metadata/")[4:]] == ["metadata/2.yes.json"]


@case((1, "boo", "bin-0"), (8, "bar", "bin-fc"), (6, "foo", None))
def succinct_bins(repo, client, bits, name, expected):
    repo.delegate_bins("targets", bits, "bin")
    role = repo.targets.delegations.succinct_roles.get_role_for_target(name)
    assert expected in (None, role)
    repo.add_target(name, b"content", role)
    repo.publish_all(role)
    assert client.download(name) == 0, client.text
    assert client.files() == [b"content"]
    assert len(repo.asked("metadata/")) == 5


@case("?", "#", "/role", "../role", "a b%20", "\u00e4", "role.json", "1.root")
def unusual_role_names(repo, client, role):
    from urllib.parse import quote
    repo.delegate("targets", role)
    repo.publish_all()
    assert client.download("missing") == 1
    assert f"metadata/1.{quote(role, '')}.json" in repo.log, repo.log
    assert len(client.versions()) == 5, client.versions()
    assert client.refresh() == 0, client.text


@case("root", "timestamp", "snapshot", "targets")
def a_delegated_role_with_the_name_of_a_top_level_one(repo, client, role):
    repo.publish_all()
    client.accepts()
    before = client.versions()
    targets = json.loads(repo.sign("targets"))["signed"]
    targets["version"] += 1
    signer = CryptoSigner.generate_ed25519()
    keyid = signer.public_key.keyid
    targets["delegations"] = {"keys": {keyid: signer.public_key.to_dict()},
                              "roles": [{"name": role, "keyids": [keyid], "threshold": 1, "terminating": False, "paths": ["*"]}]}
    repo.targets.version += 1
    repo.put("targets", resign(targets, repo.signers["targets"]))
    repo.snapshot.meta["targets.json"] = MetaFile(targets["version"])
    repo.snapshot.meta[f"{role}.json"] = MetaFile(targets["version"] if role == "targets" else 1)
    repo.publish("snapshot", "timestamp")
    assert client.download("missing") == 1
    after = client.versions()
    assert after.keys() == before.keys() and after["root"] == 1, after


@case()
def a_role_is_checked_against_the_one_that_led_to_it(repo, client):
    repo.delegate("targets", "A", ("a*",))
    repo.delegate("targets", "B", ("b*",))
    repo.delegate("A", "C", ("a*",))
    # B leaves its targets to C as well, but to another key of it.
    own = list(repo.signers["C"])
    repo.delegate("B", "C", ("b*",))
    repo.signers["C"] = own
    repo.add_target("a1", b"a", "C")
    repo.add_target("b1", b"b", "C")
    repo.publish_all("A", "B", "C")
    assert client.download("a1") == 0, client.text
    assert client.download("b1") == 1
    assert "signature" in client.text, client.text
    assert client.download("a1", "b1") == 1
    assert client.files() == [b"a"]


@case()
def a_delegated_role_signed_by_another_key(repo, client):
    repo.delegate("targets", "role")
    repo.signers["role"] = repo.signers["snapshot"] + repo.signers["timestamp"]
    repo.add_target("file", b"content", "role")
    repo.publish_all("role")
    assert client.download("file") == 1
    assert "signature" in client.text and client.files() == []


@case()
def a_chain_of_roles_without_end(repo, client):
    by = "targets"
    for i in range(40):
        repo.delegate(by, f"r{i}")
        by = f"r{i}"
    repo.add_target("file", b"content", by)
    repo.publish_all(*(f"r{i}" for i in range(40)))
    assert client.download("file") == 1
    assert len(repo.asked("metadata/")) <= 4 + 32


def run(number, name):
    function, value, named = CASES[name]
    named = dict(named)
    named.pop("slow", None)
    repository = Repository(**named)
    key = f"r{number}"
    SERVER.repositories[key] = repository
    try:
        with tempfile.TemporaryDirectory() as directory:
            client = Client(key, directory, repository)
            function(repository, client, *value)
        return name, ""
    except Exception:
        return name, traceback.format_exc(limit=-3)


def main():
    global PROGRAM
    PROGRAM, *wanted = sys.argv[1:]
    names = [name for name in CASES if not wanted or any(part in name for part in wanted)]
    if os.environ.get("TUF_SLOW") != "1":
        names = [name for name in names if not CASES[name][2].get("slow")]
    with ThreadPoolExecutor(4) as pool:
        results = dict(pool.map(lambda item: run(*item), enumerate(names)))
    json.dump(results, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
