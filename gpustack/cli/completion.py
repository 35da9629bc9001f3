"""Completion scripts for bash, zsh and fish, generated from the vocabulary of the commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping

from gpustack.cli.vocabulary import CommandVocabulary, OptionEntry, WordPosition

_LIST = "gpustack {} -q 2>/dev/null"


def bash(every: list[CommandVocabulary]) -> str:
    """The script for bash 3.2 and later."""
    cases = "\n".join(_bash_case(one) for one in every)
    steps = "\n".join(_bash_step(one.command, step) for one in every for step in one.steps)
    values = "\n".join(
        _bash_value(one.command, option) for one in every for option in one.options if option.value
    )
    commands = shlex.quote(" ".join(one.command for one in every))
    return f"""\
# Completes gpustack in bash: put  eval "$(gpustack completion bash)"  into ~/.bashrc
_gpustack() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} option= command=${{COMP_WORDS[1]}} options=
    local words= lists= files= list after= index
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W {commands} -- "$word"))
        return
    fi
    # Bash parts --name=value at the sign.
    if [[ $word == = ]]; then
        option=${{COMP_WORDS[COMP_CWORD-1]}} word=
    elif ((COMP_CWORD > 2)) && [[ ${{COMP_WORDS[COMP_CWORD-1]}} == = ]]; then
        option=${{COMP_WORDS[COMP_CWORD-2]}}
    elif [[ ${{COMP_WORDS[COMP_CWORD-1]}} == -* ]]; then
        option=${{COMP_WORDS[COMP_CWORD-1]}}
    fi
    case "$command $option" in
{values}
    esac
    case $command in
{cases}
    *) return ;;
    esac
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$word"))
        [[ ${{COMPREPLY[0]}} == *= ]] && ((${{#COMPREPLY[@]}} == 1)) && compopt -o nospace 2>/dev/null
        return
    fi
    for ((index = 2; index < COMP_CWORD; index++)); do
        case "$command $after ${{COMP_WORDS[index]}}" in
        {_walk(every, "|")}) after=${{COMP_WORDS[index]}} ;;
        esac
    done
    case "$command $after" in
{steps}
    esac
    for list in $lists; do
        words+=" $(gpustack "$list" -q 2>/dev/null)"
    done
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    if [[ $files ]]; then
        compopt -o filenames 2>/dev/null
        COMPREPLY+=($(compgen -f -- "$word"))
    fi
}}
complete -F _gpustack gpustack
"""


def _bash_case(one: CommandVocabulary) -> str:
    options = [f"{option.name}{'=' if option.value else ''}" for option in one.options]
    parts = [f"options={shlex.quote(' '.join(options))}"]
    parts += ["files=yes"] if one.takes_files else []
    return f"    {one.command}) {' '.join(parts)} ;;"


def _bash_step(command: str, step: WordPosition) -> str:
    sets = f"words={shlex.quote(' '.join(step.verbs))} lists={shlex.quote(' '.join(step.lists))}"
    return f'    "{command} {step.after}") {sets} ;;'


def _walk(every: list[CommandVocabulary], between: str) -> str:
    """Patterns of a shell ``case``: a command, its verb so far, and a verb that may follow."""
    return between.join(
        f'"{one.command} {step.after} {verb}"' for one in every for step in one.steps for verb in step.verbs
    )


def _bash_value(command: str, option: OptionEntry) -> str:
    names = [option.name, *([option.short] if option.short else [])]
    pattern = "|".join(f'"{command} {name}"' for name in names)
    if option.choices:
        found = f'-W {shlex.quote(" ".join(option.choices))} -- "$word"'
    elif option.list:
        found = f'-W "$({_LIST.format(option.list)})" -- "$word"'
    elif option.is_file:
        return f'    {pattern}) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$word")); return ;;'
    else:
        return f"    {pattern}) return ;;"
    return f"    {pattern}) COMPREPLY=($(compgen {found})); return ;;"


def zsh(every: list[CommandVocabulary]) -> str:
    """The script for zsh 5; it can also be a file in ``$fpath``."""
    commands = _lines((f"{one.command}:{one.summary}" for one in every), 8)
    cases = "\n".join(_zsh_case(one) for one in every)
    steps = "\n".join(_zsh_step(one.command, step) for one in every for step in one.steps)
    return f"""\
#compdef gpustack
# Completes gpustack in zsh: put  source <(gpustack completion zsh)  into ~/.zshrc, after compinit
_gpustack() {{
    local -a commands flags valued verbs lists found
    local files= list word=$words[CURRENT] option= after= one
    if (( CURRENT == 2 )); then
        commands=(
{commands}
        )
        _describe command commands
        return
    fi
    if [[ $word == --*=* ]]; then
        option=${{word%%=*}}
        compset -P 1 '*='
    elif [[ $words[CURRENT-1] == -* ]]; then
        option=$words[CURRENT-1]
    fi
    case $words[2] in
{cases}
    *) return 1 ;;
    esac
    if [[ $word == -* ]]; then
        _describe -o option flags
        _describe -o option valued -S =
        return
    fi
    for one in $words[3,CURRENT-1]; do
        case "$words[2] $after $one" in
        {_walk(every, "|")}) after=$one ;;
        esac
    done
    case "$words[2] $after" in
{steps}
    esac
    for list in $lists; do
        found+=(${{(f)"$(gpustack $list -q 2>/dev/null)"}})
    done
    (( $#verbs )) && compadd -a verbs
    (( $#found )) && compadd -a found
    [[ -n $files ]] && _files
    return 0
}}
if [[ $funcstack[1] == _gpustack ]]; then _gpustack "$@"; else compdef _gpustack gpustack; fi
"""


def _zsh_case(one: CommandVocabulary) -> str:
    parts = [f"    {one.command})"]
    if values := [_zsh_value(option) for option in one.options if option.value]:
        parts += ["        case $option in", *values, "        esac"]
    for name, chosen in (("flags", False), ("valued", True)):
        texts = [f"{o.name}:{o.help}" for o in one.options if (o.value is not None) is chosen]
        parts += [f"        {name}=(", _lines(texts, 12), "        )"] if texts else []
    parts += ["        files=yes"] if one.takes_files else []
    return "\n".join([*parts, "        ;;"])


def _zsh_step(command: str, step: WordPosition) -> str:
    return f'    "{command} {step.after}") verbs=({" ".join(step.verbs)}) lists=({" ".join(step.lists)}) ;;'


def _zsh_value(option: OptionEntry) -> str:
    pattern = "|".join([option.name, *([option.short] if option.short else [])])
    if option.choices:
        found = f"compadd {' '.join(option.choices)}; return"
    elif option.list:
        found = f'compadd ${{(f)"$({_LIST.format(option.list)})"}}; return'
    else:
        found = "_files; return" if option.is_file else "return 1"
    return f"        {pattern}) {found} ;;"


def fish(every: list[CommandVocabulary]) -> str:
    """The script for fish 3 and later."""
    lines = [
        "# Completes gpustack in fish: put  gpustack completion fish | source  into ~/.config/fish/config.fish",
        "function __gpustack_is",
        "    set -l words (commandline -opc)",
        "    test (count $words) -ge 2; and test $words[2] = $argv[1]",
        "end",
        "function __gpustack_after",
        "    set -l words (commandline -opc)",
        "    test (count $words) -ge 2; and test $words[2] = $argv[1]; or return 1",
        "    set -l after ''",
        "    for word in $words[3..-1]",
        '        switch "$words[2] $after $word"',
        f"            case {_walk(every, ' ')}",
        "                set after $word",
        "        end",
        "    end",
        '    test "$after" = "$argv[2]"',
        "end",
        "complete -c gpustack -f",
    ]
    for one in every:
        lines.append(
            f"complete -c gpustack -n 'test (count (commandline -opc)) -eq 1' -a {one.command} "
            f"-d {_fish_quoted(one.summary)}"
        )
    for one in every:
        lines += _fish_of(one)
    return "\n".join(lines) + "\n"


def _fish_of(one: CommandVocabulary) -> list[str]:
    head = f"complete -c gpustack -n '__gpustack_is {one.command}'"
    lines = [f"{head} -F"] if one.takes_files else []
    for step in one.steps:
        place = f"complete -c gpustack -n '__gpustack_after {one.command} \"{step.after}\"'"
        lines += [f"{place} -a '{' '.join(step.verbs)}'"] if step.verbs else []
        lines += [f"{place} -a '({_LIST.format(list_)})'" for list_ in step.lists]
    for option in one.options:
        short = f" -s {option.short[1:]}" if option.short else ""
        value = ""
        if option.choices:
            value = f" -x -a '{' '.join(option.choices)}'"
        elif option.list:
            value = f" -x -a '({_LIST.format(option.list)})'"
        elif option.value is not None:
            value = " -r -F" if option.is_file else " -x"
        lines.append(f"{head} -l {option.name[2:]}{short}{value} -d {_fish_quoted(option.help)}")
    return lines


def _lines(texts: Iterable[str], indent: int) -> str:
    return "\n".join(" " * indent + shlex.quote(text) for text in texts)


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: Mapping[str, Callable[[list[CommandVocabulary]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
