"""Between requests and tokens: prompts one way, replies the other."""
