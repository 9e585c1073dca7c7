"""The row formats that users write, brought to one canonical form: a conversation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

from tunesmith.api.objects import DatasetFormat

from tunesmith_trainer.data.rows import Row, read_rows

MESSAGES_SHAPE = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", ...}]}'
SHARE_GPT_SHAPE = (
    '{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}'
)
ALPACA_SHAPE = '{"instruction": "...", "input": "...", "output": "..."}'
PROMPT_COMPLETION_SHAPE = '{"prompt": "...", "completion": "..."}'


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


#: Who speaks in ShareGPT's files.
SPEAKERS = {
    "system": Role.SYSTEM,
    "human": Role.USER,
    "user": Role.USER,
    "gpt": Role.ASSISTANT,
    "assistant": Role.ASSISTANT,
}


@dataclass(frozen=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True)
class Conversation:
    """One example: the last message is the assistant's, and is what the model learns to say."""

    messages: tuple[Message, ...]

    @property
    def question(self) -> tuple[Message, ...]:
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        return self.messages[-1].content

    def to_line(self) -> str:
        """Canonical JSON: equal conversations are equal lines."""
        return json.dumps(
            {"messages": as_dicts(self.messages)},
            ensure_ascii=False,
            sort_keys=True,
            separators=(",", ":"),
        )

    def digest(self) -> str:
        return hashlib.sha256(self.to_line().encode()).hexdigest()


def as_dicts(messages: Iterable[Message]) -> list[dict[str, str]]:
    """The form that chat templates take."""
    return [{"role": message.role.value, "content": message.content} for message in messages]


def rows_digest(conversations: Iterable[Conversation]) -> str:
    """sha256 of the rows in canonical form, in their order: what ``sha256sum`` says of the file."""
    total = hashlib.sha256()
    for conversation in conversations:
        total.update(conversation.to_line().encode() + b"\n")
    return f"sha256:{total.hexdigest()}"


def conversation_from(row: Row, expected: DatasetFormat) -> Conversation:
    """Read one row, or complain about it."""
    match format_of(row) if expected is DatasetFormat.AUTO else expected:
        case DatasetFormat.ALPACA:
            return from_alpaca(row)
        case DatasetFormat.SHARE_GPT:
            return from_share_gpt(row)
        case DatasetFormat.PROMPT_COMPLETION:
            return from_prompt_completion(row)
        case _:
            return from_messages(row)


def format_of(row: Row) -> DatasetFormat:
    if "messages" in row.fields:
        return DatasetFormat.MESSAGES
    if "conversations" in row.fields:
        return DatasetFormat.SHARE_GPT
    if "instruction" in row.fields:
        return DatasetFormat.ALPACA
    if {"prompt", "completion"} <= row.fields.keys():
        return DatasetFormat.PROMPT_COMPLETION
    keys = ", ".join(sorted(row.fields)) or "no keys"
    raise row.complaint(
        f"found {keys}: write {MESSAGES_SHAPE}, {SHARE_GPT_SHAPE}, {ALPACA_SHAPE} or "
        f"{PROMPT_COMPLETION_SHAPE}"
    )


def asks_choices(path: Path) -> bool:
    """Whether a file holds multiple-choice questions, by its first row."""
    return any({"question", "choices"} <= row.fields.keys() for row in islice(read_rows(path), 1))


def from_alpaca(row: Row) -> Conversation:
    instruction = text_of(row, row.fields, "instruction", "")
    output = text_of(row, row.fields, "output", "")
    context = row.fields.get("input") or ""
    if not isinstance(context, str):
        raise row.complaint('"input" must be text; leave it out if there is none')
    question = f"{instruction}\n\n{context}" if context.strip() else instruction
    return Conversation((Message(Role.USER, question), Message(Role.ASSISTANT, output)))


def from_messages(row: Row) -> Conversation:
    return checked_conversation(row, messages_under(row, "messages", MESSAGES_SHAPE))


def from_share_gpt(row: Row) -> Conversation:
    """ShareGPT's turns; a system prompt may be the first of them or a field of its own."""
    entries = row.fields.get("conversations")
    if not isinstance(entries, list) or not entries:
        raise row.complaint(f'"conversations" must be a list of turns: write {SHARE_GPT_SHAPE}')
    turns = [turn_from(row, entry, index) for index, entry in enumerate(entries)]
    system = row.fields.get("system")
    if system is None or system == "":
        return checked_conversation(row, turns)
    return checked_conversation(
        row, [Message(Role.SYSTEM, text_of(row, row.fields, "system", "")), *turns]
    )


def from_prompt_completion(row: Row) -> Conversation:
    """A prompt and its completion, each as text or as a list of messages."""
    fields, messages = row.fields, []
    for key, role in (("prompt", Role.USER), ("completion", Role.ASSISTANT)):
        if isinstance(fields.get(key), list):
            messages += messages_under(row, key, PROMPT_COMPLETION_SHAPE)
        else:
            messages.append(Message(role, text_of(row, fields, key, "")))
    return checked_conversation(row, messages)


def messages_under(row: Row, key: str, shape: str) -> list[Message]:
    entries = row.fields.get(key)
    if not isinstance(entries, list) or not entries:
        raise row.complaint(f'"{key}" must be a list of messages: write {shape}')
    return [message_from(row, entry, f"{key}[{index}]") for index, entry in enumerate(entries)]


def checked_conversation(row: Row, messages: Sequence[Message]) -> Conversation:
    """The messages as an example to learn from, or a complaint about their order."""
    if messages[-1].role is not Role.ASSISTANT:
        raise row.complaint(
            f"the last message is from {messages[-1].role}: end with the assistant's answer, "
            "which is what the model learns"
        )
    if not any(message.role is Role.USER for message in messages):
        raise row.complaint("no message from user: add the question that the assistant answers")
    if any(message.role is Role.SYSTEM for message in messages[1:]):
        raise row.complaint("a system message after the first message: put it first, or remove it")
    return Conversation(tuple(messages))


def turn_from(row: Row, entry: object, index: int) -> Message:
    place = f"conversations[{index}]"
    if not isinstance(entry, dict):
        raise row.complaint(f'{place} must be an object with "from" and "value"')
    speaker = entry.get("from")
    if not isinstance(speaker, str) or speaker not in SPEAKERS:
        raise row.complaint(
            f'{place} is "from" {json.dumps(speaker)}: use {", ".join(SPEAKERS)}, or the format '
            "Messages"
        )
    return Message(SPEAKERS[speaker], text_of(row, entry, "value", f"{place} "))


def message_from(row: Row, entry: object, place: str) -> Message:
    if not isinstance(entry, dict):
        raise row.complaint(f'{place} must be an object with "role" and "content"')
    role = entry.get("role")
    if not isinstance(role, str) or role not in set(Role):
        raise row.complaint(
            f"{place} has the role {json.dumps(role)}: use system, user or assistant"
        )
    return Message(Role(role), text_of(row, entry, "content", f"{place} "))


def text_of(row: Row, fields: dict[str, Any], key: str, place: str) -> str:
    """A field that must hold text."""
    if key not in fields:
        raise row.complaint(f'{place}has no "{key}": add it')
    value = fields[key]
    if not isinstance(value, str):
        raise row.complaint(f'{place}"{key}" is {type(value).__name__}: write it as text in quotes')
    if not value.strip():
        raise row.complaint(f'{place}"{key}" is empty: fill it in, or remove the row')
    return value
