"""A tool for verl's tool agent, and how the toy model calls it."""

from verl.experimental.agent_loop.tool_parser import FunctionCall, ToolParser
from verl.tools.function_tool import function_tool


@function_tool
def lookup() -> str:
    """Give a letter.

    Returns:
        the letter
    """
    return "7"


@ToolParser.register("toy")
class ToyParser(ToolParser):
    """A response that ends with <call> calls the tool."""

    async def extract_tool_calls(self, responses_ids, tools=None):
        call = self.tokenizer.convert_tokens_to_ids("<call>")
        calls = [FunctionCall(name="lookup", arguments="{}")] if responses_ids and responses_ids[-1] == call else []
        return self.tokenizer.decode(responses_ids), calls
