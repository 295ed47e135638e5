"""What it costs, and against what: every claim of speed is a command of this folder."""
