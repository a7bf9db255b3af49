"""A repository of The Update Framework made with python-tuf, served from memory over plain HTTP.

What a case wants to be wrong it makes wrong: the roles are python-tuf's own objects, `files` is what the
server hands out, `faults` are answers that are no files.
"""

import copy
import hashlib
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (DelegatedRole, Delegations, Metadata, MetaFile, Root, Snapshot, SuccinctRoles,
                              TargetFile, Targets, Timestamp)

TOP = ("root", "timestamp", "snapshot", "targets")


def days(count):
    return datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=count)


class Repository:
    def __init__(self, consistent=True, described=False):
        self.files, self.faults, self.log = {}, {}, []
        # Whether timestamp and snapshot give length and hashes of what they name.
        self.described = described
        self.roles = {
            "root": Root(expires=days(30), consistent_snapshot=consistent),
            "timestamp": Timestamp(expires=days(30)),
            "snapshot": Snapshot(expires=days(30)),
            "targets": Targets(expires=days(30)),
        }
        self.signers = {role: [] for role in TOP}
        for role in TOP:
            self.add_key(role)
        self.publish(*reversed(TOP), bump=False)
        self.publish("root", bump=False)

    root = property(lambda self: self.roles["root"])
    timestamp = property(lambda self: self.roles["timestamp"])
    snapshot = property(lambda self: self.roles["snapshot"])
    targets = property(lambda self: self.roles["targets"])

    def add_key(self, role, signer=None, by="root"):
        signer = signer or CryptoSigner.generate_ed25519()
        self.roles[by].add_key(signer.public_key, role)
        self.signers.setdefault(role, []).append(signer)
        return signer

    def replace_keys(self, role):
        """Other keys for a top-level role, as many as the threshold wants."""
        stolen = self.signers[role]
        self.root.roles[role].keyids.clear()
        self.signers[role] = []
        for _ in range(self.root.roles[role].threshold):
            self.add_key(role)
        return stolen

    def sign(self, role, by=None):
        metadata = Metadata(copy.deepcopy(self.roles[role]))
        for signer in self.signers[role] if by is None else by:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def name(self, role, version=None):
        """The file of a role on the server."""
        plain = quote(role, "")
        if role == "timestamp" or (role != "root" and not self.root.consistent_snapshot):
            return f"metadata/{plain}.json"
        return f"metadata/{version or self.roles[role].version}.{plain}.json"

    def put(self, role, content, version=None):
        self.files[self.name(role, version)] = content

    def publish(self, *roles, bump=True, by=None):
        """Signs roles in this order; each is named by the role above with its new version."""
        for role in roles:
            body = self.roles[role]
            if bump:
                body.version += 1
            content = self.sign(role, by)
            self.put(role, content)
            meta = MetaFile(body.version)
            if self.described:
                meta = MetaFile(body.version, len(content), {"sha256": hashlib.sha256(content).hexdigest()})
            if role == "snapshot":
                self.timestamp.snapshot_meta = meta
            elif role not in ("root", "timestamp"):
                self.snapshot.meta[f"{role}.json"] = meta

    def publish_all(self, *delegated):
        self.publish(*delegated, "targets", "snapshot", "timestamp")

    def add_target(self, path, content, role="targets", hashes=("sha256",)):
        target = TargetFile.from_data(path, content, list(hashes))
        self.roles[role].targets[path] = target
        directory, slash, file = path.rpartition("/")
        for value in target.hashes.values():
            self.files[f"targets/{directory}{slash}{value}.{file}"] = content
        self.files[f"targets/{path}"] = content
        return target

    def delegate(self, by, role, patterns=("*",), terminating=False, prefixes=None, expires=None):
        body = self.roles[by]
        if body.delegations is None:
            body.delegations = Delegations({}, roles={})
        paths = None if prefixes else list(patterns)
        body.delegations.roles[role] = DelegatedRole(role, [], 1, terminating, paths, prefixes)
        known = role in self.roles
        if not known:
            self.roles[role] = Targets(expires=expires or days(30))
        signer = self.add_key(role, by=by)
        if not known:
            self.publish(role, bump=False)
        return signer

    def delegate_bins(self, by, bits, prefix):
        bins = SuccinctRoles([], 1, bits, prefix)
        self.roles[by].delegations = Delegations({}, None, bins)
        signer = CryptoSigner.generate_ed25519()
        for role in bins.get_roles():
            self.roles[role] = Targets(expires=days(30))
            self.signers[role] = [signer]
            self.publish(role, bump=False)
        self.roles[by].add_key(signer.public_key)

    def asked(self, part=""):
        return [path for path in self.log if part in path]


class Server:
    """Every repository below a name of its own."""

    def __init__(self):
        server = self
        self.repositories = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                _, name, path = self.path.split("/", 2)
                server.answer(self, server.repositories[name], path)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def url(self, name):
        return f"http://127.0.0.1:{self.http.server_address[1]}/{name}/"

    @staticmethod
    def answer(request, repository, path):
        repository.log.append(path)
        fault = repository.faults.get(path)
        try:
            if fault == "endless":
                request.send_response(200)
                request.end_headers()
                while True:
                    request.wfile.write(b" " * 65536)
            elif fault == "slow":
                request.send_response(200)
                request.end_headers()
                while True:
                    request.wfile.write(b" ")
                    time.sleep(0.05)
            elif fault is not None:
                request.send_error(fault)
            elif path in repository.files:
                content = repository.files[path]
                request.send_response(200)
                request.send_header("Content-Length", str(len(content)))
                request.end_headers()
                request.wfile.write(content)
            else:
                request.send_error(404)
        except (BrokenPipeError, ConnectionResetError):
            pass
