"""Ways out: programs that run without fmjax, folders that other libraries load as they are, and what a hub shows."""
