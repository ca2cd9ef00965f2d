"""Packs a folder as an image: image.py NAME FOLDER COMMAND writes an OCI image layout, as a tar, to
standard output (https://github.com/opencontainers/image-spec, image-layout.md)."""

import hashlib
import io
import json
import platform
import sys
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def tar(files):
    """A tar of (name, content) pairs."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def layer(folder):
    """The folder's content, owned by root and as old as everything else here."""

    def clean(entry):
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(folder, arcname=".", filter=clean)
    return packed.getvalue()


def image(name, folder, command):
    """The whole layout: one layer, its configuration, a manifest, an index that names it."""
    blobs = []

    def blob(media_type, content):
        digest = hashlib.sha256(content).hexdigest()
        blobs.append((f"blobs/sha256/{digest}", content))
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def document(media_type, value):
        return blob(media_type, json.dumps(value).encode())

    packed = blob("application/vnd.oci.image.layer.v1.tar", layer(folder))
    configuration = document(
        "application/vnd.oci.image.config.v1+json",
        {
            "architecture": ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"Entrypoint": [command], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [packed["digest"]]},
        },
    )
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = document(
        kind, {"schemaVersion": 2, "mediaType": kind, "config": configuration, "layers": [packed]}
    )
    manifest["annotations"] = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rsplit(":")[-1],
    }
    index = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
    return tar([("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'), ("index.json", index), *blobs])


if __name__ == "__main__":
    sys.stdout.buffer.write(image(*sys.argv[1:]))
