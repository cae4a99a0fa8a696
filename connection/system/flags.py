"""Command-line flags: one parser for all commands. A flag that does not exist gets the nearest one; all are said at once."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from connection.system.processes import rank

# What people type from habit, and the flag here.
OTHER_NAMES = {
    "lr": "learning-rate",
    "bs": "batch-size",
    "data": "train-file",
    "file": "train-file",
    "model": "model-dir",
    "output": "output-dir",
    "out": "output-dir",
    "num-epochs": "epochs",
    "max-seq-len": "max-length",
    "gpu": "device",
}

WIDTH = 79


class Flags(argparse.ArgumentParser):
    """A parser whose errors are a line each, without lines of usage; with --version. --help begins with the `examples`."""

    def __init__(self, prog: str, description: str, examples: Sequence[str] = (), **more: Any):
        shown = "".join(f"  {example}\n" for example in examples)
        paragraphs = [textwrap.fill(" ".join(text.split()), WIDTH) for text in description.split("\n\n")]
        super().__init__(
            prog=prog,
            description="\n\n".join([f"examples:\n{shown}".rstrip()] * bool(examples) + paragraphs),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=False,
            **more,
        )
        self.complete = False

    def _complete(self) -> None:
        """Add --help and --version as the last group."""
        if not self.complete:
            self.complete = True
            group = self.add_argument_group("help")
            group.add_argument("-h", "--help", action="help", help="show this help and end")
            group.add_argument(
                "--version", action=_Version, nargs=0, help="show the versions of project and libraries, and end"
            )
            if "_ARGCOMPLETE" in os.environ:
                _complete_words(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse flags; the unknown ones are returned as they are."""
        self._complete()
        return super().parse_known_args(args, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse flags; unknown ones end the command with status 2, after all of them are said."""
        return super().parse_args(self._known(args), namespace)

    def parse_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse flags likewise; texts may stand between and after them."""
        return super().parse_intermixed_args(self._known(args), namespace)

    def _known(self, args: Any) -> list[str]:
        words, problems = self.known_words(sys.argv[1:] if args is None else args)
        if problems:
            self.error("\n".join(problems))
        return words

    def known_words(self, argv: Iterable[str]) -> tuple[list[str], list[str]]:
        """Return the words without unknown flags and their values, and a problem for each unknown flag.

        --learning_rate is --learning-rate.
        """
        self._complete()
        known: list[str] = []
        problems: list[str] = []
        words = flag_words(argv)
        names = [name for name in self._option_string_actions if name.startswith("--")]
        place = 0
        while place < len(words):
            word = words[place]
            place += 1
            if word == "--":
                return [*known, word, *words[place:]], problems
            name = word.partition("=")[0]
            if not name.startswith("--") or name in names:
                known.append(word)
                continue
            problems.append(f"{name[:100]}: no such flag{nearest(name, names)}")
            if "=" not in word and place < len(words) and not words[place].startswith("--"):
                place += 1  # its value
        return known, problems

    def _print_message(self, message: str, file: Any = None) -> None:
        if not rank():  # of several processes, under torchrun, all have the same flags
            super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and end with status 2."""
        lines = message.splitlines()
        said = lines[0] if len(lines) == 1 else "These flags can't be used:" + "".join(f"\n  - {line}" for line in lines)
        self.exit(2, f"{said}\n{self.prog} --help lists all flags.\n")


def _complete_words(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks, at the tab key, which words may follow; this ends the process. Without argcomplete, nothing.

    The shell asks only commands with the line PYTHON_ARGCOMPLETE_OK at their top.
    """
    with contextlib.suppress(ImportError):
        import argcomplete

        argcomplete.autocomplete(parser)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from connection.system.versions import describe

        about = describe({})
        commit = f"commit {about['git_commit'][:12]}" if about["git_commit"] else "no commit"
        print(commit, *(f"{name} {version}" for name, version in about["versions"].items()), sep=", ")
        sys.exit(0)


def nearest(name: str, names: Sequence[str]) -> str:
    """Return "; --train-file is near" for an unknown name, or ""."""
    meant = f"--{OTHER_NAMES.get(name.lstrip('-'), '')}"
    found = [meant] if meant in names else difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def flag_words(argv: Iterable[str]) -> list[str]:
    """Rewrite --learning_rate to --learning-rate, and --label-min -1e3 to --label-min=-1e3: argparse takes -1e3 for a flag."""
    words: list[str] = []
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            words.append(name.replace("_", "-") + equals + value)
        elif re.match(r"-[\d.]", word) and words and words[-1].startswith("--") and "=" not in words[-1]:
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def add_encoder_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a command that encodes texts: what computes the vectors, and where."""
    backends = ("torch", "onnx", "onnx-int8", "openvino-int8")
    parser.add_argument("--backend", choices=backends, default="torch", help="what tools.export wrote, or torch (the default)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes the GPU if there is one")
