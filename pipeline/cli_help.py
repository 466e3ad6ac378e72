"""What the command line says of its longer commands."""

from __future__ import annotations

RUN = """Run a job, or resume it: the same command again does only what is missing.

\b
Examples:
  nightherd run job.yaml
  nightherd run job.yaml --set engine.slots=32 --set request.defaults.max_tokens=64
  nightherd run --model hf://org/repo/model.gguf --input data/ --output out/
  nightherd run job.yaml --sample 50          # try 50 rows out first: OUT/tryout.parquet

IN is a Parquet, CSV or .jsonl file (as OpenAI's batch format), a folder or a glob of them, on any
fsspec URL (s3://, gs://, https:// ...). A row is a request by its columns: `messages` (a chat),
`prompt` (a completion), `input` (an embedding), or `custom_id`, `method`, `url`, `body` (a batch
line). OUT/responses/ gets the answers: the same rows, in the same order, in OpenAI's shape. A bad
row gets an error in its `error` column and never stops the job. What --limit or --sample tried out is kept.

\b
Exit status: 0 every row has its output row, 1 the job could not be completed, 2 wrong usage.
"""

STATUS = """Show the progress and totals of a running, stopped or finished job.

\b
Examples:
  nightherd status out/
  nightherd status s3://bucket/out/ --watch        # until the job has ended; Ctrl-C ends it before
  nightherd status out/ --watch 30                 # a look every 30 seconds

It reads OUT alone, so it works from any machine that can read OUT.
"""

EXPORT = """Write the answers as a result file of OpenAI's Batch API.

\b
Examples:
  nightherd export out/ results.jsonl
  nightherd export out/ s3://bucket/results.jsonl --errors s3://bucket/errors.jsonl
  nightherd export out/ - --partial | head

One line for each row, in the input's order: id, custom_id, response (status_code, request_id, body),
error. A row that a server would refuse has a response with its 4xx or 5xx status and OpenAI's error
body; `error` is for rows that never came back (worker_crashed, deadline_exceeded). Embeddings are
lists of floats, whatever encoding_format the row asked for: the output holds no requests.

\b
Exit status: 0 written, 1 the job isn't finished or can't be read, 2 wrong usage.
"""

DOCTOR = """Show what this machine or cluster has for a job, and what is wrong.

\b
Examples:
  nightherd doctor                 # Python, Ray, llama.cpp, CPU, GPUs, memory, disk
  nightherd doctor job.yaml        # also its model, measured on every machine, its input and its output
  nightherd doctor job.yaml --json | jq .sound

Where a Ray cluster runs on this machine or at RAY_ADDRESS, each of its machines is examined. The model is
fetched as a job would fetch it. llama.cpp is tried in processes of its own: where it dies, that is said,
with the command that mends it.

\b
Exit status: 0 a job can run, 1 something would end it, 2 wrong usage.
"""

PLAN = """Forecast a job: rows, tokens, time, size of the output, and the rows that will be refused.

\b
Examples:
  nightherd plan job.yaml
  nightherd plan job.yaml --json | jq .forecast.seconds
  nightherd plan job.yaml --set cluster.price_per_hour=2.50

One worker answers a small seeded sample of the input, and all rows pass the checks that workers make (of an
input of more than 100,000 rows, that many). The sample's answers are kept in OUT as those of nightherd run
--sample are: the job doesn't compute them again. The forecast is held against what came in OUT/_SUCCESS, in
the summary of the run and in its report.

\b
Exit status: 0 planned, 1 the job could not be run, 2 wrong usage.
"""

SERVE = """Answer OpenAI's HTTP routes with a model, in this process, until Ctrl-C or SIGTERM.

\b
Examples:
  nightherd serve --model hf://org/repo/model.gguf
  nightherd serve job.yaml --port 8080 --api-key-file keys.txt
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"model": "local", "messages": [{"role": "user", "content": "Hello!"}]}'

Of a job file it takes model, engine, request.defaults and serve. Any OpenAI client works with
base_url http://127.0.0.1:8000/v1. Without keys (--api-key-file, or NIGHTHERD_API_KEYS) only
addresses of this machine are served. Files and batches (/v1/files, /v1/batches) lie under --data, and
batches go on when the service is started again. It needs pip install "nightherd[serve]".

\b
Exit status: 0 stopped when told to, 1 the model could not be served, 2 wrong usage.
"""
