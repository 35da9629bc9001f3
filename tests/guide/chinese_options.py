"""docs/guide/zh/options.md, written from the options and from what options.toml says of each; `make docs` writes it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

from docs.guide.build import ROOT
from gpustack.config.option import Option, table
from gpustack.config.options import Options

FOLDER = ROOT / "docs" / "guide" / "zh"
_TITLES = {"common": "通用选项", "server": "server 的选项", "worker": "worker 的选项"}
_DEFAULTS = {"none": "无", "generated": "自动生成", "detected": "自动检测", "built in": "内置"}
_HEAD = """\
# `gpustack start` 的选项

<!-- Written by `make docs`. Change docs/guide/zh/options.toml, then run that again. -->

每个选项可以写在三个地方。如果写在多处，以最先列出的为准：

1. 命令行参数，例如 `--data-dir /srv/gpustack`
2. 环境变量，例如 `GPUSTACK_DATA_DIR=/srv/gpustack`；空的变量等于没有设置
3. `--config-file` 指定的 YAML 文件，例如 `data_dir: /srv/gpustack`
4. 默认值

不带值的参数写出来就是启用；`--debug=false` 把它关闭。
真写作 `true`、`1`、`yes` 或 `on`，假写作 `false`、`0`、`no` 或 `off`。
列表通过重复参数来写；在环境变量中是 JSON 数组，或用逗号分隔的词。

`gpustack config` 接受同样的参数，显示每个选项的值和来源，密钥会被遮盖。
`gpustack config --format yaml` 和 `--format env` 输出可以保存选项的文件。
配置中的所有错误会一次报告，`gpustack start` 随后以状态 2 结束。

其他环境变量、`resources` 块和引擎的变量见[英文页面](../../options.md#{anchor})。
"""


def words() -> Mapping[str, str]:
    """What is said of each option, by its name."""
    return tomllib.loads((FOLDER / "options.toml").read_text(encoding="utf-8"))


def document() -> str:
    """The text of docs/guide/zh/options.md; an option without words is told in English."""
    told, parts = words(), [_HEAD.replace("{anchor}", "common-options")]
    for group, title in _TITLES.items():
        found = [option for option in table(Options) if option.group == group]
        parts.append(f"\n## {title}\n\n| 选项 | 环境变量 | 默认值 | 含义 |\n| --- | --- | --- | --- |\n")
        parts += [_row(option, told.get(option.name, option.help)) for option in found]
    return "".join(parts)


def _row(option: Option, text: str) -> str:
    flag = f"`{option.flag}`" if option.flag else f"`{option.name}`（仅 YAML）"
    default = _DEFAULTS.get(option.default_text, option.default_text)
    cells = (flag, f"`{option.env}`", _escaped(default), _escaped(text))
    return f"| {' | '.join(cells)} |\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;").replace("*", "\\*")


if __name__ == "__main__":
    print(document(), end="")
