"""Shapes of rows: which fields a format has, and how turns, judged answers and tool calls are read from them."""
