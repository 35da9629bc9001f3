"""One place of a file is changed, and all else stays."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import yaml

from gpustack.cli.text_edit import EditRefused, Setting, TextEdit, edit_of, read_setting

JSONC = """{
  // a comment
  "theme": "One", /* another */
  "models": {
    "a": {"b": 1},
  },
  "end": "a // b"
}
"""


def after(text: str, **setting: Any) -> str:
    edit = edit_of(text, Setting(**setting))
    changed = edit.applied(text)
    assert TextEdit(at=edit.at, old=edit.old, new=edit.new).undone(changed) == text
    return changed


def test_a_member_is_put_into_an_object_with_comments_and_trailing_commas() -> None:
    text = after(JSONC, form="json", at=["models", "gpustack"], value={"url": "x"})
    assert text == JSONC.replace('"models": {', '"models": {\n    "gpustack": {\n      "url": "x"\n    },')


def test_a_value_that_is_there_is_replaced_in_its_place() -> None:
    assert after(JSONC, form="json", at=["models", "a"], value=7) == JSONC.replace('{"b": 1}', "7")
    assert after(JSONC, form="json", at=["theme"], value="Two") == JSONC.replace('"One"', '"Two"')


@pytest.mark.parametrize("text", ["{}", "{ }\n", "// only a comment\n{\n}", '{"a": 1}', '{"a": 1,}'])
def test_missing_objects_are_made_on_the_way(text: str) -> None:
    changed = after(text, form="json", at=["x", "y", "z"], value=[1])
    assert changed.count("[") == 1 and '"x"' in changed and ("comment" in text) == ("comment" in changed)


@pytest.mark.parametrize(
    "text", ["[]", '"x"', "{", '{"a" 1}', '{"a": 1 "b": 2}', '{"a": 1, "a": 2}', "{} {}", "{a: 1}"]
)
def test_what_is_no_object_of_json_is_refused(text: str) -> None:
    with pytest.raises(EditRefused):
        edit_of(text, Setting(form="json", at=["x"], value=1))


def test_something_else_on_the_way_is_refused() -> None:
    with pytest.raises(EditRefused, match="something else"):
        edit_of('{"x": 5}', Setting(form="json", at=["x", "y"], value=1))


YAML = """# mine
name: Local
models:
  # the big one
  - name: a   # fast
    model: a
rules: [x]
"""


def test_an_entry_is_put_into_a_list_of_yaml_with_its_comments() -> None:
    text = after(YAML, form="yaml", at=["models"], value={"name": "b", "roles": ["chat"]}, listed=True)
    assert "# fast" in text and "# the big one" in text and "# mine" in text
    assert [one["name"] for one in yaml.safe_load(text)["models"]] == ["b", "a"]


@pytest.mark.parametrize(
    "text", ["name: x", "name: x\nmodels:\n", "models: []\nname: x\n", "models: null # none\nname: x\n"]
)
def test_a_list_that_is_missing_or_empty_is_begun(text: str) -> None:
    changed = after(text, form="yaml", at=["models"], value={"name": "b"}, listed=True)
    assert yaml.safe_load(changed) == {"name": "x", "models": [{"name": "b"}]}


def test_a_file_that_is_a_list_is_added_to() -> None:
    text = "# keep\n- model_id: a\n"
    assert (
        after(text, form="yaml", value={"model_id": "b"}, listed=True)
        == "# keep\n- model_id: b\n- model_id: a\n"
    )


@pytest.mark.parametrize(
    "text", ["models: [a, b]", "{models: []}", "- a", "models: 5", "models: {a: 1}", "a: b: c", "x"]
)
def test_yaml_that_would_lose_something_is_refused(text: str) -> None:
    with pytest.raises(EditRefused):
        edit_of(text, Setting(form="yaml", at=["models"], value={"name": "b"}, listed=True))


@pytest.mark.parametrize(
    "text", ['active = "x" # mine', '# keep\n[[providers]]\nname = "a"\n', "[other]\nx = 1\n"]
)
def test_a_table_is_added_to_toml(text: str) -> None:
    changed = after(text, form="toml", at=["providers"], value={"name": "b", "n": 1, "on": True}, listed=True)
    assert changed.startswith(text)
    assert tomllib.loads(changed)["providers"][-1] == {"name": "b", "n": 1, "on": True}


@pytest.mark.parametrize("text", ['providers = [{name = "a"}]', "providers = 5", "[providers]\nx = 1", "= ="])
def test_toml_that_has_it_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(EditRefused):
        edit_of(text, Setting(form="toml", at=["providers"], value={"name": "b"}, listed=True))


@pytest.mark.parametrize("form", ["json", "yaml", "toml"])
def test_a_file_that_is_not_there_begins_with_what_the_program_wants(form: str) -> None:
    listed = form != "json"
    setting = Setting(form=form, at=["models"], value={"name": "b"}, listed=listed, initial={"version": "1"})
    text = edit_of("", setting).applied("")
    assert read_setting(text, form) == {
        "version": "1",
        "models": [{"name": "b"}] if listed else {"name": "b"},
    }


def test_what_a_file_begins_with_is_the_same_for_the_next_launch() -> None:
    initial: dict[str, Any] = {"a": {}}
    for key in ("the key", "another"):
        text = after("", form="json", at=["a", key], value=key, initial=initial)
        assert read_setting(text, "json") == {"a": {key: key}} and initial == {"a": {}}


def test_a_change_is_taken_out_of_what_others_have_changed_since() -> None:
    edit = edit_of(JSONC, Setting(form="json", at=["models", "gpustack"], value={"url": "x"}))
    since = edit.applied(JSONC).replace('"One"', '"Two"')
    assert edit.undone(since) == JSONC.replace('"One"', '"Two"')
    assert edit.undone(since.replace('"url": "x"', '"url": "y"')) is None
