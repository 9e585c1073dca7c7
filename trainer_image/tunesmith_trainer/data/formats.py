"""The row formats that users write, brought to one canonical form: a conversation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tunesmith.api.objects import DatasetFormat

from tunesmith_trainer.data.rows import Row

MESSAGES_SHAPE = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", ...}]}'
ALPACA_SHAPE = '{"instruction": "...", "input": "...", "output": "..."}'


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


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
        case _:
            return from_messages(row)


def format_of(row: Row) -> DatasetFormat:
    if "messages" in row.fields:
        return DatasetFormat.MESSAGES
    if "instruction" in row.fields:
        return DatasetFormat.ALPACA
    keys = ", ".join(sorted(row.fields)) or "no keys"
    raise row.complaint(f"found {keys}: write {MESSAGES_SHAPE} or {ALPACA_SHAPE}")


def from_alpaca(row: Row) -> Conversation:
    instruction = text_of(row, row.fields, "instruction", "")
    output = text_of(row, row.fields, "output", "")
    context = row.fields.get("input") or ""
    if not isinstance(context, str):
        raise row.complaint('"input" must be text; leave it out if there is none')
    question = f"{instruction}\n\n{context}" if context.strip() else instruction
    return Conversation((Message(Role.USER, question), Message(Role.ASSISTANT, output)))


def from_messages(row: Row) -> Conversation:
    entries = row.fields.get("messages")
    if not isinstance(entries, list) or not entries:
        raise row.complaint(f'"messages" must be a list of messages: write {MESSAGES_SHAPE}')
    messages = tuple(message_from(row, entry, index) for index, entry in enumerate(entries))
    if messages[-1].role is not Role.ASSISTANT:
        raise row.complaint(
            f"the last message is from {messages[-1].role}: end with the assistant's answer, "
            "which is what the model learns"
        )
    if not any(message.role is Role.USER for message in messages):
        raise row.complaint("no message from user: add the question that the assistant answers")
    if any(message.role is Role.SYSTEM for message in messages[1:]):
        raise row.complaint("a system message after the first message: put it first, or remove it")
    return Conversation(messages)


def message_from(row: Row, entry: object, index: int) -> Message:
    place = f"messages[{index}]"
    if not isinstance(entry, dict):
        raise row.complaint(f'{place} must be an object with "role" and "content"')
    role = entry.get("role")
    if role not in set(Role):
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
