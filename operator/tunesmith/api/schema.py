"""What every API model has in common: camelCase names, and the rules it carries into its CRD."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    """A part of an API object.

    Unknown fields are ignored on reading, so that an older operator can read what a newer one
    wrote; the API server is the one that refuses misspelt fields.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True
    )

    #: CEL rules over this object, copied into the CRD (x-kubernetes-validations).
    cel_rules: ClassVar[tuple[dict[str, str], ...]] = ()

    def to_json(self) -> dict[str, Any]:
        """The object as the API server stores it: camelCase, without unset fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def rule(expression: str, message: str) -> dict[str, str]:
    """One CEL rule with the sentence that a user reads when it does not hold."""
    return {"rule": expression, "message": message}


def rules(*entries: dict[str, str], **extra: Any) -> dict[str, Any]:
    """CEL rules over one field, in the form that pydantic's ``json_schema_extra`` takes."""
    return {"x-kubernetes-validations": list(entries), **extra}


def between(low: float, high: float, name: str, advice: str = "") -> dict[str, Any]:
    """A range as a CEL rule, because the schema's own ``minimum`` cannot carry a sentence."""
    message = f"{name} must be between {low:g} and {high:g}"
    return rules(
        rule(
            f"double(self) >= {float(low)!r} && double(self) <= {float(high)!r}",
            f"{message}; {advice}" if advice else message,
        )
    )
