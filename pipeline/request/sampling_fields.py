"""How tokens are drawn: OpenAI's fields and llama.cpp's."""

from __future__ import annotations

from pydantic import Field

from pipeline.request.fields import MAX_STOPS, Bias, Breakers, Fields, Integer, Limit, Stops, TopK


class SamplingFields(Fields):
    """Names, defaults and meanings are llama.cpp's where OpenAI has no such field."""

    max_tokens: Limit = Field(
        256, ge=1, description="an integer from 1 to the model's context limit, or -1: as many as it holds"
    )
    min_tokens: Integer = Field(0, ge=0, description="an integer from 0 to max_tokens")
    ignore_eos: bool = Field(False, description="true or false")
    temperature: float = Field(0.8, ge=0, le=2, description="a number from 0 to 2")
    top_p: float = Field(0.95, ge=0, le=1, description="a number from 0 to 1")
    top_k: TopK = Field(40, ge=0, description="an integer from 0 (all tokens; -1 as well) up")
    min_p: float = Field(0.05, ge=0, le=1, description="a number from 0 to 1")
    typical_p: float = Field(1.0, ge=0, le=1, description="a number from 0 to 1 (off)")
    # Beyond these bounds float32 logits overflow, and no token is left to draw.
    repeat_penalty: float = Field(1.1, ge=0.1, le=10, description="a number from 0.1 to 10")
    presence_penalty: float = Field(0.0, ge=-2, le=2, description="a number from -2 to 2")
    frequency_penalty: float = Field(0.0, ge=-2, le=2, description="a number from -2 to 2")
    dry_multiplier: float = Field(0.0, ge=0, le=100, description="a number from 0 (off) to 100")
    dry_base: float = Field(1.75, ge=1, le=100, description="a number from 1 to 100")
    dry_allowed_length: Integer = Field(2, ge=0, lt=2**31, description="an integer from 0 up")
    dry_penalty_last_n: Integer = Field(-1, ge=-1, lt=2**31, description="an integer from -1 (all tokens) up")
    dry_sequence_breakers: Breakers = Field(
        ("\n", ":", '"', "*"), description="a list of strings that are not empty"
    )
    xtc_probability: float = Field(0.0, ge=0, le=1, description="a number from 0 (off) to 1")
    xtc_threshold: float = Field(0.1, ge=0, le=1, description="a number from 0 to 1")
    mirostat: Integer = Field(0, ge=0, le=2, description="an integer from 0 (off) to 2")
    mirostat_tau: float = Field(5.0, ge=0, le=100, description="a number from 0 to 100")
    mirostat_eta: float = Field(0.1, ge=0, le=1, description="a number from 0 to 1")
    logit_bias: Bias = Field((), description="a mapping of token ids to numbers from -100 to 100")
    stop: Stops = Field((), description=f"a string or a list of at most {MAX_STOPS} strings")
    seed: Integer | None = Field(None, ge=-(2**63), lt=2**63, description="an integer of 64 bits")
