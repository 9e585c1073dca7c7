"""The examples that a model is tuned on, and what became of them."""

from __future__ import annotations

from pydantic import Field

from tunesmith.api.locations import (
    CONFIG_MAP_PATTERN,
    HTTPS_PATTERN,
    HUB_DATASET_PATTERN,
    PVC_PATTERN,
    S3_PATTERN,
    any_of,
)
from tunesmith.api.objects import (
    DIGEST_RULE,
    HTTPS_DIGEST_RULE,
    NO_PARENT,
    SECRET_DESCRIPTION,
    SECRET_RULE,
    DatasetFormat,
    Digest,
    HeldOut,
    SecretReference,
    Timestamp,
    Uri,
)
from tunesmith.api.schema import ApiModel, between, rule, rules

#: Annotations by which a person approves the data of a FineTuneJob.
APPROVED_DATA = "tunesmith.dev/approved-data"
APPROVED_BY = "tunesmith.dev/approved-by"


class NearDuplicates(ApiModel):
    """Training examples that say nearly the same: the model would learn them by heart."""

    enabled: bool = Field(default=True, description="Keep one of each group, drop the others.")
    similarity: float = Field(
        default=0.8,
        description="Jaccard similarity of the words from which on two examples are one.",
        json_schema_extra=between(
            0.5, 1, "nearDuplicates.similarity", "0.8 is usual; 1 drops equal sets of words only"
        ),
    )


class Review(ApiModel):
    """A look at the data by a person before a GPU is used."""

    required: bool = Field(
        default=False,
        description=(
            "Wait in state AwaitingReview until somebody approves the data: set the annotation "
            f"{APPROVED_DATA} to status.dataset.digest, and {APPROVED_BY} to your user name."
        ),
    )
    examples: int = Field(
        default=100,
        description="Training examples on the review page, drawn at random.",
        json_schema_extra=between(1, 1000, "review.examples"),
    )


class DatasetSource(ApiModel):
    """Training examples: JSON Lines, a JSON array, CSV (each also .gz) or Parquet, by suffix."""

    uri: Uri = Field(
        description=(
            "Where the file is: pvc://CLAIM/PATH, configmap://NAME/KEY for small data, "
            "s3://BUCKET/PATH, hf://datasets/ORGANISATION/NAME[@REVISION]/PATH, or "
            "https://HOST/PATH with a digest."
        ),
        json_schema_extra=rules(
            rule(
                any_of(
                    PVC_PATTERN, CONFIG_MAP_PATTERN, HUB_DATASET_PATTERN, S3_PATTERN, HTTPS_PATTERN
                ),
                "a dataset's uri must be pvc://CLAIM/PATH, configmap://NAME/KEY, "
                "s3://BUCKET/PATH, hf://datasets/ORGANISATION/NAME[@REVISION]/PATH or "
                "https://HOST/PATH without user and query, for example pvc://data/tickets.jsonl",
            ),
            NO_PARENT,
        ),
    )
    digest: Digest | None = Field(
        default=None,
        description=(
            "sha256 of the file, else the job fails; required for https://, where it makes sure "
            "that every attempt reads the same."
        ),
        json_schema_extra=rules(DIGEST_RULE),
    )
    secret_ref: SecretReference | None = Field(default=None, description=SECRET_DESCRIPTION)
    format: DatasetFormat = Field(
        default=DatasetFormat.AUTO,
        description=(
            "Messages: {messages: [{role, content}, ...]}. ShareGPT: {conversations: [{from, "
            "value}, ...]}. Alpaca: {instruction, input, output}. PromptCompletion: {prompt, "
            "completion}. Auto tells them apart by the first row."
        ),
    )
    held_out: HeldOut = Field(
        default=HeldOut(), description="The examples kept from training, for evaluation."
    )
    near_duplicates: NearDuplicates = Field(
        default=NearDuplicates(), description="Training examples that are nearly the same."
    )
    decontaminate_against: list[Uri] = Field(
        default_factory=list,
        max_length=8,
        description=(
            "Evaluation sets besides the held-out examples and the job's own suites: a training "
            "example that shares text with one of them is dropped. pvc:// or configmap:// files "
            "of the same formats."
        ),
        json_schema_extra={
            "items": {
                "type": "string",
                "minLength": 1,
                "maxLength": 1024,
                **rules(
                    rule(
                        f"self.matches('{PVC_PATTERN}') || self.matches('{CONFIG_MAP_PATTERN}')",
                        "dataset.decontaminateAgainst takes pvc://CLAIM/PATH or "
                        "configmap://NAME/KEY, for example pvc://data/test-set.jsonl",
                    ),
                    NO_PARENT,
                ),
            }
        },
    )
    max_lost_tokens: float = Field(
        default=0.01,
        description=(
            "Share of the tokens that may be lost because examples are longer than "
            "training.maxLength: such an example is left out whole. More is refused."
        ),
        json_schema_extra=between(0, 1, "dataset.maxLostTokens"),
    )
    review: Review = Field(
        default=Review(), description="A look at the data by a person before a GPU is used."
    )

    cel_rules = (SECRET_RULE, HTTPS_DIGEST_RULE)


class LengthBucket(ApiModel):
    """One bar of the histogram of lengths."""

    up_to: int = Field(description="Longest example of this bar in tokens.")
    rows: int = Field(description="Training examples in it.")


class DatasetAudit(ApiModel):
    """What the examples are in tokens of the model."""

    tokens: int = Field(description="Tokens of the training examples that are kept.")
    trainable_tokens: int = Field(description="Those that the model learns: the answers.")
    longest: int = Field(description="Longest training example in tokens.")
    too_long_rows: int = Field(
        default=0, description="Examples left out as longer than training.maxLength."
    )
    lost_tokens: int = Field(default=0, description="Their tokens.")
    lengths: list[LengthBucket] = Field(
        default_factory=list, max_length=16, description="How long the training examples are."
    )


class DatasetReceipt(ApiModel):
    """What became of the dataset's rows."""

    digest: Digest = Field(
        description="sha256 over what is trained on and held out. What a review approves."
    )
    revision: str | None = Field(
        default=None,
        max_length=64,
        description="Commit of the dataset's hub repository, whatever was asked for.",
    )
    rows: int = Field(description="Rows read.")
    held_out_rows: int = Field(description="Rows set aside for evaluation.")
    held_out_digest: Digest = Field(description="sha256 of the held-out rows.")
    duplicate_rows: int = Field(description="Rows dropped from training as exact duplicates.")
    near_duplicate_rows: int = Field(
        default=0, description="Rows dropped from training as nearly the same as another."
    )
    contaminated_rows: int = Field(
        default=0, description="Rows dropped from training as they share text with evaluation."
    )
    train_rows: int = Field(description="Rows trained on.")
    audit: DatasetAudit | None = Field(
        default=None, description="What the examples are in tokens of the model."
    )


class JobReview(ApiModel):
    """The review of a job's data."""

    page: Uri = Field(description="The page to look at: review.html.")
    approved_digest: Digest | None = Field(default=None, description="The data that was approved.")
    approved_by: str | None = Field(
        default=None, max_length=253, description="Who approved: their user name."
    )
    approved_at: Timestamp | None = Field(default=None, description="When it was seen.")
