"""Turn the .proto files into the modules the packages keep behind one file each.

Run it with grpcio-tools installed, from anywhere: ``python proto/generate.py``.
``--check`` writes nothing and exits 1 when what is committed is out of date.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "proto" / "anchor" / "v1"
PACKAGE_OF = {"raft": "transport", "forward": "transport", "fsm": "fsm"}


def generated() -> dict[Path, str]:
    """The text of every generated module, by the path it belongs at."""
    texts: dict[Path, str] = {}
    with tempfile.TemporaryDirectory() as out:
        arguments = ["protoc", f"-I{SOURCES}", f"--python_out={out}", f"--pyi_out={out}"]
        arguments += [f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
        arguments += [f"{name}.proto" for name in PACKAGE_OF]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc failed")
        for name, package in PACKAGE_OF.items():
            for ending in ("py", "pyi"):
                text = (Path(out) / f"{name}_pb2.{ending}").read_text()
                # protoc knows no Python packages: it imports its neighbours by bare name.
                text = text.replace("import raft_pb2", f"from anchor.{package} import raft_pb2")
                texts[ROOT / "anchor" / package / f"{name}_pb2.{ending}"] = text
    return texts


def main() -> int:
    """Write the modules, or with ``--check`` tell which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [
        (path, text)
        for path, text in generated().items()
        if not path.exists() or path.read_text() != text
    ]
    for path, text in stale:
        print(f"{'out of date' if check else 'wrote'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
