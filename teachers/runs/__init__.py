"""What every run needs, whatever it trains: folders, logs, checkpoints, devices, errors."""
