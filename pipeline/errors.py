"""Every failure that nightherd names, in one picture.

NightherdError
├── JobError             the job stops; nothing that was committed is lost          exit 1
│   ├── ConfigError      the command line or the job file is wrong                  exit 2
│   ├── InputError       the input is missing or unreadable as a whole
│   ├── OutputError      the output belongs to another job, or contradicts itself
│   ├── StorageError     a file system refused, after retries
│   ├── ModelError       the model can't be fetched, isn't a GGUF, or doesn't fit
│   ├── WorkersExhausted workers died more often than the job allows
│   ├── ClusterLost      the cluster is gone, or has had no place for a worker for too long
│   └── TooManyFailures  nearly every row fails
├── WorkerError          a worker's engine is broken; its rows go to another worker
│   └── MachineError     llama.cpp can't be trusted on this machine, whatever the rows are
└── RowError             an answer like any other: the row's error column
"""

from __future__ import annotations


class NightherdError(Exception):
    """The root of every error that nightherd raises on purpose."""


class JobError(NightherdError):
    """The job can't be completed. What was committed stays, and the message says what to do."""

    exit_status = 1


class ConfigError(JobError):
    """The command line or the job file is wrong; the message names the key by its dotted path."""

    exit_status = 2


class InputError(JobError):
    """The input as a whole can't be read: no such path, no Parquet, no column that makes a request."""


class OutputError(JobError):
    """The output folder belongs to another job, or its files contradict each other."""


class StorageError(JobError):
    """A file system refused to read or write, after retries."""


class ModelError(JobError):
    """The model can't be fetched, isn't a GGUF, differs from its hash, or doesn't fit."""


class WorkersExhausted(JobError):
    """Workers died, or failed to start, more often than the job allows."""


class ClusterLost(JobError):
    """The Ray cluster is gone, or has had no place for a worker for too long."""


class TooManyFailures(JobError):
    """Nearly every row fails: the fault is rather the job's than the rows'."""


class WorkerError(NightherdError):
    """A worker's engine is broken and must be replaced; its rows are tried elsewhere."""


class MachineError(WorkerError):
    """llama.cpp dies or computes wrong numbers on this machine. No row is to blame, and no worker can start.

    The first line of the message says what happened; the others say what to do.
    """


_ROW_ERRORS = {
    "invalid_request": (400, "invalid_request_error"),
    "unsupported_parameter": (400, "invalid_request_error"),
    "context_length_exceeded": (400, "invalid_request_error"),
    "model_not_found": (404, "invalid_request_error"),
    "worker_crashed": (500, "server_error"),
    "deadline_exceeded": (504, "server_error"),
    "server_error": (500, "server_error"),
}


class RowError(NightherdError):
    """One row's error, in OpenAI's shape: what was wrong, where, and what is allowed.

    code: a key of the contract's list ("invalid_request", "unsupported_parameter",
        "context_length_exceeded", "model_not_found", "worker_crashed", "deadline_exceeded",
        "server_error"); it decides `status_code` and `type`.
    param: the request field at fault, as a dotted path ("messages[0].role"), or None.
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status_code, self.type = _ROW_ERRORS[code]
        self.code = code
        self.message = message
        self.param = param

    def __reduce__(self) -> tuple[type[RowError], tuple[str, str, str | None]]:
        return RowError, (self.code, self.message, self.param)
