"""The words by which conditions, and lists of what is not served, say why.

What the trainer names is in ``trainer_contract.Reason``; states are reasons, too, where a condition
only says how far an object is. docs/troubleshooting.md has an entry for each word here and there.
"""

from __future__ import annotations

from enum import StrEnum


class ConditionReason(StrEnum):
    """Why a condition holds or does not."""

    # An attempt under way.
    PENDING = "Pending"
    QUEUED = "Queued"
    RUNNING = "Running"
    PROGRESSING = "Progressing"
    WAITING = "Waiting"
    SUSPENDED = "Suspended"

    # A pod, or what it needs.
    NO_POD = "NoPod"
    IMAGE_NOT_PULLABLE = "ImageNotPullable"
    CONTAINER_NOT_CREATABLE = "ContainerNotCreatable"
    CRASHING = "Crashing"
    SECRET_NOT_FOUND = "SecretNotFound"
    SECRET_KEY_NOT_FOUND = "SecretKeyNotFound"
    CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound"
    CLAIM_NOT_FOUND = "ClaimNotFound"
    CLAIM_NOT_BOUND = "ClaimNotBound"
    UNSCHEDULABLE = "Unschedulable"
    PODS_REFUSED = "PodsRefused"
    POD_NOT_ENDING = "PodNotEnding"

    # How an attempt ended, where the trainer could not say.
    RESULT_LOST = "ResultLost"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    POD_LOST = "PodLost"

    # The object itself.
    NAME_TAKEN = "NameTaken"
    REFUSED = "Refused"
    API_SERVER_FAILED = "ApiServerFailed"
    UNREADABLE = "Unreadable"

    # The stages of a FineTuneJob.
    PREPARING = "Preparing"
    DATA_READY = "DataReady"
    NOT_KNOWN = "NotKnown"
    NO_OUTPUT = "NoOutput"
    AWAITING_REVIEW = "AwaitingReview"
    NOT_PREPARED = "NotPrepared"
    NOT_APPROVED = "NotApproved"
    OTHER_DATA_APPROVED = "OtherDataApproved"
    NO_NAME = "NoName"
    APPROVED = "Approved"
    PREFLIGHT = "Preflight"
    NOT_MEASURED = "NotMeasured"
    MEASURING = "Measuring"
    NOT_TRAINED = "NotTrained"
    TRAINED_AGAIN = "TrainedAgain"
    TRAINED = "Trained"
    EVALUATING = "Evaluating"
    EVALUATION_PASSED = "EvaluationPassed"
    EVALUATION_FAILED = "EvaluationFailed"
    EVALUATION_INCONCLUSIVE = "EvaluationInconclusive"
    OUTSIDE_PROVEN_RANGE = "OutsideProvenRange"

    # An EvalRun.
    JOB_NOT_FOUND = "JobNotFound"
    NO_ADAPTER = "NoAdapter"
    NO_VERDICT = "NoVerdict"
    MEASURED = "Measured"
    GATES_HOLD = "GatesHold"
    GATE_FAILED = "GateFailed"
    INCONCLUSIVE = "Inconclusive"
    NOTHING_COMPARED = "NothingCompared"
    FEW_ITEMS = "FewItems"

    # An AdapterDeployment.
    SERVING = "Serving"
    MERGING = "Merging"
    SCALED_TO_ZERO = "ScaledToZero"
    NO_CLIENTS = "NoClients"
    FILES_NOT_DELETED = "FilesNotDeleted"
    HOT_SET_DOES_NOT_FIT = "HotSetDoesNotFit"
    PROMETHEUS_UNKNOWN = "PrometheusUnknown"
    KEDA_NOT_INSTALLED = "KedaNotInstalled"


class NotServedReason(StrEnum):
    """Why an adapter that was selected is not served, where nothing is wrong with its files."""

    BEING_DELETED = "BeingDeleted"
    OTHER_BASE_MODEL = "OtherBaseModel"
    NOT_AN_ADAPTER = "NotAnAdapter"
    NAME_TAKEN = "NameTaken"
    NOT_ON_CLAIM = "NotOnClaim"
    NOT_TRAINED = "NotTrained"
    NOT_EVALUATED = "NotEvaluated"
    ONE_ADAPTER_ONLY = "OneAdapterOnly"
    TOO_MANY_NAMES = "TooManyNames"
    #: By us, or they are about to be: spec.adapters.deleteFiles.
    FILES_DELETED = "FilesDeleted"


class RefusalReason(StrEnum):
    """Why a replica does not serve a version: it may not come near vLLM, or came to nothing."""

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
    #: It passed, and vLLM would not have it, or does not answer with it.
    VLLM_REFUSED = "VllmRefused"
    INTERNAL = "InternalError"
