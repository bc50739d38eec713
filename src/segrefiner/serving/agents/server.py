"""The tools as a server of the Model Context Protocol, over standard input and output."""

import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import ValidationError

from ..._version import __version__
from ...errors import MissingExtraError, OutputError, SegRefinerError, printable

try:
    import anyio
    import mcp_types as types
    from mcp.server.lowlevel.server import Server
    from mcp.server.stdio import stdio_server
except ModuleNotFoundError as error:
    raise MissingExtraError.needed_by("tools for agents", package=error.name or "mcp", extra="mcp") from error

from ..problems import FAILED, as_problem, fault
from .tools import TOOLS, Answer, Toolbox

INSTRUCTIONS = (
    "Refines coarse segmentation masks of photos: the mask follows the object's edges afterwards. Look at the picture "
    "that comes with each answer before you go on. Paths lie inside the folders that this server was started with. "
    "refine_folder does nothing before it is called with the plan that a first call names."
)

_log = logging.getLogger(__name__)


def create_server(toolbox: Toolbox) -> Server[Any]:
    """The server; a client of the library can talk to it in this process, or `serve` over standard input and output."""

    @asynccontextmanager
    async def lifespan(_: Server[Any]) -> AsyncIterator[dict[str, Any]]:
        async with toolbox.service.running():
            yield {}

    async def list_tools(context: Any, request: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_tool(name) for name in TOOLS])

    async def call_tool(context: Any, request: types.CallToolRequestParams) -> types.CallToolResult:
        async def progress(done: float, total: float) -> None:
            await context.session.report_progress(done, total)

        try:
            if request.name not in TOOLS:
                return _failed(f"there is no tool {request.name[:40]!r}: expected one of {', '.join(TOOLS)}")
            kind, tool = TOOLS[request.name]
            return _result(await tool(toolbox, kind.model_validate(request.arguments or {}), progress))
        except Exception as error:
            return _failed(_told(error))

    return Server(
        "segrefiner",
        version=__version__,
        instructions=INSTRUCTIONS,
        lifespan=lifespan,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def serve(toolbox: Toolbox) -> None:
    """Answers on standard input and output until the input ends."""
    server = create_server(toolbox)

    async def answer() -> None:
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())

    anyio.run(answer)


def _tool(name: str) -> types.Tool:
    arguments, _ = TOOLS[name]
    writes = name != "explain_report"
    schema = arguments.model_json_schema()
    description = schema.pop("description")
    return types.Tool(
        name=name,
        description=description,
        input_schema=schema,
        annotations=types.ToolAnnotations(
            read_only_hint=not writes, destructive_hint=writes, idempotent_hint=True, open_world_hint=False
        ),
    )


def _result(answer: Answer) -> types.CallToolResult:
    text = "\n".join(map(printable, answer.text.split("\n")))
    pictures = [
        types.ImageContent(data=base64.b64encode(content).decode("ascii"), mime_type=kind)
        for kind, content in answer.pictures
    ]
    return types.CallToolResult(content=[types.TextContent(text=text), *pictures], structured_content=answer.structure)


def _failed(line: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=printable(line))], is_error=True)


def _told(error: Exception) -> str:
    """One line; what is nobody's mistake goes to the log."""
    if isinstance(error, SegRefinerError | OutputError):
        return str(error)
    problem = as_problem(error)
    if problem.kind is FAILED and not isinstance(error, ValidationError):
        _log.error("a tool failed: %s", fault(error))
        return "something failed inside segrefiner, whose log on standard error says more"
    return problem.detail
