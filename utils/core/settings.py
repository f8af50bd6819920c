"""Settings in YAML: all values are text, and what is easily misread is refused."""

from typing import Any

import yaml

from utils.core.errors import InputError


class _Loader(yaml.BaseLoader):
    """All values as text (`no` is Norwegian here, not false); no aliases, which can expand without end; no key twice."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not read", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        for place, key in enumerate(keys):
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem="a name is not text", problem_mark=node.value[place][0].start_mark)
            if key in keys[:place]:
                raise yaml.MarkedYAMLError(problem=f"{key} stands twice", problem_mark=node.value[place][0].start_mark)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, name: str) -> Any:  # noqa: ANN401
    """What a text in YAML (or JSON) says, with all values as text.

    Raises:
        InputError: which begins with `name`, what the text is to the user.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{name} is neither YAML nor JSON ({error.problem}{line}).") from None
    except yaml.YAMLError as error:
        raise InputError(f"{name} is neither YAML nor JSON ({' '.join(str(error).split())}).") from None
    except RecursionError:
        raise InputError(f"{name} is nested too deeply; write settings as `name: value`.") from None
