"""Takes away from a process on Unix what Windows lacks, and forbids what it forbids. Called before the project is imported."""

from __future__ import annotations

import builtins
import ctypes
import multiprocessing
import os
import shutil
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

MODULES = ("fcntl", "resource", "termios", "pwd", "grp")
NAMES = "pwrite pread O_NOFOLLOW O_NONBLOCK O_DIRECTORY register_at_fork fork sched_getaffinity mkfifo getuid geteuid"


def pretend() -> None:
    """Make this process as much like one on Windows as its libraries bear."""
    import pandas  # noqa: F401 - the libraries are imported first: they look for these names at their import
    import torch
    import torch.utils.data
    from transformers import BertModel  # noqa: F401

    import connection.system.paths as paths

    paths.WINDOWS = True
    warnings.simplefilter("ignore")  # the lock library says that it has no locks
    listdir, readlink, opened, lowest = os.listdir, os.readlink, builtins.open, os.open
    rename, replace, unlink, fsync, stat = os.rename, os.replace, os.unlink, os.fsync, os.path.isdir
    library = ctypes.CDLL

    def in_use() -> set[str]:
        """Files that this process has open or mapped."""
        found = set()
        for number in listdir("/proc/self/fd"):
            try:
                found.add(readlink(f"/proc/self/fd/{number}"))
            except OSError:
                continue
        with opened("/proc/self/maps") as file:
            return found | {line.split(maxsplit=5)[-1].strip() for line in file}

    def require_closed(path: Any) -> None:
        name = os.path.realpath(path)
        if busy := [file for file in in_use() if file == name or file.startswith(f"{name}/")]:
            raise PermissionError(13, "The process cannot access the file because it is being used", busy[0])

    def windows_rename(source: Any, target: Any, **words: Any) -> None:
        if os.path.lexists(target):
            raise FileExistsError(17, "Cannot create a file when that file already exists", str(target))
        require_closed(source)
        rename(source, target, **words)

    def windows_replace(source: Any, target: Any, **words: Any) -> None:
        if stat(target):
            raise PermissionError(13, "Access is denied", str(target))
        for path in (source, target):
            require_closed(path)
        replace(source, target, **words)

    def windows_unlink(path: Any, **words: Any) -> None:
        require_closed(path)
        unlink(path, **words)

    def windows_lowest(path: Any, flags: int, *words: Any, **more: Any) -> int:
        if stat(path):
            raise PermissionError(13, "Permission denied", str(path))
        return lowest(path, flags, *words, **more)

    def windows_fsync(file: Any) -> None:
        number = file if isinstance(file, int) else file.fileno()
        with opened(f"/proc/self/fdinfo/{number}") as told:
            flags = next(line.split()[1] for line in told if line.startswith("flags"))
        if int(flags, 8) & 3 == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        fsync(number)

    def windows_open(file: Any, *words: Any, **more: Any) -> Any:
        if str(file).startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(2, "No such file or directory", str(file))
        return opened(file, *words, **more)

    def windows_library(name: str | None, *words: Any, **more: Any) -> Any:
        if name is None:
            raise TypeError("bad argument type for built-in operation")
        return library(name, *words, **more)

    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for name in NAMES.split():
        delattr(os, name)
    for name in ("SIGHUP", "SIGCHLD"):  # the libraries still need SIGKILL
        delattr(signal, name)
    multiprocessing.set_start_method("spawn", force=True)
    torch.utils.data._utils.signal_handling._set_SIGCHLD_handler = lambda: None
    changes = {"rename": windows_rename, "replace": windows_replace, "fsync": windows_fsync, "open": windows_lowest}
    for name, function in (changes | {"unlink": windows_unlink, "remove": windows_unlink}).items():
        setattr(os, name, function)
    vars(shutil)["_use_fd_functions"] = False
    vars(ctypes)["CDLL"] = windows_library
    builtins.open = windows_open
    vars(sys.modules["io"])["open"] = windows_open


def train_as_on_windows(words: list[str], work: Path) -> dict[str, Any]:
    """Statuses and weights of one run in a go, and of one that is stopped in its second step and resumed."""
    pretend()
    import bertFineTuningWithConnectionData as driver
    from connection.runs.checkpoints import Checkpoints

    whole, ended = work / "whole", work / "ended"
    statuses = [driver.main([*words, "--output-dir", str(whole)])]
    statuses.append(driver.main([*words, "--output-dir", str(whole), "--overwrite"]))
    real, done = driver.training_step, []

    def step(*given: Any) -> Any:
        done.append(1)
        if len(done) == 2:
            signal.raise_signal(signal.SIGINT)
        return real(*given)

    driver.training_step = step  # type: ignore[assignment]
    statuses.append(driver.main([*words, "--output-dir", str(ended), "--num-workers", "1"]))
    reached = Checkpoints(ended / "checkpoints", 9).newest().values["progress"]["step"]
    statuses.append(driver.main(["--output-dir", str(ended), "--resume"]))
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (whole, ended)]
    return {"statuses": statuses, "stopped": reached, "same": weights[0] == weights[1]}


if __name__ == "__main__":
    print(train_as_on_windows(sys.argv[2:], Path(sys.argv[1])))
