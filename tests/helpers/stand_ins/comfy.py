"""As much of ComfyUI's `comfy_api.latest` as a node's definition touches, with the real names of arguments."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class _Socket:
    """Base of inputs and outputs; `kind` is ComfyUI's name of the type, `widget` whether a value stands in the node."""

    kind, widget = "", False


def _type(name: str, widget: bool = False, **more: Any) -> Any:
    @dataclass(kw_only=True)
    class Options:
        display_name: str | None = None
        optional: bool = False
        tooltip: str | None = None
        default: Any = None
        min: float | None = None
        max: float | None = None
        step: float | None = None
        control_after_generate: bool | None = None
        options: list[str] | None = None

    allowed = {"display_name", "optional", "tooltip"} | ({"default"} if widget else set()) | set(more.get("takes", ()))

    def initialise(self: Any, id: str, **options: Any) -> None:
        assert set(options) <= allowed, f"{name} takes no {set(options) - allowed}"
        self.id, self.given = id, Options(**options)

    def initialise_output(self: Any, id: str | None = None, **options: Any) -> None:
        assert set(options) <= {"display_name", "tooltip", "is_output_list"}
        self.id, self.display_name = id, options.get("display_name") or id

    shared = {"kind": name, "widget": widget}
    return SimpleNamespace(
        Input=type("Input", (_Socket,), {"__init__": initialise, **shared}),
        Output=type("Output", (_Socket,), {"__init__": initialise_output, **shared}),
    )


@dataclass
class Schema:
    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    hidden: list[Any] = field(default_factory=list)
    description: str = ""

    def validate(self) -> None:
        """As ComfyUI's own, with what its first versions with V3 nodes refuse besides: a name on both sides."""
        for ids in ([one.id for one in self.inputs], [one.id for one in self.outputs]):
            if len(set(ids)) != len(ids):
                raise ValueError(f"ids must be unique: {ids}")
        if both := {one.id for one in self.inputs} & {one.id for one in self.outputs}:
            raise ValueError(f"ids must be unique between inputs and outputs, but {both} are not")


class NodeOutput:
    def __init__(self, *values: Any, ui: Any = None) -> None:
        self.result, self.ui = values or None, ui


class ComfyNode:
    """Base class of nodes, which are never made: ComfyUI calls methods of a copy of the class."""

    @classmethod
    def define_schema(cls) -> Schema:
        raise NotImplementedError

    @classmethod
    def execute(cls, **kwargs: Any) -> NodeOutput:
        raise NotImplementedError

    @classmethod
    def GET_SCHEMA(cls) -> Schema:  # noqa: N802 - ComfyUI's name
        schema = cls.define_schema()
        schema.validate()
        return schema

    @classmethod
    def EXECUTE_NORMALIZED(cls, **kwargs: Any) -> NodeOutput:  # noqa: N802 - ComfyUI's name
        """What the executor calls, with each input by its id; one that the schema calls required is always there."""
        schema = cls.GET_SCHEMA()
        missing = {one.id for one in schema.inputs if not one.given.optional} - set(kwargs)
        assert not missing and set(kwargs) <= {one.id for one in schema.inputs}, (missing, kwargs)
        output = cls.execute(**kwargs)
        assert isinstance(output, NodeOutput) and len(output.result or ()) == len(schema.outputs)
        return output


def copy_of(node: type[ComfyNode]) -> type[ComfyNode]:
    """The class as the executor has it: a copy without the original's place."""
    return type(f"{node.__name__}Clone", node.__bases__, dict(node.__dict__))


class ComfyExtension:
    """Base class of what an entry point gives."""

    async def on_load(self) -> None:
        """Called before the nodes are asked for."""

    async def get_node_list(self) -> list[type[ComfyNode]]:
        raise NotImplementedError


_NUMBER = ("min", "max", "step")
io = SimpleNamespace(
    ComfyNode=ComfyNode,
    NodeOutput=NodeOutput,
    Schema=Schema,
    Image=_type("IMAGE"),
    Mask=_type("MASK"),
    Float=_type("FLOAT", True, takes=_NUMBER),
    Int=_type("INT", True, takes=(*_NUMBER, "control_after_generate")),
    String=_type("STRING", True),
    Combo=_type("COMBO", True, takes=("options",)),
)
