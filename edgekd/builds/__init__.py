"""What an unattended build asks for: no network, a lock, a dependency file, faults in one line."""
