"""A request: its fields, their ranges, and how rows become one."""
