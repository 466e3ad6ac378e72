"""How nightherd renders chats with real chat templates: a table of a folder of `.jinja` files.

    python jobs/template_matrix.py FOLDER > matrix.md

Each cell is a chat that was rendered: everything that was said stands in the prompt, or the chat was
refused with a reason. A text that is lost without one is LOST, and the exit status is 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.chat.chat_format import ChatFormats
from pipeline.chat.prompts import PromptBuilder
from pipeline.engine.fakes.fake import FakeVocabulary
from pipeline.errors import RowError
from pipeline.request.schema import ChatRequest, parse_request

USER, SYSTEM, SAID, RESULT, AGAIN = "Question 71?", "Rule 72.", "Remark 73.", "Result 74.", "Thanks 75."
NAME, VALUE = "find_76", "Oslo 77"
TOOL = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "Finds.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Where."}}},
    },
}
CASES = ("user", "system", "parts", "turns", "null", "absent", '""', "beside text", "tools")
SWITCHES = ("enable_thinking", "thinking", "reasoning_effort")


@dataclass(frozen=True)
class Case:
    """A chat, and what has to stand in its prompt."""

    messages: list[dict[str, Any]]
    said: tuple[str, ...]
    tools: bool = False


def main(arguments: list[str]) -> int:
    (folder,) = arguments
    rows = [row(path) for path in sorted(Path(folder).glob("*.jinja"), key=lambda p: p.name.lower())]
    chats = [cell for cells in rows for cell in cells[1 : 1 + len(CASES)]]
    reasons = list(dict.fromkeys(cell for cell in chats if cell != "yes"))
    notes = {reason: f"no [{number}]" for number, reason in enumerate(reasons, 1)}
    head = ["template", *CASES, "calls are", "arguments", "ids", "thinking"]
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for cells in rows:
        print("| " + " | ".join(notes.get(cell, cell) for cell in cells) + " |")
    print()
    for number, reason in enumerate(reasons, 1):
        print(f"{number}. {reason}")
    lost = sum(cell.startswith("LOST") for cell in chats)
    print(f"\n{len(rows)} templates, {len(chats)} chats: {chats.count('yes')} rendered whole, {lost} lost.")
    return 1 if lost else 0


def row(path: Path) -> list[str]:
    formats = ChatFormats(path.read_text(encoding="utf-8"), None, "<s>", "</s>")
    chat = formats.of(request(user()))
    form = f"{chat.form.kind} {code(chat.form.begin.strip())}" if chat.form and chat.knows_tools else "-"
    nature = chat.nature
    written = "written by nightherd" if chat.form and chat.knows_tools else "-"
    return [
        path.stem,
        *(cell(formats, case) for case in cases()),
        form,
        nature.arguments if nature.shows_calls else written,
        {"any": "any", "nine": "nine letters", "named": "functions.NAME:0"}[nature.ids],
        ", ".join(thinking(formats)) or "-",
    ]


def cases() -> Iterator[Case]:
    yield Case(user(), (USER,))
    yield Case([{"role": "system", "content": SYSTEM}, *user()], (SYSTEM, USER))
    parts = [{"type": "text", "text": USER}, {"type": "text", "text": AGAIN}]
    yield Case([{"role": "user", "content": parts}], (USER, AGAIN))
    turns = [*user(), {"role": "assistant", "content": SAID}, {"role": "user", "content": AGAIN}]
    yield Case(turns, (USER, SAID, AGAIN))
    call = {
        "id": "call_0123456789abcdef",
        "type": "function",
        "function": {"name": NAME, "arguments": json.dumps({"city": VALUE})},
    }
    result = {"role": "tool", "tool_call_id": call["id"], "content": RESULT}
    for content in ({"content": None}, {}, {"content": ""}, {"content": SAID}):
        asks = {"role": "assistant", "tool_calls": [call]} | content
        said = (SAID,) if content.get("content") else ()
        yield Case([*user(), asks, result], (USER, *said, NAME, VALUE, RESULT))
    yield Case(user(), (USER, NAME), tools=True)


def cell(formats: ChatFormats, case: Case) -> str:
    """What became of a chat: yes, refused with the reason, or LOST with the text that isn't there."""
    asked = request(case.messages, tools=[TOOL] if case.tools else [])
    builder = PromptBuilder(FakeVocabulary(), formats=formats)
    try:
        prompt = bytes(token for token in builder.build(asked) if token < 256).decode()
    except RowError as error:
        return f"refused: {short(error.message)}"
    lost = [text for text in case.said if text not in prompt]
    return f"LOST {lost[0]}" if lost else "yes"


def thinking(formats: ChatFormats) -> Iterator[str]:
    """What switches the reasoning, and whether the prompt then opens it itself."""
    chat = formats.of(request(user()))
    marks = chat.reasoning
    for name in SWITCHES:
        values = ("low", "high") if name == "reasoning_effort" else (True, False)
        prompts = [render(formats, {name: value}) for value in values]
        if name in chat.template.reads and prompts[0] != prompts[1]:
            opens = [marks is not None and prompt.rstrip().endswith(marks[0]) for prompt in prompts]
            ends = " and ".join(json.dumps(v) for v, is_open in zip(values, opens, strict=True) if is_open)
            yield f"{name}" + (f" ({ends}: opened by the prompt)" if ends else "")
    if marks:
        yield code(marks[0])


def code(text: str) -> str:
    return "`" + text.replace("|", "\\|").replace("\n", " ") + "`" if text else ""


def render(formats: ChatFormats, options: dict[str, Any]) -> str:
    asked = request(user(), chat_template_kwargs=options)
    try:
        messages = [message.for_template() for message in asked.messages]
        return formats.of(asked).render(messages, [], asked.template_options)
    except RowError as error:
        return error.message


def user() -> list[dict[str, Any]]:
    return [{"role": "user", "content": USER}]


def request(messages: list[dict[str, Any]], **fields: Any) -> ChatRequest:
    found = parse_request("/v1/chat/completions", {"messages": messages} | fields)
    assert isinstance(found, ChatRequest)
    return found


def short(message: str) -> str:
    """The reason, without what every one of them says."""
    for words in (
        "the model's chat template refused the messages: ",
        "tools: ",
        "the model's chat template ",
    ):
        message = message.removeprefix(words)
    return message.partition(": name another")[0].replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
