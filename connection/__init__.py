"""What the three top-level scripts are built from: one idea a file. Nothing here imports a top-level script."""
