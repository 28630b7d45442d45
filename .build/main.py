"""The first thing anchor.pyz runs: it checks for the Python and the machine it was built for.

Written so that any Python since 2.7 can read it; what comes after needs the right one.
"""

import os
import sys

BUILT_FOR = {}  # filled in by build_zipapp.py


def running():
    """Tell what this is, in the words of BUILT_FOR."""
    implementation = getattr(sys, "implementation", None)
    return {
        "python": list(sys.version_info[:2]),
        "name": getattr(implementation, "name", "cpython"),
        "flags": getattr(sys, "abiflags", ""),
        "system": sys.platform,
        "machine": os.uname()[4] if hasattr(os, "uname") else "",
        "library": getattr(implementation, "_multiarch", ""),
    }


def described(what):
    """One of these in words, such as `CPython 3.11 on linux x86_64`."""
    name = {"cpython": "CPython", "pypy": "PyPy"}.get(what["name"], what["name"])
    words = "%s %s%s on %s %s" % (
        name,
        ".".join(map(str, what["python"])),
        what["flags"],
        what["system"],
        what["machine"],
    )
    library = what["library"]
    return words if library in ("", what["system"]) else "%s (%s)" % (words, library)


def main():
    """Check, then go on to launcher.py."""
    if running() != BUILT_FOR:
        name = os.path.basename(sys.argv[0])
        built, runs = described(BUILT_FOR), described(running())
        sys.stderr.write("this %s is built for %s; you run %s\n" % (name, built, runs))
        sys.exit(1)
    import launcher

    launcher.launch(sys.argv[0])


if __name__ == "__main__":
    main()
