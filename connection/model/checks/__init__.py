"""What a model folder is not trusted with, checked before a library reads it."""
