"""Reads an update directory with python-tuf, the reference client, over HTTP on this machine.

usage: python_tuf.py SERVER_DIR ROOT_JSON WORK_DIR TARGET...

Prints one JSON object: {"targets": {name: content or null}} or {"refused": exception's name}.
WORK_DIR is the client's memory; the same one again is the same client, later.
"""

import functools
import http.server
import json
import os
import sys
import threading

from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.ngclient import Updater


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def read(address, root, work, names):
    metadata = os.path.join(work, "metadata")
    downloads = os.path.join(work, "downloads")
    os.makedirs(metadata, exist_ok=True)
    os.makedirs(downloads, exist_ok=True)
    updater = Updater(
        metadata_dir=metadata,
        metadata_base_url=f"{address}/tuf/",
        target_dir=downloads,
        target_base_url=f"{address}/tuf/targets/",
        bootstrap=root,
    )
    updater.refresh()
    found = {}
    for name in names:
        info = updater.get_targetinfo(name)
        if info is None:
            found[name] = None
            continue
        with open(updater.download_target(info), encoding="utf-8") as file:
            found[name] = file.read()
    return {"targets": found}


def main():
    server_dir, root_json, work, *names = sys.argv[1:]
    with open(root_json, "rb") as file:
        root = file.read()
    handler = functools.partial(Quiet, directory=server_dir)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        result = read(f"http://127.0.0.1:{server.server_address[1]}", root, work, names)
    except (RepositoryError, DownloadError) as error:
        result = {"refused": type(error).__name__}
    finally:
        server.shutdown()
    print(json.dumps(result))


main()
