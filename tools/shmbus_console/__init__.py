"""What the commands `shmbus` and `shmtop` share: options, exit codes, and how things are shown."""
