"""What the commands `shmbus` and `shmtop` share: options, exit codes and output."""
