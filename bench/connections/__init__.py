"""Ten thousand idle connections and slow senders on one API process: what an ordinary client notices of them."""
