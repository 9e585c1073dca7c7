"""Why an adapter may not come near vLLM."""

from __future__ import annotations

from enum import StrEnum

LONGEST_QUOTE = 160


class RefusalReason(StrEnum):
    """As conditions and events name it."""

    NOT_FOUND = "NotFound"
    OUTSIDE_ITS_VOLUME = "OutsideItsVolume"
    NOT_SAFETENSORS = "NotSafetensors"
    WEIGHTS_UNREADABLE = "WeightsUnreadable"
    CONFIGURATION_UNREADABLE = "ConfigurationUnreadable"
    DIGEST_MISMATCH = "DigestMismatch"
    NOT_LORA = "NotLora"
    DORA_NOT_SERVABLE = "DoraNotServable"
    MODULES_TO_SAVE = "ModulesToSave"
    BIAS_NOT_SERVABLE = "BiasNotServable"
    INITIALISATION_NOT_SERVABLE = "InitialisationNotServable"
    LAYOUT_NOT_SERVABLE = "LayoutNotServable"
    RANK_TOO_LARGE = "RankTooLarge"
    RANK_MISMATCH = "RankMismatch"
    WRONG_SHAPE = "WrongShape"
    UNKNOWN_MODULE = "UnknownModule"
    HALF_PAIR = "HalfPair"
    NO_WEIGHTS = "NoWeights"
    NOT_FINITE = "NotFinite"
    WRONG_DATA_TYPE = "WrongDataType"
    #: Judged on another base model than the one that is served.
    WRONG_BASE_MODEL = "WrongBaseModel"


class Refused(Exception):  # noqa: N818 - a verdict, not an error
    """``message`` says what is wrong, where, and what to do instead."""

    def __init__(self, reason: RefusalReason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


def quoted(value: object) -> str:
    """What a file says, fit for a message: files come from strangers.

    Escaped, as names may hold line breaks or halves of characters that no report can carry, and
    cut, as they may be as long as the file.
    """
    text = ascii(value[:LONGEST_QUOTE] if isinstance(value, str) else value)
    return text if len(text) <= 2 * LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}..."
