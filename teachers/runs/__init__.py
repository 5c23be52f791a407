"""What every run needs, whatever it trains: paths, outputs, logs, checkpoints, configurations, devices and errors."""
