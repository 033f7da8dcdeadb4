"""One file per invariant: each looks at a world, after every step or at its end, and says in words what is broken."""
