"""The job's request fields, for requests that don't set them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config import Endpoint
from pipeline.request.schema import OTHER_NAMES, fields_of

Body = Mapping[str, Any]


def with_defaults(defaults: Body, endpoint: Endpoint, body: Body) -> dict[str, Any]:
    """The body of a request to `endpoint`, with the defaults of the fields that it doesn't set or sets to
    null."""
    own = {name: value for name, value in body.items() if value is not None}
    canonical = {OTHER_NAMES.get(name, name) for name in own}
    served = fields_of(endpoint)
    added = {
        name: value
        for name, value in defaults.items()
        if name in served and OTHER_NAMES.get(name, name) not in canonical
    }
    return added | own | _merged_options(defaults, own)


def _merged_options(defaults: Body, own: Body) -> dict[str, Any]:
    """The job's variables of the chat template hold for a request that sets others."""
    name = "chat_template_kwargs"
    common, options = defaults.get(name), own.get(name)
    if not isinstance(common, dict) or not isinstance(options, dict):
        return {}
    return {name: common | {key: value for key, value in options.items() if value is not None}}
