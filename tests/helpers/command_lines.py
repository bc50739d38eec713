"""Command lines as documentation and workflows write them, read by the real command line."""

import re
import shlex
from collections.abc import Iterator
from itertools import groupby

import click

from segrefiner.cli.main import main


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `segrefiner` command of a block, without its program, pipes and redirections."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        lexer = shlex.shlex(re.sub(r"(^|\s)#\s.*", "", line), posix=True, punctuation_chars=True)
        lexer.commenters = ""
        lexer.whitespace_split = True
        for is_operator, group in groupby(lexer, lambda word: set(word) <= set("();<>|&")):
            words = list(group)
            if is_operator or "segrefiner" not in words:
                continue
            start = words.index("segrefiner")
            if words[:start] in ([], ["do"]) or words[start - 1] in ("-m", "time") or "=" in words[0]:
                yield words[start + 1 :]


def parse(words: list[str]) -> None:
    """Has the real command line read these words; nothing is run."""
    command: click.Command = main
    context = click.Context(main, info_name="segrefiner")
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None, name
        command, context = found, click.Context(found, info_name=name, parent=context)
    command.make_context(context.info_name, list(words), parent=context.parent)
