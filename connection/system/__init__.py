"""What a program stands on: paths, versions, devices, signals, locks, files that are whole, errors."""
