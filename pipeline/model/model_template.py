"""The job's own chat template."""

from __future__ import annotations

from jinja2 import TemplateError

from pipeline.chat.chat_template import environment
from pipeline.config import ModelConfig
from pipeline.errors import ModelError, StorageError
from pipeline.files.storage import Storage


def read_chat_template(config: ModelConfig) -> str | None:
    """The text of model.chat_template, None where the job names none.

    Raises ModelError where the file can't be read, or isn't Jinja.
    """
    url = config.chat_template
    if url is None:
        return None
    try:
        storage, name = Storage.around(url)
        text = storage.read_bytes(name).decode()
        environment().parse(text)
    except (OSError, StorageError) as error:
        raise ModelError(f"model.chat_template {url} can't be read: {error}") from None
    except (UnicodeDecodeError, TemplateError) as error:
        raise ModelError(f"model.chat_template {url} is no Jinja template: {error}") from None
    return text
