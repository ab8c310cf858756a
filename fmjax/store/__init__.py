"""Published files on this machine: where they are, how they come here, and what is known of them."""
