"""In the child: runs one test against one answer's code, shut in as far as the system allows. Standard library alone.

Started by `code` as a file (`python -I -S`), so that nothing of the package is in its reach. Standard input is one JSON object;
the result is one line on standard output, begun by the caller's token; code and test see neither stream.
"""

import ctypes
import json
import os
import sys
from pathlib import Path

_MOUNT_SETATTR = 442  # the system call, on every architecture of ours; Linux 5.12
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC = 2, 4, 4096, 16384
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAPABILITY_VERSION = 0x20080522
# Sockets of services, others' files, secrets: nothing that a test needs.
_HIDDEN = ("/run", "/var/run", "/tmp", "/var/tmp", "/dev/shm", "/home", "/root", "/mnt", "/media")


def main() -> None:
    """Reads the job, shuts itself in, runs it, tells the result, and ends without any clean-up that code could hook."""
    job = json.loads(sys.stdin.buffer.read())
    result = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    if job["isolated"]:
        _shut_in(job["folder"], job["file_bytes"])
    _limit(job)
    outcome = _outcome(job)
    os.write(result, f"{job['token']} {outcome}\n".encode())
    os._exit(0)


def _outcome(job: dict) -> str:
    """`passed`, or `raised` and the name of what was: the answer chooses that name, and may call it `passed`."""
    space: dict = {"__name__": "answer"}
    try:
        for part in ("code", "setup", "test"):
            exec(compile(job[part], f"<{part}>", "exec"), space)
    except BaseException as error:  # also SystemExit: code that ends the program has not passed its test
        name = "".join(one for one in type(error).__name__ if one.isascii() and (one.isalnum() or one == "_"))
        return f"raised {name[:60] or 'Exception'}"
    return "passed"


def _limit(job: dict) -> None:
    """Memory, processor time and file size of this process and its children; no core files."""
    import resource

    memory, cpu, file = job["memory_bytes"], job["cpu_s"], job["file_bytes"]
    for name, limit in (("AS", memory), ("DATA", memory), ("CPU", cpu), ("FSIZE", file), ("CORE", 0), ("NOFILE", 64)):
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is not None:
            resource.setrlimit(kind, (limit, limit))


def _shut_in(folder: str, file_bytes: int) -> None:
    """Within fresh namespaces: everything read-only, places with other people's things empty, a small folder in memory to
    write to, and no privilege left to undo it. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    _make_read_only(libc, "/")
    python = os.path.realpath(sys.base_prefix)
    kept = os.open(python, os.O_PATH)
    for place in _HIDDEN:
        real = os.path.realpath(place)
        if not Path(real).is_dir() or real.startswith(python + "/"):
            continue
        _memory_folder(libc, real, file_bytes if folder.startswith(real + "/") else 65536)
        if python.startswith(real + "/"):  # Python itself lives there: shown again, alone
            Path(python).mkdir(parents=True)
            _check(libc.mount(f"/proc/self/fd/{kept}".encode(), os.fsencode(python), None, _MS_BIND | _MS_REC, None))
            _make_read_only(libc, python)
    os.close(kept)
    if not Path(folder).is_dir():  # its place has just been hidden
        Path(folder).mkdir(parents=True)
    else:
        _memory_folder(libc, folder, file_bytes)
    os.chdir(folder)
    for capability in range(64):
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            break
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    _check(libc.capset(header, (ctypes.c_uint32 * 6)()))


def _make_read_only(libc: ctypes.CDLL, place: str) -> None:
    attributes = (ctypes.c_uint64 * 4)(1, 0, 0, 0)  # MOUNT_ATTR_RDONLY
    _check(libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(place), _AT_RECURSIVE, attributes, 32))


def _memory_folder(libc: ctypes.CDLL, place: str, size: int) -> None:
    options = f"size={size},mode=700".encode()
    _check(libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", _MS_NOSUID | _MS_NODEV, options))


def _check(status: int) -> None:
    if status:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main()
