"""Print a program that completes gpustack's commands, options and names in a shell.

Usage:
  gpustack completion (bash | zsh | fish)
  gpustack completion (-h | --help)

Put one of these where the shell reads it at its start:
  bash  eval "$(gpustack completion bash)"        in ~/.bashrc
  zsh   source <(gpustack completion zsh)         in ~/.zshrc, after compinit
  fish  gpustack completion fish | source         in ~/.config/fish/config.fish

Options:
  -h, --help  Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpustack.cli.command_line import read


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print the program of that shell."""
    command_line = read(__doc__, "completion", argv)
    from gpustack.cli.completion import SHELLS
    from gpustack.cli.vocabulary import vocabulary

    print(next(write for name, write in SHELLS.items() if command_line.flag(name))(vocabulary()), end="")
    return 0
