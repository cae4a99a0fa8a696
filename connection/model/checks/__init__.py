"""Checks of a model folder that may be damaged or hostile: made before a library reads the folder."""
