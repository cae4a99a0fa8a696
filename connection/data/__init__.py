"""A pair file becomes checked rows, and these a store of tokens; audit and split."""
