"""The layer of the YAML file: each value with its line."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from gpustack.config.option import table
from gpustack.config.options import Options
from gpustack.config.origin import ConfigFault, Layer, Origin, RawValue

LIMIT = 1024 * 1024
"""The largest configuration file, in bytes."""

_NULL = "tag:yaml.org,2002:null"


def read_file(path: Path, shown: str) -> tuple[Layer, list[ConfigFault]]:
    """The options in the YAML file at ``path`` and every fault of it; origins name the file as ``shown``. Blocking.

    A key whose value is null counts as not set. A scalar is the text as it is written, so that ``token: 0123`` keeps
    its zero.
    """
    whole = Origin("file", shown)
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT + 1)
        if len(content) > LIMIT:
            return {}, [ConfigFault(whole, f"the configuration file is larger than {LIMIT} bytes")]
        text = content.decode()
    except UnicodeDecodeError:
        return {}, [ConfigFault(whole, "the configuration file is not UTF-8 text")]
    except OSError as error:
        return {}, [ConfigFault(whole, f"the configuration file cannot be read: {error.strerror}")]
    return _read_text(text, shown)


def _read_text(text: str, shown: str) -> tuple[Layer, list[ConfigFault]]:
    import yaml

    layer: dict[str, RawValue] = {}
    faults: list[ConfigFault] = []
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None or root.tag == _NULL:
            return {}, []
        if not isinstance(root, yaml.MappingNode):
            return {}, [ConfigFault(Origin("file", shown), "must hold a mapping of option names to values")]
        known = {option.name: option for option in table(Options) if option.name != "config_file"}
        for key_node, node in root.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            origin = Origin("file", f"{shown} line {key_node.start_mark.line + 1}")
            option = known.get(key)
            if option is None:
                faults.append(ConfigFault(origin, _unknown(key, list(known))))
            elif key in layer:
                faults.append(ConfigFault(origin, f"{key} is written a second time"))
            elif node.tag != _NULL:
                layer[key] = RawValue(_value(loader, node), origin)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        return layer, [
            *faults,
            ConfigFault(Origin("file", shown + line), f"is not valid YAML: {error.problem}"),
        ]
    except (
        yaml.YAMLError,
        RecursionError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        OverflowError,
    ):
        # Control characters, deep nesting, values that do not fit their tag: the YAML library names no line for these.
        return layer, [*faults, ConfigFault(Origin("file", shown), "is not valid YAML")]
    return layer, faults


def _value(loader: Any, node: Any) -> Any:
    import yaml

    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.ScalarNode) for item in node.value):
        return [item.value for item in node.value if item.tag != _NULL]
    return loader.construct_object(node, deep=True)


def _unknown(key: str, known: list[str]) -> str:
    if key == "config_file":
        return "config_file cannot be set in the configuration file itself"
    close = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
    return f"{key} is not known; did you mean {close[0]}?" if close else f"{key} is not known"
